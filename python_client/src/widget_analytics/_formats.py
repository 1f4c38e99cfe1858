"""Writes rows to a file, many at a time, and reads them back: CSV for spreadsheets, JSON Lines for programs.

Both: UTF-8, columns in the model's order, times as ``2026-10-01T08:30:00.000000Z``, and each decimal with exactly the
digits that the database gave. The same rows make the same bytes. Rows come as lines (`_lines`).

What is read back are cells, text as the file has it. Rows from the database, written and read back, make the same
cells, so the two can be compared without a value being understood.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from widget_analytics._lines import cells
from widget_analytics._parquet import read_parquet, write_parquet
from widget_analytics._spreadsheet import is_surely_safe, safe_text
from widget_analytics.models import _Row

Writer: TypeAlias = Callable[[type[_Row], Iterable[list[bytes]], BinaryIO], None]
Reader: TypeAlias = Callable[[type[_Row], BinaryIO], Iterator[list[str]]]


class FileFormat(NamedTuple):
    """How batches of lines are written, and how the cells are read back."""

    write: Writer
    read: Reader


def write_csv(model: type[_Row], batches: Iterable[list[bytes]], file: BinaryIO) -> None:
    """Write RFC 4180: a header, commas, CRLF. Nothing is an empty cell; text cannot become a formula."""
    columns = model.annotations()
    is_text = [kind.removesuffix(" | None") == "str" for kind in columns.values()]
    file.write(",".join(columns).encode() + b"\r\n")
    for batch in batches:
        text = b"".join(batch)
        # No line break but the lines' own, nothing that COPY quotes for its own sake, nothing like a formula.
        is_plain = text.count(b"\n") == len(batch) and not any(own in text for own in (b',"",', b',""\n', b'"\\."'))
        if is_plain and is_surely_safe(text):
            file.write(text.replace(b"\n", b"\r\n"))
            continue
        out = io.StringIO(newline="")
        csv.writer(out, lineterminator="\r\n").writerows(
            [safe_text(cell) if free else cell for cell, free in zip(row, is_text, strict=True)] for row in cells(batch)
        )
        file.write(out.getvalue().encode())


def write_excel(model: type[_Row], batches: Iterable[list[bytes]], file: BinaryIO) -> None:
    """Write the same after a byte order mark, without which Excel takes UTF-8 for something else."""
    file.write(codecs.BOM_UTF8)
    write_csv(model, batches, file)


def _read_csv(model: type[_Row], file: BinaryIO) -> Iterator[list[str]]:
    # A call with thousands of late events is a long cell.
    csv.field_size_limit(2**31 - 1)
    lines = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
    try:
        if tuple(next(lines, ())) != model.columns():
            raise ValueError("its columns are not those of this version")
        yield from lines
    except csv.Error as error:
        raise ValueError(f"line {lines.line_num} is no CSV: {error}") from error


def write_jsonl(model: type[_Row], batches: Iterable[list[bytes]], file: BinaryIO) -> None:
    """Write one JSON object a line.

    Decimals are JSON numbers with all their digits: a reader that keeps them (Python's ``parse_float=Decimal``) loses
    nothing, and one that does not can still add them up.
    """
    columns = model.annotations()
    values = [_json_value_of(kind) for kind in columns.values()]
    line = "{" + ",".join(f'"{column}":%s' for column in columns) + "}\n"
    for batch in batches:
        for row in cells(batch):
            members = tuple(value(cell) for value, cell in zip(values, row, strict=True))
            file.write((line % members).encode())


def _read_jsonl(model: type[_Row], file: BinaryIO) -> Iterator[list[str]]:
    for number, line in enumerate(file, start=1):
        try:
            members = json.loads(line, parse_float=Decimal)
        except ValueError as error:
            raise ValueError(f"line {number} is no JSON: {error}") from error
        if not isinstance(members, dict) or tuple(members) != model.columns():
            raise ValueError(f"line {number} has not the columns of this version")
        yield [f"{value:f}" if isinstance(value, Decimal) else _json_text(value) for value in members.values()]


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _json_value_of(kind: str) -> Callable[[str], str]:
    """Say how cells of a column are written in JSON."""
    if kind.startswith("tuple"):
        return lambda cell: f"[{','.join(map(_json_text, cell.split()))}]"
    is_number = kind.startswith(("int", "Decimal", "bool"))
    value: Callable[[str], str] = str if is_number else json.encoder.encode_basestring
    return (lambda cell: value(cell) if cell else "null") if kind.endswith("| None") else value


#: By the name that the command line knows a format by.
FORMATS: dict[str, FileFormat] = {
    "csv": FileFormat(write_csv, _read_csv),
    "excel": FileFormat(write_excel, _read_csv),
    "jsonl": FileFormat(write_jsonl, _read_jsonl),
    "parquet": FileFormat(write_parquet, read_parquet),
}
