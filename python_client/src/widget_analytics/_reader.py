"""Reads bills: one path, whichever way the rows come."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from datetime import date, datetime
from typing import Any, Protocol
from uuid import UUID

from widget_analytics._queries import AnyRow, Paging, Query, bounds
from widget_analytics.book_models import PendingAdjustment
from widget_analytics.models import BillingMonth, Call, Charge, Statement, StatementLine, Usage, Widget
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


class Rows(Iterator[AnyRow]):
    """A query's rows: as models, one by one, or as lines of CSV (`_lines`), many at a time."""

    def __init__(self, transport: Transport, query: Query[AnyRow]) -> None:
        self._transport, self._query = transport, query
        self._models: Iterator[AnyRow] | None = None

    def __next__(self) -> AnyRow:
        if self._models is None:
            self._models = self._query.model.read(self._transport.rows(self._query))
        return next(self._models)

    def batches(self) -> Generator[list[bytes], None, None]:
        """Yield all of them as lines, and read on while these are dealt with."""
        return self._transport.batches(self._query)


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
    ) -> Rows[Call]:
        """Yield the calls that started in the period, by start, widget, session and call id; in constant memory.

        Each call is as it stood when its page was read. For an account that can be repeated to the letter, give
        ``as_of``.

        Args:
            period: when the calls started.
            widgets: only these widgets' calls; None for all.
            as_of: count only events received by then, so that a past bill can be made again; None for all events.
        """
        return self._rows(
            model=Call,
            relation="widget_billing_calls",
            arguments=_billed(period, as_of),
            period=period,
            key=("started_at", "widget_id", "session_id", "call_id"),
            widgets=_wanted(widgets),
        )

    def usage(
        self, period: Period, *, widgets: Iterable[UUID | str] | None = None, as_of: datetime | None = None
    ) -> Rows[Usage]:
        """Yield each widget's usage in the period, by widget id. The arguments are those of `calls`."""
        return self._rows(
            model=Usage,
            relation="widget_billing_usage",
            arguments=_billed(period, as_of),
            key=("widget_id",),
            paging=Paging.KEY,
            widgets=_wanted(widgets),
        )

    def widgets(self) -> Rows[Widget]:
        """Yield the widgets, by id."""
        return self._rows(model=Widget, relation="widget_directory", arguments={}, key=("id",), paging=Paging.KEY)

    def billing_month(self, month: str) -> BillingMonth:
        """Give the bounds of a month, such as ``2026-10``, in the time zone that the database bills in."""
        return next(self._rows(model=BillingMonth, relation="widget_billing_period", arguments={"period": month}))

    def statement(self, month: date) -> Statement | None:
        """Give a closed month, by its first day; None where it is not closed, or has nothing of one's own."""
        rows = self._rows(model=Statement, relation="widget_billing_periods", where=(_of(month),))
        return next(rows, None)

    def closed_months(self) -> Rows[Statement]:
        """Yield the closed months, the earliest first."""
        return self._rows(model=Statement, relation="widget_billing_periods", key=("period",), paging=Paging.KEY)

    def charges(self, month: date, *, widgets: Iterable[UUID | str] | None = None) -> Rows[Charge]:
        """Yield what a closed month charges, by widget and month of use; nothing where it is not closed."""
        return self._rows(
            model=Charge,
            relation="widget_statement_charges",
            where=(_of(month),),
            key=("widget_id", "usage_period"),
            paging=Paging.KEY,
            widgets=_wanted(widgets),
        )

    def statement_lines(
        self, month: date, *, widgets: Iterable[UUID | str] | None = None, only_adjustments: bool = False
    ) -> Rows[StatementLine]:
        """Yield a closed month's calls and adjustments, by widget, month of use, session and call; in constant memory.

        Args:
            month: its first day.
            widgets: only these widgets' lines; None for all.
            only_adjustments: leave out the calls of the month itself.
        """
        earlier = ("usage_period", "lt", month.isoformat())
        return self._rows(
            model=StatementLine,
            relation="widget_statement_lines",
            where=(_of(month), earlier) if only_adjustments else (_of(month),),
            key=("widget_id", "usage_period", "session_id", "call_id"),
            paging=Paging.KEY,
            widgets=_wanted(widgets),
        )

    def pending_adjustments(
        self, month: date | None = None, *, widgets: Iterable[UUID | str] | None = None
    ) -> Rows[PendingAdjustment]:
        """Yield what late arrivals changed in closed months and no statement shows yet, by widget, month and call.

        Args:
            month: those that the statement of this month, still open, would have; None for all.
            widgets: only these widgets' calls; None for all.
        """
        return self._rows(
            model=PendingAdjustment,
            relation="widget_pending_adjustments",
            arguments={"period": f"{month:%Y-%m}"} if month else {},
            key=("widget_id", "usage_period", "session_id", "call_id"),
            paging=Paging.KEY,
            widgets=_wanted(widgets),
        )

    def _rows(self, *, model: type[AnyRow], relation: str, **details: Any) -> Rows[AnyRow]:
        return Rows(self._reads, Query(model=model, relation=relation, **details))


def _of(month: date) -> tuple[str, str, str]:
    return ("period", "eq", month.isoformat())


def _wanted(widgets: Iterable[UUID | str] | None) -> frozenset[UUID] | None:
    return None if widgets is None else frozenset(UUID(str(widget)) for widget in widgets)


def _billed(period: Period, as_of: datetime | None) -> dict[str, Any]:
    if as_of is not None and as_of.tzinfo is None:
        raise ValueError(f"as_of has no time zone: {as_of}")
    return bounds(period.start, period.end) | ({"as_of": as_of.isoformat()} if as_of else {})
