"""Writes rows to a file, one at a time, and reads them back: CSV for spreadsheets, JSON Lines for programs.

Both: UTF-8, columns in the model's order, times as ``2026-10-01T08:30:00.000000Z``, and each decimal with exactly the
digits that the database gave. The same rows make the same bytes.

What is read back are cells, text as the file has it. A row from the database makes the same cells, so the two can be
compared without a value being understood.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from operator import attrgetter
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias
from uuid import UUID

from widget_analytics._copied import write_copied_csv, write_copied_parquet
from widget_analytics._parquet import parquet_cell, read_parquet, write_parquet
from widget_analytics._spreadsheet import safe_text
from widget_analytics.models import Evidence, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from widget_analytics.models import _Row

    Writer: TypeAlias = Callable[[type[_Row], Iterable[_Row], BinaryIO], None]
    CopyWriter: TypeAlias = Callable[[type[_Row], Iterable[list[bytes]], BinaryIO], None]
    Reader: TypeAlias = Callable[[type[_Row], BinaryIO], Iterator[list[str]]]


def write_csv(model: type[_Row], rows: Iterable[_Row], file: BinaryIO) -> None:
    """Write RFC 4180: a header, commas, CRLF. Nothing is an empty cell; text cannot become a formula."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        lines = csv.writer(text, lineterminator="\r\n")
        columns = model.columns()
        lines.writerow(columns)
        values_of = attrgetter(*columns)
        lines.writerows([_csv_cell(value) for value in values_of(row)] for row in rows)
    finally:
        text.detach()


def _read_csv(model: type[_Row], file: BinaryIO) -> Iterator[list[str]]:
    # A call with thousands of late events is a long cell.
    csv.field_size_limit(2**31 - 1)
    lines = csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline=""), strict=True)
    try:
        if tuple(next(lines, ())) != model.columns():
            raise ValueError("its columns are not those of this version")
        yield from lines
    except csv.Error as error:
        raise ValueError(f"line {lines.line_num} is no CSV: {error}") from error


def write_jsonl(model: type[_Row], rows: Iterable[_Row], file: BinaryIO) -> None:
    """Write one JSON object a line.

    Decimals are JSON numbers with all their digits: a reader that keeps them (Python's ``parse_float=Decimal``) loses
    nothing, and one that does not can still add them up.
    """
    columns = model.columns()
    line = "{" + ",".join(f'"{column}":%s' for column in columns) + "}\n"
    values_of = attrgetter(*columns)
    for row in rows:
        file.write((line % tuple(map(_json_value, values_of(row)))).encode())


def _read_jsonl(model: type[_Row], file: BinaryIO) -> Iterator[list[str]]:
    for number, line in enumerate(file, start=1):
        try:
            members = json.loads(line, parse_float=Decimal)
        except ValueError as error:
            raise ValueError(f"line {number} is no JSON: {error}") from error
        if not isinstance(members, dict) or tuple(members) != model.columns():
            raise ValueError(f"line {number} has not the columns of this version")
        yield [_json_value(value) for value in members.values()]


@dataclass(frozen=True)
class FileFormat:
    """A format: how rows are written, how the cells are read back, and the cell that a value makes.

    Attributes:
        write_copied: writes lines as COPY gives them, to the same bytes as ``write`` their rows; None: through rows.
    """

    write: Writer
    read: Reader
    cell: Callable[[Any], str]
    write_copied: CopyWriter | None = None

    def cells(self, row: _Row) -> list[str]:
        """Give a row's cells as a file of this format has them."""
        return [self.cell(getattr(row, column)) for column in row.columns()]


def _csv_cell(value: Any) -> str:
    return _CSV_CELLS[type(value)](value)


def _json_value(value: Any) -> str:
    # A file that somebody changed may hold anything.
    return _JSON_VALUES.get(type(value), _json_text)(value)


def _json_text(value: Any) -> str:
    return json.dumps(str(value), ensure_ascii=False)


def _time(value: datetime) -> str:
    in_utc = value if value.tzinfo is UTC else value.astimezone(UTC)
    return in_utc.isoformat(timespec="microseconds")[: -len("+00:00")] + "Z"


# By the types of models' values, and of what is read back: a look-up for each value is what makes up an export's time.
_CSV_CELLS: dict[type, Callable[[Any], str]] = {
    type(None): lambda _: "",
    int: str,
    Decimal: "{:f}".format,
    date: str,
    datetime: _time,
    UUID: str,
    Outcome: str,
    Evidence: str,
    str: safe_text,
    tuple: lambda items: " ".join(map(str, items)),
}
_JSON_VALUES: dict[type, Callable[[Any], str]] = {
    type(None): lambda _: "null",
    int: str,
    Decimal: "{:f}".format,
    date: '"{}"'.format,
    datetime: lambda value: f'"{_time(value)}"',
    UUID: '"{}"'.format,
    Outcome: '"{}"'.format,
    Evidence: '"{}"'.format,
    str: json.encoder.encode_basestring,
    tuple: lambda items: f"[{','.join(map(_json_value, items))}]",
    list: lambda items: f"[{','.join(map(_json_value, items))}]",
}


#: By the name that the command line knows a format by.
FORMATS: dict[str, FileFormat] = {
    "csv": FileFormat(write_csv, _read_csv, _csv_cell, write_copied_csv),
    "jsonl": FileFormat(write_jsonl, _read_jsonl, _json_value),
    "parquet": FileFormat(write_parquet, read_parquet, parquet_cell, write_copied_parquet),
}
