"""What a report tells of a month: of all widgets, or of one customer's.

A closed month's figures come from its statement alone, and so never change. An open one's are
as its statement would be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from widget_analytics._export import progress_bar
from widget_analytics._labels import label, names_of
from widget_analytics.book_models import MonthToClose, PendingAdjustment, Reconciliation
from widget_analytics.client import WidgetAnalytics
from widget_analytics.errors import MissingExtra, NotMigrated, Refused, UsageError
from widget_analytics.models import (
    BillingMonth,
    Call,
    Charge,
    Evidence,
    Statement,
    StatementLine,
    Widget,
)
from widget_analytics.periods import Period

Adjusted: TypeAlias = StatementLine | PendingAdjustment

_ZERO = Decimal(0)
_OFTEN = 100  # rows


@dataclass(frozen=True)
class Scope:
    """Whose page it is: what stands in its title, and the widgets that are on it."""

    title: str
    widgets: frozenset[UUID]


@dataclass
class WidgetMonth:
    """One widget's month, or several together."""

    calls: int = 0
    seconds: Decimal = _ZERO
    days: defaultdict[date, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    evidence: defaultdict[Evidence, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    price: Decimal | None = None
    included: int = 0
    fee: Decimal | None = None
    amount: Decimal | None = None
    adjustments: Decimal = _ZERO
    currency: str = ""

    @property
    def due(self) -> Decimal | None:
        """What is to be paid; None where nothing has a price."""
        return (self.amount or _ZERO) + self.adjustments if self.adjustments else self.amount

    def add(self, call: Call | StatementLine, day: date) -> None:
        """Count a call."""
        seconds = call.billable_seconds if isinstance(call, Call) else call.new_seconds
        self.calls += 1
        self.seconds += seconds
        self.days[day] += seconds
        if call.evidence is not None:
            self.evidence[call.evidence] += seconds

    def add_all(self, other: WidgetMonth) -> None:
        """Count another one's."""
        self.calls += other.calls
        self.seconds += other.seconds
        for day, seconds in other.days.items():
            self.days[day] += seconds
        for evidence, seconds in other.evidence.items():
            self.evidence[evidence] += seconds
        self.adjustments += other.adjustments
        self.included += other.included
        self.fee = _sum(self.fee, other.fee)
        self.amount = _sum(self.amount, other.amount)


@dataclass
class Month:
    """What the page tells."""

    first: date
    bounds: BillingMonth
    zone: ZoneInfo
    statement: Statement | None
    scope: Scope | None
    made_at: datetime
    project: str
    widgets: dict[UUID, WidgetMonth] = field(default_factory=lambda: defaultdict(WidgetMonth))
    adjusted: list[Adjusted] = field(default_factory=list)
    pending: WidgetMonth = field(default_factory=WidgetMonth)
    pending_amounts: dict[str, Decimal] = field(default_factory=dict)
    waiting: list[MonthToClose] = field(default_factory=list)
    reconciled: list[Reconciliation] = field(default_factory=list)
    names: dict[str, Widget] = field(default_factory=dict)

    @property
    def wanted(self) -> frozenset[UUID] | None:
        """The widgets that are on the page; None for all."""
        return self.scope.widgets if self.scope else None

    @property
    def days(self) -> list[date]:
        """The month's days, by the clocks where it is billed."""
        first, end = (at.astimezone(self.zone).date() for at in (self.bounds.period_start, self.bounds.period_end))
        return [first + timedelta(days=n) for n in range((end - first).days)]

    def in_order(self) -> list[tuple[UUID, WidgetMonth]]:
        """The widgets, the busiest first."""
        return sorted(self.widgets.items(), key=lambda entry: (-entry[1].seconds, str(entry[0])))

    def label(self, widget_id: UUID) -> str:
        """What people call a widget."""
        return label(self.names, widget_id)


def read_month(client: WidgetAnalytics, name: str, scope: Scope | None) -> Month:
    """Read a month, such as ``2026-10``.

    Raises:
        WidgetAnalyticsError: it could not be read.
    """
    bounds = client.billing_month(name)
    first = date.fromisoformat(f"{name}-01")
    try:
        zone = ZoneInfo(bounds.time_zone)
    except ZoneInfoNotFoundError:
        raise MissingExtra(f"the time zone {bounds.time_zone}", "tzdata", "report") from None
    month = Month(
        first=first,
        bounds=bounds,
        zone=zone,
        statement=client.statement(first),
        scope=scope,
        made_at=datetime.now(UTC),
        project=client.host,
        names=names_of(client),
    )
    wanted = month.wanted
    period = Period(bounds.period_start, bounds.period_end)
    with progress_bar(period, "reading") as reached:
        for number, call in enumerate(_calls(client, month, period), start=1):
            month.widgets[call.widget_id].add(call, call.started_at.astimezone(zone).date())
            if number % _OFTEN == 0:
                reached(None if month.statement else call.started_at, number)
    if month.statement:
        _add_charges(month, client.charges(first, widgets=wanted))
        month.adjusted = list(client.statement_lines(first, widgets=wanted, only_adjustments=True))
        _add_pending(client, month, period)
    else:
        charges = client.statement_preview(name)
        _add_charges(month, (one for one in charges if wanted is None or one.widget_id in wanted))
        month.adjusted = list(client.pending_adjustments(first, widgets=wanted))
    if scope is None:
        month.waiting = client.months_to_close()
        # The company's own, and a part of the schema that may have been left out.
        with suppress(NotMigrated, Refused):
            month.reconciled = client.reconciliation(period)
    return month


def _calls(client: WidgetAnalytics, month: Month, period: Period) -> Iterator[Call | StatementLine]:
    wanted = month.wanted
    if month.statement is None:
        return client.calls(period, widgets=wanted)
    lines = client.statement_lines(month.first, widgets=wanted)
    return (line for line in lines if line.usage_period == month.first)


def _add_charges(month: Month, charges: Iterable[Charge]) -> None:
    for charge in charges:
        widget = month.widgets[charge.widget_id]
        widget.currency = widget.currency or charge.currency or ""
        if charge.difference_amount is None:
            continue
        if charge.currency != widget.currency:
            raise UsageError(
                f"widget {charge.widget_id} is charged in two currencies in {month.first:%Y-%m}: "
                "the report cannot add them up, `export --detail statements` lists them"
            )
        if charge.usage_period == month.first:
            widget.amount, widget.fee = charge.difference_amount, charge.monthly_fee
            widget.price, widget.included = charge.price_per_minute, charge.included_seconds
        else:
            widget.adjustments += charge.difference_amount


def _add_pending(client: WidgetAnalytics, month: Month, period: Period) -> None:
    amounts = defaultdict[str, Decimal](Decimal)
    for usage in client.usage(period, widgets=month.wanted):
        month.pending.calls += usage.pending_calls
        month.pending.seconds += usage.pending_seconds
        if usage.pending_amount and usage.currency:
            amounts[usage.currency] += usage.pending_amount
    month.pending_amounts = dict(amounts)


def _sum(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return one if other is None else other if one is None else one + other
