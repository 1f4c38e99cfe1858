"""Parquet: typed columns for data warehouses. Needs pyarrow, the extra ``parquet``.

Decimals are decimal128 with a fixed scale, times are UTC in microseconds, ids are strings.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

from widget_analytics._exit import MissingExtra, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from widget_analytics.models import _Row

# What is in memory at once. Larger groups would compress a little better.
ROWS_IN_GROUP = 16_384
# Postgres keeps time in microseconds, and amounts have at most six decimals. A price has as many as its plan says.
_SCALE, _PRICE_SCALE = 6, 12


def require_pyarrow() -> None:
    """Look whether Parquet can be written.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: F401, PLC0415 (an extra; and it takes longer to load than the rest of the command)
    except ImportError:
        raise MissingExtra("Parquet", "pyarrow", "parquet") from None


def write_parquet(model: type[_Row], rows: Iterable[_Row], file: BinaryIO) -> None:
    """Write one Parquet file, a group of rows at a time.

    Raises:
        OutputError: a number has more digits than its column.
    """
    import pyarrow as pa  # noqa: PLC0415

    schema = _schema(model)
    rows = iter(rows)
    with parquet_writer(model, file) as writer:
        while group := list(islice(rows, ROWS_IN_GROUP)):
            columns = [
                pa.array([_value(getattr(row, column)) for row in group], type=schema.field(column).type)
                for column in model.columns()
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


@contextmanager
def parquet_writer(model: type[_Row], file: BinaryIO) -> Iterator[Any]:
    """Open a file for tables of a model's columns.

    Raises:
        OutputError: a number, inside, has more digits than its column.
    """
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    with pq.ParquetWriter(file, _schema(model), compression="zstd") as writer:
        try:
            yield writer
        except pa.ArrowInvalid as error:
            raise OutputError(f"a number does not fit into Parquet ({error}): use --format csv or jsonl") from error


def copied_table(model: type[_Row], lines: bytes) -> Any:
    """Read lines of CSV, as COPY writes them, by the types of the model's columns."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import csv  # noqa: PLC0415

    schema = _schema(model)
    table = csv.read_csv(
        pa.BufferReader(lines),
        # In one block, so that each column is one array.
        read_options=csv.ReadOptions(column_names=schema.names, block_size=len(lines) + 1, use_threads=False),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=schema, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
    return pa.Table.from_arrays([column.combine_chunks() for column in table.columns], schema=schema)


def read_parquet(model: type[_Row], file: BinaryIO) -> Iterator[list[str]]:
    """Yield the rows' cells, a group of rows at a time."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        content = pq.ParquetFile(file)
        if not content.schema_arrow.equals(_schema(model)):
            raise ValueError("its columns are not those of this version")
        for batch in content.iter_batches(batch_size=ROWS_IN_GROUP):
            columns = [[parquet_cell(value) for value in column.to_pylist()] for column in batch.columns]
            for cells in zip(*columns, strict=True):
                yield list(cells)
    except (pa.ArrowException, OSError) as error:  # what pages are damaged is told as the one or the other
        raise ValueError(f"it is no Parquet, or damaged: {error}") from error


def parquet_cell(value: Any) -> str:
    """Write a value so that it is the same text from a model and from a file."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, tuple | list):
        return " ".join(map(str, value))
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


def _value(value: Any) -> Any:
    if value is None or isinstance(value, int | Decimal | date):
        return value
    return [str(item) for item in value] if isinstance(value, tuple) else str(value)


def _schema(model: type[_Row]) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    types = {
        "int": pa.int64(),
        "date": pa.date32(),
        "datetime": pa.timestamp("us", tz="UTC"),
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
