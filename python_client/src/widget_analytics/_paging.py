"""Reads all rows through an API that limits how many it answers with.

Three facts shape how the calls of a period are read:

- The limit is the project's own (1,000 unless set otherwise) and not told, so a short page proves nothing. Only an
  empty page does.
- The function that is asked computes all calls of the period it is given, for each page anew. So each page asks for
  no more time than a little over a page's worth, however many calls a day has.
- Postgres keeps time in microseconds. So ``[t, t + 1 µs)`` is the calls of one instant, and "everything after this
  row" needs a comparison of ids only where one instant has more calls than a page.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from widget_analytics.periods import Period

Row: TypeAlias = dict[str, Any]
#: Column, operator and value of a PostgREST filter.
Filter: TypeAlias = tuple[str, str, str]
#: Answers with the first rows, by started_at and then KEY, of the calls in [start, end) that pass the filters.
FetchCalls: TypeAlias = "Callable[[datetime, datetime, list[Filter]], list[Row]]"

#: Orders the calls of one instant.
KEY = ("widget_id", "session_id", "call_id")

_INSTANT = timedelta(microseconds=1)
_DAY = timedelta(days=1)
_MINUTE = timedelta(minutes=1)
# A page's worth and a fifth, as calls do not come evenly; never more than four times what the last part was.
_WORTH, _MOST_GROWTH = 1.2, 4


def read_calls(period: Period, fetch: FetchCalls) -> Iterator[list[Row]]:
    """Yield each call of the period once, ordered by started_at and KEY, in pages, holding one at a time."""
    cursor, width, largest = period.start, _DAY, 0
    while cursor < period.end:
        end = min(cursor + width, period.end)
        page = fetch(cursor, end, [])
        if not page:
            cursor, width = end, min(width * 4, _DAY)
            continue
        # The limit may have cut the last instant short: it is asked for again, from its start.
        last = started_at(page[-1])
        whole = bisect_left(page, last, key=started_at)
        if whole:
            yield page[:whole]
            largest = max(largest, len(page))
            width = min(max((last - cursor) * _width(largest, len(page)), _MINUTE), _DAY)
            cursor = last
        else:
            yield from _read_instant(last, page, fetch)
            cursor = last + _INSTANT


def _width(largest: int, rows: int) -> float:
    """How much longer the next part is than the one in which so many rows started, to have about a page's worth."""
    return min(_WORTH * largest / rows, _MOST_GROWTH)


def _read_instant(instant: datetime, page: list[Row], fetch: FetchCalls) -> Iterator[list[Row]]:
    """Yield the calls of one instant, of which ``page`` are the first."""
    while page:
        yield page
        last = page[-1]
        page = next(filter(None, (fetch(instant, instant + _INSTANT, step) for step in _steps_after(last))), [])


def read_by_key(key: tuple[str, ...], fetch: Callable[[list[Filter]], list[Row]]) -> Iterator[list[Row]]:
    """Yield each row of a table that does not change, ordered by its unique ``key``, in pages, holding one at a time.

    ``fetch`` answers with the first rows, by that key, that pass the filters.
    """
    page = fetch([])
    while page:
        yield page
        page = next(filter(None, map(fetch, _steps_after(page[-1], key))), [])


def read_by_position(fetch: Callable[[int], list[Row]], most: int | None) -> Iterator[list[Row]]:
    """Yield rows in pages, each beginning after so many rows, until there are no more, or as many as are wanted."""
    seen = 0
    while (most is None or seen < most) and (page := fetch(seen)):
        yield page
        seen += len(page)


def _steps_after(row: Row, key: tuple[str, ...] = KEY) -> Iterator[list[Filter]]:
    """Filters that together select what stands behind a row (of the same instant), the nearest first."""
    for position in reversed(range(len(key))):
        same = [(column, "eq(any)", array_literal(row[column])) for column in key[:position]]
        yield [*same, (key[position], "gt(any)", array_literal(row[key[position]]))]


def started_at(row: Row) -> datetime:
    """Give a row's start, in UTC."""
    return datetime.fromisoformat(row["started_at"]).astimezone(UTC)


def array_literal(value: str) -> str:
    r"""Write a Postgres array of one text.

    Ids are the sender's to choose, and a bare ``null``, ``"x"`` or ``{a}`` means something else to one gateway or
    another. Inside an array literal Postgres itself reads it, and only ``\`` and ``"`` need care.
    """
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{{"{escaped}"}}'
