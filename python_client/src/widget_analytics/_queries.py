"""What bills are read from: the same queries over the API and from the database itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar
from uuid import UUID

from widget_analytics.models import BillingMonth, Call, Charge, Statement, StatementLine, Usage, _Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date, datetime

    from widget_analytics.periods import Period

AnyRow = TypeVar("AnyRow", bound=_Row)


class Paging(Enum):
    """How rows are read that do not fit into one answer."""

    NONE = auto()
    """They do."""
    KEY = auto()
    """After the last row by `Query.key`, which is unique and has no nulls."""
    POSITION = auto()
    """After so many rows: for what people look at, where a row that comes meanwhile may shift others."""


@dataclass(frozen=True, kw_only=True)
class Query(Generic[AnyRow]):
    """Which rows to read.

    Attributes:
        relation: a table, or a function in ``public``.
        arguments: the function's; None of a table.
        where: column, operator of PostgREST and value.
        period: rows that it orders by their start are read part by part of it; None of others.
        key: orders the rows; a column may be followed by ``desc`` or ``nulls first``.
        most: how many rows are wanted by position; None for all.
        widgets: only theirs; None for all.
    """

    model: type[AnyRow]
    relation: str
    arguments: Mapping[str, Any] | None = None
    where: tuple[tuple[str, str, str], ...] = ()
    period: Period | None = None
    key: tuple[str, ...] = ()
    paging: Paging = Paging.NONE
    most: int | None = None
    widgets: frozenset[UUID] | None = None

    def between(self, start: datetime, end: datetime) -> Self:
        """Ask for this part of the period."""
        return replace(self, arguments={**(self.arguments or {}), **_bounds(start, end)})


def calls(period: Period, widgets: Iterable[UUID | str] | None, as_of: datetime | None) -> Query[Call]:
    """Ask for the calls that started in a period."""
    return Query(
        model=Call,
        relation="widget_billing_calls",
        arguments=_billed(period, as_of),
        period=period,
        key=("started_at", "widget_id", "session_id", "call_id"),
        widgets=_wanted(widgets),
    )


def usage(period: Period, widgets: Iterable[UUID | str] | None, as_of: datetime | None) -> Query[Usage]:
    """Ask for each widget's usage in a period."""
    return Query(
        model=Usage,
        relation="widget_billing_usage",
        arguments=_billed(period, as_of),
        key=("widget_id",),
        paging=Paging.KEY,
        widgets=_wanted(widgets),
    )


def billing_month(month: str) -> Query[BillingMonth]:
    """Ask for the bounds of a month, such as ``2026-10``."""
    return Query(model=BillingMonth, relation="widget_billing_period", arguments={"period": month})


def statement(month: date) -> Query[Statement]:
    """Ask for a closed month, by its first day."""
    return Query(model=Statement, relation="widget_billing_periods", where=(("period", "eq", month.isoformat()),))


def charges(month: date, widgets: Iterable[UUID | str] | None) -> Query[Charge]:
    """Ask for what a closed month charges."""
    return Query(
        model=Charge,
        relation="widget_statement_charges",
        where=(("period", "eq", month.isoformat()),),
        key=("widget_id", "usage_period"),
        paging=Paging.KEY,
        widgets=_wanted(widgets),
    )


def statement_lines(
    month: date, widgets: Iterable[UUID | str] | None, *, only_adjustments: bool
) -> Query[StatementLine]:
    """Ask for a closed month's calls and adjustments."""
    of_month = ("period", "eq", month.isoformat())
    return Query(
        model=StatementLine,
        relation="widget_statement_lines",
        where=(of_month, ("usage_period", "lt", month.isoformat())) if only_adjustments else (of_month,),
        key=("widget_id", "usage_period", "session_id", "call_id"),
        paging=Paging.KEY,
        widgets=_wanted(widgets),
    )


def _wanted(widgets: Iterable[UUID | str] | None) -> frozenset[UUID] | None:
    return None if widgets is None else frozenset(UUID(str(widget)) for widget in widgets)


def _billed(period: Period, as_of: datetime | None) -> dict[str, Any]:
    if as_of is not None and as_of.tzinfo is None:
        raise ValueError(f"as_of has no time zone: {as_of}")
    return _bounds(period.start, period.end) | ({"as_of": as_of.isoformat()} if as_of else {})


def _bounds(start: datetime, end: datetime) -> dict[str, Any]:
    return {"period_start": start.isoformat(), "period_end": end.isoformat()}
