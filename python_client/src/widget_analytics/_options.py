"""Options that several verbs share, and what they mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from widget_analytics._export import Format
from widget_analytics._lines import utc
from widget_analytics._reader import Reader
from widget_analytics._selection import KINDS, Detail, Selection
from widget_analytics.client import WidgetAnalytics
from widget_analytics.errors import MissingExtra, UsageError
from widget_analytics.periods import Period, parse_instant

FileFormat = Annotated[
    Format, typer.Option("--format", help="For programs (csv, jsonl), Excel (CSV that it takes for UTF-8), warehouses.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; standard output by default.")
]


def file_of(output: Path | None) -> Path | None:
    """Give the file to write; None for standard output."""
    return None if output is None or str(output) == "-" else output


def period_of(month: str | None, start: str | None, end: str | None) -> Period:
    if month is not None and start is None and end is None:
        try:
            return Period.month(month)
        except ValueError as error:
            raise UsageError(f"--month: {error}") from None
    if month is None and start is not None and end is not None:
        try:
            return Period(instant_of("--from", start), instant_of("--to", end))
        except ValueError as error:
            raise UsageError(str(error)) from None
    raise UsageError("say which period: --month 2026-10, or both --from 2026-10-01 and --to 2026-11-01")


def first_of(month: str) -> date:
    """Read a month, such as ``2026-10``: its first day, as the database names months.

    Raises:
        UsageError: there is no such month.
    """
    return period_of(month, None, None).start.date()


def check_closed_detail(detail: Detail, month: str | None, as_of: datetime | None) -> None:
    if month is None:
        raise UsageError(f"--detail {detail} is of a closed month: say which, --month 2026-10")
    if as_of is not None:
        raise UsageError(f"--detail {detail} is of a closed month, which never changes: leave --as-of out")


@contextmanager
def source(direct: bool, database_url: str | None) -> Iterator[Reader]:
    if not direct and database_url is None:
        with WidgetAnalytics() as client:
            yield client
        return
    MissingExtra.unless_installed("psycopg", "--direct", "direct")
    from widget_analytics._copy import direct_reader  # noqa: PLC0415 (an extra)

    with direct_reader(database_url) as reader:
        yield reader


def selection_of(
    reader: Reader,
    detail: Detail,
    month: str | None,
    period: Period,
    *,
    widgets: list[UUID] | None,
    as_of: datetime | None,
) -> Selection:
    """Say which rows are meant.

    Raises:
        UsageError: the month has no statement.
    """
    closed = None
    if month is not None:
        bounds = reader.billing_month(month)
        period = Period(bounds.period_start, bounds.period_end)
        closed = first_of(month) if KINDS[detail].is_closed else None
    is_open = closed is not None and reader.statement(closed) is None
    if is_open and detail is not Detail.ADJUSTMENTS:
        raise UsageError(f"--month: {month} is not closed, so it has no statement yet; --detail usage has its figures")
    return Selection(
        detail=detail,
        period=period,
        month=closed,
        widgets=tuple(widgets) if widgets else None,
        as_of=as_of,
        is_pending=is_open,
    )


def settled(reader: Reader, as_of: datetime | None) -> datetime:
    moment = reader.settled_moment()
    if as_of is not None and as_of > moment:
        raise UsageError(f"--as-of: with --manifest at most {utc(moment)}: what came later may not be settled")
    return as_of or moment


def instant_of(option: str, text: str) -> datetime:
    try:
        return parse_instant(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None
