"""Reads all rows through an API that limits how many it answers with.

The limit is the project's own (1,000 unless set otherwise) and not told, so a short page proves nothing: only an empty
page does. The calls of a period come as one value instead, which no such limit cuts. The function that is asked
computes all calls of the period that it is given, for each page anew, so each page asks for about as much time as one
page of calls takes. Two are asked for at once, as the gateway is busy with one while the database computes another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeAlias

from widget_analytics._deadline import begin
from widget_analytics._lines import cells
from widget_analytics.periods import Period

Row: TypeAlias = dict[str, Any]
#: Column, operator and value of a PostgREST filter.
Filter: TypeAlias = tuple[str, str, str]
#: A call's start, widget, session and id, by which calls are ordered.
Place: TypeAlias = tuple[str, str, str, str]
#: Answers with the first calls that started in [start, end), in order, behind the one at a place: as lines (`_lines`).
FetchCalls: TypeAlias = "Callable[[datetime, datetime, Place | None], list[bytes]]"

_DAY = timedelta(days=1)
_MINUTE = timedelta(minutes=1)
# Of a page, as calls do not come evenly; never more than four times what the last part was.
_FULL, _MOST_GROWTH = 0.8, 4
_AT_ONCE = 2


def read_calls(period: Period, fetch: FetchCalls, most: int) -> Iterator[list[bytes]]:
    """Yield each call of the period once, in order, in pages, holding two at a time.

    Args:
        period: when the calls started.
        fetch: gives a page.
        most: how many calls a page has, unless there are no more.
    """
    start, width, last, at_once = period.start, _DAY, None, 1
    asked: deque[tuple[datetime, datetime, Callable[[], list[bytes]]]] = deque()
    while asked or start < period.end:
        while start < period.end and len(asked) < at_once:
            end = min(start + width, period.end)
            asked.append((start, end, begin(partial(fetch, start, end, last))))
            start, last = end, None
        begun, reached, answer = asked.popleft()
        page = answer()
        if page:
            yield page
        if len(page) == most:
            # Whatever is asked for beyond this place comes too early, and is asked for again.
            asked.clear()
            widget, session, call, started_at = next(cells(page[-1:]))[:4]
            start = reached = datetime.fromisoformat(started_at)
            last = (started_at, widget, session, call)
        at_once = _AT_ONCE if len(page) < most else 1
        growth = min(_FULL * most / len(page), _MOST_GROWTH) if page else _MOST_GROWTH
        width = min(max((reached - begun) * growth, _MINUTE), _DAY)


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


def _steps_after(row: Row, key: tuple[str, ...]) -> Iterator[list[Filter]]:
    """Filters that together select what stands behind a row, the nearest first."""
    for position in reversed(range(len(key))):
        same = [(column, "eq(any)", array_literal(row[column])) for column in key[:position]]
        yield [*same, (key[position], "gt(any)", array_literal(row[key[position]]))]


def array_literal(value: str) -> str:
    r"""Write a Postgres array of one text.

    Ids are the sender's to choose, and a bare ``null``, ``"x"`` or ``{a}`` means something else to one gateway or
    another. Inside an array literal Postgres itself reads it, and only ``\`` and ``"`` need care.
    """
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{{"{escaped}"}}'
