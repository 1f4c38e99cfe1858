"""The archive's Parquet files: written by DuckDB from a COPY of Postgres, and read back."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from widget_analytics.errors import InputError, MissingExtra

if TYPE_CHECKING:
    import psycopg
    from psycopg.sql import Composable


@dataclass(frozen=True)
class Content:
    """What the files of one kind hold.

    Attributes:
        columns: the type of each, as DuckDB names it.
        order: by which rows lie together that are alike.
    """

    name: str
    columns: dict[str, str]
    order: str


# No page, no agent, and nothing that a browser said besides: an erasure never has to reach into a file.
EVENTS = Content(
    "events",
    {
        "id": "varchar",
        "widget_id": "varchar",
        "event_type": "varchar",
        "source": "varchar",
        "session_id": "varchar",
        "call_id": "varchar",
        "seq": "integer",
        "timestamp": "timestamptz",
        "received_at": "timestamptz",
        "properties": "varchar",
    },
    order='widget_id, session_id, "timestamp", id',
)
CALLS = Content(
    "calls",
    {
        "widget_id": "varchar",
        "session_id": "varchar",
        "call_id": "varchar",
        "started_at": "timestamptz",
        "ended_at": "timestamptz",
        "outcome": "varchar",
        "evidence": "varchar",
        "duration_seconds": "decimal(18, 6)",
        "billable_seconds": "decimal(18, 6)",
        "rule": "varchar",
        "amount": "decimal(18, 6)",
        "currency": "varchar",
    },
    order="widget_id, started_at, session_id, call_id",
)
CHARGES = Content(
    "charges",
    {
        "widget_id": "varchar",
        "charged_seconds": "decimal(18, 6)",
        "amount": "decimal(18, 6)",
        "currency": "varchar",
        "fees": "decimal(18, 6)",
    },
    order="widget_id",
)

# As widget_internal.release_archive_part() has it.
_SUMS = """
    select count(*), coalesce(sum(('0x' || left(sha256(concat_ws(
      '|', id, widget_id, event_type, source, epoch_us("timestamp"), epoch_us(received_at), coalesce(seq, 0),
      strlen(session_id), session_id, coalesce(strlen(call_id), -1), call_id, properties
    )), 15))::bigint), 0)
    from read_parquet($1, hive_partitioning = false)
"""


def require_duckdb() -> Any:
    """Load the engine.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import duckdb  # noqa: PLC0415 (an extra)
    except ImportError:
        raise MissingExtra("an archive", "duckdb", "archive") from None
    return duckdb


def write_rows(connection: psycopg.Connection[Any], content: Content, rows: Composable, file: Path) -> None:
    """Write what stands behind ``from`` in a query, and has these columns, as a Parquet file.

    Times cross as whole microseconds, which no setting of either side changes.
    """
    from psycopg import sql  # noqa: PLC0415 (an extra)

    is_time = {name: of_type == "timestamptz" for name, of_type in content.columns.items()}
    query = sql.SQL("copy (select {} from {} as r) to stdout (format csv)").format(
        sql.SQL(", ").join(
            sql.SQL("(extract(epoch from r.{}) * 1000000)::bigint" if is_time[name] else "r.{}").format(
                sql.Identifier(name)
            )
            for name in content.columns
        ),
        rows,
    )
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder, "rows.csv")
        with lines.open("wb") as out, connection.cursor() as cursor, cursor.copy(query) as copy:
            for block in copy:
                out.write(block)
        types = ", ".join(f"'{name}': '{'bigint' if is_time[name] else t}'" for name, t in content.columns.items())
        columns = ", ".join(f'make_timestamptz("{n}") as "{n}"' if is_time[n] else f'"{n}"' for n in content.columns)
        with require_duckdb().connect() as engine:
            # Names of our own and of the system's folder for temporary files.
            engine.execute(
                f"copy (select {columns} from read_csv('{lines}', auto_detect = false, header = false,"  # noqa: S608
                f" new_line = '\\n', columns = {{{types}}}) order by {content.order})"
                f" to '{file}' (format parquet, compression zstd)"
            )


def read_sums(file: Path) -> tuple[int, int]:
    """Read a file of events from its start to its end, and give their number and the sum of their digests.

    Raises:
        InputError: it is damaged, or something else.
    """
    duckdb = require_duckdb()
    try:
        with duckdb.connect() as engine:
            events, digest = engine.execute(_SUMS, [str(file)]).fetchone()
    except duckdb.Error as error:
        raise InputError(f"{file} cannot be read: {str(error).splitlines()[0]}") from error
    return events, int(digest)
