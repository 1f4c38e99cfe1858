"""An archive's Parquet files: written from the ledger through COPY, and read back to be compared with it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from psycopg import sql

from widget_analytics._archive.manifest import Chunk
from widget_analytics._exit import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    import psycopg

_BLOCK = 8 << 20
_ROWS_IN_GROUP = 131_072

# As widget_internal.events_to_archive has them. Times cross as whole microseconds, and stand as times in the files.
_COLUMNS = {
    "chunk": "int32",
    "id": "string",
    "widget_id": "string",
    "event_type": "string",
    "source": "string",
    "session_id": "string",
    "call_id": "string",
    "seq": "int32",
    "happened_us": "int64",
    "received_us": "int64",
    "stated_us": "int64",
    "note": "string",
    "page_url": "string",
    "user_agent": "string",
    "properties": "string",
}
_TIMES = {"happened_us": "timestamp", "received_us": "received_at"}

# What widget_internal.events_to_archive hashes, from a file.
_SUMS = """
    with digests as (
      select chunk, sha256(concat_ws(
        '|', id, widget_id, event_type, source, epoch_us("timestamp"), epoch_us(received_at), coalesce(seq, 0),
        coalesce(stated_us, -1), strlen(session_id), session_id,
        coalesce(strlen(call_id), -1), call_id, coalesce(strlen(page_url), -1), page_url,
        coalesce(strlen(user_agent), -1), user_agent, coalesce(strlen(properties), -1), properties,
        coalesce(strlen(note), -1), note
      )) as digest
      from read_parquet($1)
    )
    select chunk, count(*), concat_ws(
      '-', sum(('0x' || substr(digest, 1, 15))::bigint), sum(('0x' || substr(digest, 16, 15))::bigint)
    )
    from digests
    group by chunk
"""


def write_events(
    connection: psycopg.Connection[Any], first_chunk: int, last_chunk: int, as_of: datetime, file: Path
) -> None:
    """Write the events of some chunks as a Parquet file. Some hundred thousand are in memory at a time."""
    import pyarrow as pa  # noqa: PLC0415 (an extra)
    import pyarrow.parquet as pq  # noqa: PLC0415

    with (
        connection.cursor() as cursor,
        cursor.copy(_copy(first_chunk, last_chunk, as_of)) as copy,
        pq.ParquetWriter(file, _schema(), compression="zstd") as writer,
    ):
        group: list[Any] = []
        for batch in _batches(io.BufferedReader(_Blocks(iter(copy)), _BLOCK)):
            group.append(batch)
            if sum(waiting.num_rows for waiting in group) >= _ROWS_IN_GROUP:
                writer.write_table(pa.Table.from_batches(group))
                group = []
        if group:
            writer.write_table(pa.Table.from_batches(group))


def read_sums(file: Path) -> dict[int, Chunk]:
    """Read a file from its start to its end, and tell what it holds of each chunk.

    Raises:
        InputError: it is damaged, or something else.
    """
    import duckdb  # noqa: PLC0415 (an extra)

    try:
        with duckdb.connect() as engine:
            # A store's file may be as large as it likes.
            engine.execute("set preserve_insertion_order = false")
            found = engine.execute(_SUMS, [str(file)]).fetchall()
    except duckdb.Error as error:
        raise InputError(f"{file} cannot be read: {str(error).splitlines()[0]}") from error
    return {chunk: Chunk(chunk=chunk, events=events, digest_sum=total) for chunk, events, total in found}


def ledger_sums(
    connection: psycopg.Connection[Any], first_chunk: int, last_chunk: int, as_of: datetime
) -> dict[int, Chunk]:
    """Ask the ledger what it holds of each chunk."""
    found = connection.execute(
        "select * from widget_internal.archive_sums(%s, %s, %s)", [first_chunk, last_chunk, as_of]
    )
    return {chunk: Chunk(chunk=chunk, events=events, digest_sum=total) for chunk, events, total in found}


def _copy(first_chunk: int, last_chunk: int, as_of: datetime) -> sql.Composed:
    return sql.SQL(
        "copy (select {columns} from widget_internal.events_to_archive where chunk between {first} and {last}"
        " and received_at <= {as_of}"
        " order by chunk, widget_id, session_id, timestamp, id) to stdout (format csv)"
    ).format(
        columns=sql.SQL(", ").join(map(sql.Identifier, _COLUMNS)),
        first=first_chunk,
        last=last_chunk,
        as_of=as_of,
    )


def _schema() -> Any:
    import pyarrow as pa  # noqa: PLC0415

    return pa.schema(
        [
            (_TIMES[name], pa.timestamp("us", tz="UTC")) if name in _TIMES else (name, getattr(pa, of_type)())
            for name, of_type in _COLUMNS.items()
        ]
    )


def _batches(lines: io.BufferedReader) -> Iterator[Any]:
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import csv  # noqa: PLC0415

    # Where there is no row, there is no CSV to be read.
    if not lines.peek(1):
        return
    schema = _schema()
    for batch in csv.open_csv(
        lines,
        read_options=csv.ReadOptions(column_names=list(_COLUMNS), block_size=_BLOCK),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types={name: getattr(pa, of_type)() for name, of_type in _COLUMNS.items()},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    ):
        columns = [column.cast(field.type) for column, field in zip(batch.columns, schema, strict=True)]
        yield pa.record_batch(columns, schema=schema)


class _Blocks(io.RawIOBase):
    """The blocks of a COPY as a file."""

    def __init__(self, blocks: Iterator[bytes | bytearray | memoryview]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            try:
                self._rest = memoryview(next(self._blocks))
            except StopIteration:
                return 0
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
