"""Rows as COPY writes them: lines of CSV, each ending with LF, whose cells are text as an exported file has it.

They become a file without a value being understood on the way, which is many times as fast as through models, and the
same to the byte.
"""

from __future__ import annotations

import csv
import io
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO

from widget_analytics._parquet import ROWS_IN_GROUP, copied_table, parquet_writer
from widget_analytics._spreadsheet import is_surely_safe, safe_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from widget_analytics.models import _Row


def cells(lines: Iterable[bytes]) -> Iterator[list[str]]:
    """Give the lines' cells."""
    # A call with thousands of late events is a long cell.
    csv.field_size_limit(2**31 - 1)
    return csv.reader(map(bytes.decode, lines), strict=True)


def batches(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Part lines into lists as long as a group of rows in Parquet is, the last one shorter."""
    lines = iter(lines)
    while batch := list(islice(lines, ROWS_IN_GROUP)):
        yield batch


def write_copied_csv(model: type[_Row], batches: Iterable[list[bytes]], file: BinaryIO) -> None:
    """Write what `write_csv` writes of the same rows."""
    columns = model.annotations()
    is_text = [of_type.removesuffix(" | None") == "str" for of_type in columns.values()]
    file.write(",".join(columns).encode() + b"\r\n")
    for batch in batches:
        text = b"".join(batch)
        # No line break but the lines' own, no empty text (COPY tells it from nothing), nothing like a formula.
        is_plain = text.count(b"\n") == len(batch) and b',"",' not in text and b',""\n' not in text
        if is_plain and is_surely_safe(text):
            file.write(text.replace(b"\n", b"\r\n"))
            continue
        out = io.StringIO(newline="")
        csv.writer(out, lineterminator="\r\n").writerows(
            [safe_text(cell) if free else cell for cell, free in zip(row, is_text, strict=True)] for row in cells(batch)
        )
        file.write(out.getvalue().encode())


def write_copied_parquet(model: type[_Row], batches: Iterable[list[bytes]], file: BinaryIO) -> None:
    """Write what `write_parquet` writes of the same rows.

    Raises:
        OutputError: a number has more digits than its column.
    """
    with parquet_writer(model, file) as writer:
        for batch in batches:
            writer.write_table(copied_table(model, b"".join(batch)))
