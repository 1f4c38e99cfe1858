"""Reads bills: one path, whichever way the rows come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from widget_analytics import _queries

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping
    from datetime import date, datetime
    from typing import Any
    from uuid import UUID

    from widget_analytics._queries import AnyRow, Query
    from widget_analytics.models import BillingMonth, Call, Charge, Statement, StatementLine, Usage
    from widget_analytics.periods import Period


class Transport(Protocol):
    """A way to the database."""

    @property
    def host(self) -> str:
        """The host that it asks."""

    def settled_moment(self) -> datetime:
        """Give a moment whose events are all there."""

    def rows(self, query: Query[Any]) -> Iterator[Mapping[str, Any]]:
        """Yield rows as columns with values, which may be text; in constant memory."""

    def batches(self, query: Query[Any]) -> Generator[list[bytes], None, None]:
        """Yield the same rows as lines of CSV (`_lines`), many at a time, and read on while these are dealt with."""


class Reader:
    """Reads calls, usage and closed months over a transport."""

    def __init__(self, transport: Transport) -> None:
        self._reads = transport

    @property
    def host(self) -> str:
        """The host of the project, such as ``abcdefgh.supabase.co``, or of the database."""
        return self._reads.host

    def settled_moment(self) -> datetime:
        """Give a moment whose events are all there: read ``as_of`` it, a bill stays the same to the letter.

        It is the server's time less a minute, so neither this machine's clock nor a request on its way matters. (Who
        writes events by hand, in a transaction that is open for longer than that, must wait with the bill.)
        """
        return self._reads.settled_moment()

    def calls(
        self, period: Period, *, widgets: Iterable[UUID | str] | None = None, as_of: datetime | None = None
    ) -> Iterator[Call]:
        """Yield the calls that started in the period, by start, widget, session and call id; in constant memory.

        Each call is as it stood when its page was read. For an account that can be repeated to the letter, give
        ``as_of``.

        Args:
            period: when the calls started.
            widgets: only these widgets' calls; None for all.
            as_of: count only events received by then, so that a past bill can be made again; None for all events.
        """
        return self._read(_queries.calls(period, widgets, as_of))

    def usage(
        self, period: Period, *, widgets: Iterable[UUID | str] | None = None, as_of: datetime | None = None
    ) -> Iterator[Usage]:
        """Yield each widget's usage in the period, by widget id. The arguments are those of `calls`."""
        return self._read(_queries.usage(period, widgets, as_of))

    def billing_month(self, month: str) -> BillingMonth:
        """Give the bounds of a month, such as ``2026-10``, in the time zone that the database bills in."""
        (bounds,) = self._read(_queries.billing_month(month))
        return bounds

    def statement(self, month: date) -> Statement | None:
        """Give a closed month, by its first day; None where it is not closed, or has nothing of one's own."""
        return next(self._read(_queries.statement(month)), None)

    def charges(self, month: date, *, widgets: Iterable[UUID | str] | None = None) -> Iterator[Charge]:
        """Yield what a closed month charges, by widget and month of use; nothing where it is not closed."""
        return self._read(_queries.charges(month, widgets))

    def statement_lines(
        self, month: date, *, widgets: Iterable[UUID | str] | None = None, only_adjustments: bool = False
    ) -> Iterator[StatementLine]:
        """Yield a closed month's calls and adjustments, by widget, month of use, session and call; in constant memory.

        Args:
            month: its first day.
            widgets: only these widgets' lines; None for all.
            only_adjustments: leave out the calls of the month itself.
        """
        return self._read(_queries.statement_lines(month, widgets, only_adjustments=only_adjustments))

    def batches(self, query: Query[Any]) -> Generator[list[bytes], None, None]:
        """Yield a query's rows as lines of CSV, many at a time."""
        return self._reads.batches(query)

    def _read(self, query: Query[AnyRow]) -> Iterator[AnyRow]:
        return query.model.read(self._reads.rows(query))
