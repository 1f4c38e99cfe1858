"""What the widgets' calls cost in an archived month, beside its events."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from widget_analytics._archive.manifest import StoredFile

if TYPE_CHECKING:
    import psycopg

    from widget_analytics._archive.place import Place

_PLANS = """
    select v.widget_id::text, (v.plan).name, to_char(v.valid_from, 'YYYY-MM'), (v.plan).increment_seconds,
      (v.plan).minimum_seconds, (v.plan).included_seconds, (v.plan).price_per_minute::text, (v.plan).currency,
      widget_internal.currency_decimals((v.plan).currency), (v.plan).bills_failed_calls, (v.plan).assumed_calls
    from widget_internal.plan_validity v
    where v.valid_from <= widget_internal.to_month(%s) and widget_internal.to_month(%s) < v.valid_until
    order by v.widget_id
"""


def write_plans(connection: psycopg.Connection[Any], place: Place, month: str) -> StoredFile:
    """Store the plans that hold for a month. A price is text: no engine rounds it."""
    import pyarrow as pa  # noqa: PLC0415 (an extra)
    import pyarrow.parquet as pq  # noqa: PLC0415

    schema = pa.schema(
        [
            ("widget_id", pa.string()),
            ("name", pa.string()),
            ("valid_from", pa.string()),
            ("increment_seconds", pa.int64()),
            ("minimum_seconds", pa.int64()),
            ("included_seconds", pa.int64()),
            ("price_per_minute", pa.string()),
            ("currency", pa.string()),
            ("decimals", pa.int32()),
            ("bills_failed_calls", pa.bool_()),
            ("assumed_calls", pa.string()),
        ]
    )
    rows = connection.execute(_PLANS, [month, month]).fetchall()
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    table = pa.Table.from_arrays(
        [pa.array(list(column), type=field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
    name = f"plans/month={month}/plans.parquet"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "plans.parquet")
        pq.write_table(table, file, compression="zstd")
        place.put(file, name)
        return StoredFile.of(name, file, len(rows))
