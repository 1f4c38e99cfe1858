"""Rows as COPY writes them: lines of CSV, each ending with LF, whose cells are text as an exported file has it.

They become a file without a value being understood on the way, which is many times as fast as through models. Rows
that come another way are made into the same lines.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from operator import attrgetter
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

from widget_analytics.errors import NotMigrated
from widget_analytics.models import _Row

T = TypeVar("T")


def to_lines(model: type[_Row], rows: Iterable[tuple[Any, ...]]) -> Iterator[bytes]:
    """Write rows, given as the text of the model's columns; None is nothing, and a list is parts of a cell.

    Raises:
        NotMigrated: a row is not what this version knows.
    """
    kinds = list(model.annotations().values())
    times = [place for place, kind in enumerate(kinds) if kind.startswith("Instant")]
    lists = [place for place, kind in enumerate(kinds) if kind.startswith("tuple")]
    truths = [place for place, kind in enumerate(kinds) if kind == "bool"]
    commas = len(kinds) - 1
    try:
        for row in rows:
            cells = ["" if cell is None else cell for cell in row]
            for place in times:
                cells[place] = _utc(cells[place])
            for place in lists:
                cells[place] = " ".join(cells[place])
            for place in truths:
                cells[place] = str(cells[place]).lower()
            line = ",".join(cells)
            if line.count(",") != commas or _NEEDS_QUOTES.search(line):
                line = quoted(cells)
            yield line.encode() + b"\n"
    except (KeyError, TypeError, ValueError) as error:
        raise NotMigrated.unknown(model, error) from error


def lines_of(model: type[_Row], rows: Iterable[_Row], size: int) -> Generator[list[bytes], None, None]:
    """Write models as lines, so many at a time."""
    values = map(attrgetter(*model.columns()), rows)
    return batches(to_lines(model, map(_text, values)), size)


def _text(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_text, value))
    if isinstance(value, datetime):
        return value.isoformat()
    return f"{value:f}" if isinstance(value, Decimal) else None if value is None else str(value)


def from_lines(model: type[_Row], lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Read lines as columns with values."""
    columns = [(column, _value_of(kind)) for column, kind in model.annotations().items()]
    for row in cells(lines):
        yield {column: value(cell) for (column, value), cell in zip(columns, row, strict=True)}


def cells(lines: Iterable[bytes]) -> Iterator[list[str]]:
    """Give the lines' cells."""
    # A call with thousands of late events is a long cell.
    csv.field_size_limit(2**31 - 1)
    return csv.reader(map(bytes.decode, lines), strict=True)


def batches(lines: Iterable[T], size: int) -> Generator[list[T], None, None]:
    """Part lines into lists of one length, the last one shorter."""
    lines = iter(lines)
    while batch := list(islice(lines, size)):
        yield batch


def ahead(
    items: Generator[T, None, None], count: int, *, stop: Callable[[], None] | None = None
) -> Generator[T, None, None]:
    """Pass items on, and let a thread get so many of the next ones meanwhile.

    ``stop`` ends at once what the thread waits for; without it a thread of which nobody wants more ends by itself.
    """
    waiting: Queue[T | _End] = Queue(count)
    is_over = Event()

    def put(item: T | _End) -> None:
        while not is_over.is_set():
            with suppress(Full):
                waiting.put(item, timeout=0.1)
                break

    def read() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                put(item)
                if is_over.is_set():
                    break
        except BaseException as caught:
            error = caught  # raised where the items are awaited
        items.close()
        put(_End(error))

    thread = Thread(target=read, name="reading ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
    except BaseException:
        is_over.set()
        if stop:
            stop()
            thread.join()
        raise
    if item.error:
        raise item.error


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


_NEEDS_QUOTES = re.compile(r'["\r\n]')


def quoted(cells: list[str]) -> str:
    """Write a row as COPY does, without its line's end."""
    out = io.StringIO(newline="")
    # With CR LF as the line's end, both are quoted in a cell, as COPY does.
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue()[:-2]


def utc(instant: datetime) -> str:
    """Write a moment as exports do."""
    # Without a zone it is written twice as fast.
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _utc(text: str) -> str:
    return utc(datetime.fromisoformat(text)) if text else text


def _value_of(kind: str) -> Callable[[str], Any]:
    if kind.startswith("tuple"):
        return str.split
    return (lambda cell: cell or None) if kind.endswith("| None") else str
