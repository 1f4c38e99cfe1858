"""Parquet: typed columns for data warehouses. Needs pyarrow, the extra ``parquet``.

Decimals are decimal128 with a fixed scale, times are UTC in microseconds, ids are strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, datetime
from decimal import Decimal
from itertools import chain
from typing import Any, BinaryIO

from widget_analytics._lines import batches
from widget_analytics.errors import MissingExtra, OutputError
from widget_analytics.models import _Row

# What is in memory at once. Larger groups would compress a little better.
ROWS_IN_GROUP = 16_384
# Postgres keeps time in microseconds, and amounts have at most six decimals. A price has as many as its plan says.
_SCALE, _PRICE_SCALE = 6, 12


def require_pyarrow() -> None:
    """Look whether Parquet can be written."""
    MissingExtra.unless_installed("pyarrow", "Parquet", "parquet")


def write_parquet(model: type[_Row], lines: Iterable[list[bytes]], file: BinaryIO) -> None:
    """Write one Parquet file, a group of rows at a time.

    Raises:
        OutputError: a number has more digits than its column.
    """
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    schema = _schema(model)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in batches(chain.from_iterable(lines), ROWS_IN_GROUP):
            try:
                writer.write_table(_table(schema, b"".join(group)))
            except pa.ArrowInvalid as error:
                raise OutputError(f"a number does not fit into Parquet ({error}): use --format csv or jsonl") from error


def _table(schema: Any, lines: bytes) -> Any:
    """Read lines by the types of the columns; a list is a cell of words."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import csv  # noqa: PLC0415

    types = {field.name: pa.string() if pa.types.is_list(field.type) else field.type for field in schema}
    table = csv.read_csv(
        pa.BufferReader(lines),
        # In one block, so that each column is one array.
        read_options=csv.ReadOptions(column_names=schema.names, block_size=len(lines) + 1, use_threads=False),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=types, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
    columns = [
        pa.array([(words or "").split() for words in column.to_pylist()], type=field.type)
        if pa.types.is_list(field.type)
        else column.combine_chunks()
        for column, field in zip(table.columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def read_parquet(model: type[_Row], file: BinaryIO) -> Iterator[list[str]]:
    """Yield the rows' cells, a group of rows at a time."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        content = pq.ParquetFile(file)
        if not content.schema_arrow.equals(_schema(model)):
            raise ValueError("its columns are not those of this version")
        for batch in content.iter_batches(batch_size=ROWS_IN_GROUP):
            columns = [map(_cell, column.to_pylist()) for column in batch.columns]
            yield from map(list, zip(*columns, strict=True))
    except (pa.ArrowException, OSError) as error:  # what pages are damaged is told as the one or the other
        raise ValueError(f"it is no Parquet, or damaged: {error}") from error


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


def _schema(model: type[_Row]) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    types = {
        "int": pa.int64(),
        "bool": pa.bool_(),
        "date": pa.date32(),
        "Instant": pa.timestamp("us", tz="UTC"),
        "tuple[UUID, ...]": pa.list_(pa.string()),
    }

    def type_of(column: str, annotation: str) -> Any:
        if annotation.startswith("Decimal"):
            return pa.decimal128(38, _PRICE_SCALE if column.startswith("price") else _SCALE)
        return types.get(annotation.removesuffix(" | None"), pa.string())

    return pa.schema(
        [
            pa.field(column, type_of(column, annotation), nullable=annotation.endswith("| None"))
            for column, annotation in model.annotations().items()
        ]
    )
