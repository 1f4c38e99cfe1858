"""Writes rows to a file, one at a time: CSV for spreadsheets, JSON Lines for programs.

Both: UTF-8, columns in the model's order, times as ``2026-10-01T08:30:00.000000Z``, and each decimal with exactly the
digits that the database gave. The same rows make the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from widget_analytics._spreadsheet import safe_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from widget_analytics.models import _Row

    Writer: TypeAlias = Callable[[type[_Row], Iterable[_Row], BinaryIO], None]


def write_csv(model: type[_Row], rows: Iterable[_Row], file: BinaryIO) -> None:
    """Write RFC 4180: a header, commas, CRLF. Nothing is an empty cell; text cannot become a formula."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        lines = csv.writer(text, lineterminator="\r\n")
        columns = model.columns()
        lines.writerow(columns)
        for row in rows:
            lines.writerow([_csv_cell(getattr(row, column)) for column in columns])
    finally:
        text.detach()


def write_jsonl(model: type[_Row], rows: Iterable[_Row], file: BinaryIO) -> None:
    """Write one JSON object a line.

    Decimals are JSON numbers with all their digits: a reader that keeps them (Python's ``parse_float=Decimal``) loses
    nothing, and one that does not can still add them up.
    """
    columns = model.columns()
    for row in rows:
        members = ",".join(f'"{column}":{_json_value(getattr(row, column))}' for column in columns)
        file.write(f"{{{members}}}\n".encode())


#: By the name that the command line knows a format by.
WRITERS: dict[str, Writer] = {"csv": write_csv, "jsonl": write_jsonl}


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int | Decimal | datetime):
        return _plain(value)
    return safe_text(str(value))


def _json_value(value: Any) -> str:
    if isinstance(value, int | Decimal):
        return _plain(value)
    if isinstance(value, datetime):
        value = _plain(value)
    return json.dumps(None if value is None else str(value), ensure_ascii=False)


def _plain(value: int | Decimal | datetime) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
