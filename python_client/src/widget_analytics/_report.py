"""The command ``report``: a month as one HTML page that loads nothing, for people in finance to read and print.

A closed month's figures come from its statement alone, and so never change. An open one's are as they stand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from widget_analytics._atomic import atomic_file
from widget_analytics._export import progress_bar, write_errors
from widget_analytics._plots import COLOURS, EVIDENCE_COLOURS, OTHERS, stacked_days, stacked_shares
from widget_analytics._selection import utc
from widget_analytics.client import WidgetAnalytics
from widget_analytics.errors import MissingExtra, NotMigrated, Refused, UsageError
from widget_analytics.models import BillingMonth, Call, Evidence, Reconciliation, Statement, StatementLine
from widget_analytics.periods import Period

_Legend: TypeAlias = list[tuple[str, str]]

_ZERO = Decimal(0)
_OFTEN = 100  # rows
_NOTHING = "\N{EN DASH}"
_EVIDENCE = {
    Evidence.OBSERVED: "the browser or your server reported the end",
    Evidence.PROVIDER: "the call provider's record",
    Evidence.OPERATOR: "set by a person",
    Evidence.HEARTBEAT: "the last sign of life stands for the end",
    Evidence.ASSUMED: "nothing was heard, so the end is assumed",
}


@dataclass
class _WidgetMonth:
    """One widget's month."""

    calls: int = 0
    seconds: Decimal = _ZERO
    days: defaultdict[date, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    evidence: defaultdict[Evidence, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    amount: Decimal | None = None
    adjustments: Decimal = _ZERO
    currency: str = ""

    @property
    def due(self) -> Decimal | None:
        """What is to be paid; None where nothing has a price."""
        return (self.amount or _ZERO) + self.adjustments if self.adjustments else self.amount

    def add(self, call: Call | StatementLine, day: date) -> None:
        seconds = call.billable_seconds if isinstance(call, Call) else call.new_seconds
        self.calls += 1
        self.seconds += seconds
        self.days[day] += seconds
        if call.evidence is not None:
            self.evidence[call.evidence] += seconds

    def add_all(self, other: _WidgetMonth) -> None:
        self.calls += other.calls
        self.seconds += other.seconds
        for day, seconds in other.days.items():
            self.days[day] += seconds
        for evidence, seconds in other.evidence.items():
            self.evidence[evidence] += seconds
        self.adjustments += other.adjustments
        if other.amount is not None:
            self.amount = (self.amount or _ZERO) + other.amount


@dataclass
class _Month:
    """What the page tells."""

    first: date
    bounds: BillingMonth
    zone: ZoneInfo
    statement: Statement | None
    made_at: datetime
    project: str
    widgets: dict[UUID, _WidgetMonth] = field(default_factory=lambda: defaultdict(_WidgetMonth))
    names: dict[UUID, str] = field(default_factory=dict)
    reconciled: list[Reconciliation] = field(default_factory=list)

    @property
    def days(self) -> list[date]:
        first, end = (at.astimezone(self.zone).date() for at in (self.bounds.period_start, self.bounds.period_end))
        return [first + timedelta(days=n) for n in range((end - first).days)]

    def in_order(self) -> list[tuple[UUID, _WidgetMonth]]:
        """The widgets, the busiest first."""
        return sorted(self.widgets.items(), key=lambda entry: (-entry[1].seconds, str(entry[0])))

    def label(self, widget_id: UUID) -> str:
        return self.names.get(widget_id) or str(widget_id)


def write_report(client: WidgetAnalytics, month: str, output: Path) -> None:
    """Write a month's page to ``output``.

    Raises:
        WidgetAnalyticsError: the month could not be read, or matplotlib is missing.
        OutputError: the file could not be written.
    """
    for package in ("jinja2", "matplotlib"):
        MissingExtra.unless_installed(package, "the report", "report")
    content = _page(_read(client, month)).encode()
    with write_errors(output), atomic_file(output) as file:
        file.write(content)


def _read(client: WidgetAnalytics, name: str) -> _Month:
    bounds = client.billing_month(name)
    first = date.fromisoformat(f"{name}-01")
    try:
        zone = ZoneInfo(bounds.time_zone)
    except ZoneInfoNotFoundError:
        raise MissingExtra(f"the time zone {bounds.time_zone}", "tzdata", "report") from None
    month = _Month(
        first=first,
        bounds=bounds,
        zone=zone,
        statement=client.statement(first),
        made_at=datetime.now(UTC),
        project=client.host,
    )
    period = Period(bounds.period_start, bounds.period_end)
    with progress_bar(period, "reading") as reached:
        for number, call in enumerate(_calls(client, month, period), start=1):
            month.widgets[call.widget_id].add(call, call.started_at.astimezone(zone).date())
            if number % _OFTEN == 0:
                reached(None if month.statement else call.started_at, number)
    if month.statement:
        _add_charges(client, month)
    else:
        for usage in client.usage(period):
            widget = month.widgets[usage.widget_id]
            widget.amount, widget.currency = usage.amount, usage.currency or ""
    # Owners' own table: where it has no names, or may not be read, ids must do.
    with suppress(NotMigrated, Refused):
        month.names = {widget.id: widget.name.strip() for widget in client.widgets() if widget.name.strip()}
    # The company's own, and a part of the schema that may have been left out.
    with suppress(NotMigrated, Refused):
        month.reconciled = client.reconciliation(period)
    return month


def _calls(client: WidgetAnalytics, month: _Month, period: Period) -> Iterator[Call | StatementLine]:
    if month.statement is None:
        return client.calls(period)
    return (line for line in client.statement_lines(month.first) if line.usage_period == month.first)


def _add_charges(client: WidgetAnalytics, month: _Month) -> None:
    for charge in client.charges(month.first):
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
            widget.amount = charge.difference_amount
        else:
            widget.adjustments += charge.difference_amount


def _page(month: _Month) -> str:
    # As it is an extra.
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    pages = Environment(
        loader=PackageLoader("widget_analytics", ""),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    pages.filters |= {"utc": utc, "minute": _minute, "seconds": _seconds, "minutes": _minutes, "money": _money}
    every, totals = _sum(month.widgets.values()), _by_currency(month.widgets.values())
    return pages.get_template("report.html.jinja").render(
        title=f"Widget usage, {month.first:%B %Y}",
        statement=month.statement,
        bounds=month.bounds,
        made_at=month.made_at,
        project=month.project,
        version=version("widget-analytics"),
        names=month.names,
        widgets=month.in_order(),
        totals=totals,
        has_adjustments=any(widget.adjustments for widget in month.widgets.values()),
        figures=_key_figures(month, every, totals),
        plots=list(_plots(month, every)) if every.seconds else [],
        reconciled=month.reconciled,
    )


def _key_figures(month: _Month, every: _WidgetMonth, totals: list[_WidgetMonth]) -> list[tuple[str, str]]:
    due = "to be paid" if month.statement else "so far"
    return [
        ("calls", f"{every.calls:,}"),
        ("billable minutes", _minutes(every.seconds)),
        ("widgets with calls", f"{sum(widget.calls > 0 for widget in month.widgets.values()):,}"),
        *((due, _money(total.due, total.currency)) for total in totals if total.due is not None),
    ]


def _plots(month: _Month, every: _WidgetMonth) -> Iterator[tuple[str, str, _Legend]]:
    """Draw the plots: caption, SVG and legend."""
    widgets = [(month.label(widget_id), widget) for widget_id, widget in month.in_order()]
    shown, rest = widgets[: len(COLOURS)], widgets[len(COLOURS) :]
    parts = [(colour, label, widget) for colour, (label, widget) in zip(COLOURS, shown, strict=False)]
    if rest:
        parts.append((OTHERS, f"{len(rest):,} other widgets", _sum(widget for _, widget in rest)))
    series = [(colour, [float(widget.days[day] / 60) for day in month.days]) for colour, _, widget in parts]
    legend = [(colour, label) for colour, label, _ in parts]
    yield "Billable minutes per day", stacked_days([day.day for day in month.days], series), legend

    bars = [("All widgets", every), *(one for one in shown if len(shown) > 1 and one[1].seconds)]
    shares = [
        (label, [(EVIDENCE_COLOURS[e], float(one.evidence[e] / (sum(one.evidence.values()) or 1))) for e in _EVIDENCE])
        for label, one in bars
    ]
    legend = [
        (EVIDENCE_COLOURS[e], f"{e}: {meaning} ({_share(every.evidence[e], every.seconds)})")
        for e, meaning in _EVIDENCE.items()
    ]
    yield "How the ends of calls are known, by billable minutes", stacked_shares(shares), legend


def _sum(widgets: Iterable[_WidgetMonth], currency: str = "") -> _WidgetMonth:
    total = _WidgetMonth(currency=currency)
    for widget in widgets:
        total.add_all(widget)
    return total


def _by_currency(widgets: Iterable[_WidgetMonth]) -> list[_WidgetMonth]:
    """Add up by currency: euros are not added to dollars; what has no price comes last."""
    groups = defaultdict[str, list[_WidgetMonth]](list)
    for widget in widgets:
        groups[widget.currency].append(widget)
    return [_sum(groups[name], name) for name in sorted(groups, key=lambda name: (not name, name))]


def _money(amount: Decimal | None, currency: str) -> str:
    return _NOTHING if amount is None else f"{amount:,f} {currency}"


def _minute(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def _seconds(seconds: Decimal) -> str:
    whole = f"{seconds:,f}"
    return whole.rstrip("0").rstrip(".") if "." in whole else whole


def _minutes(seconds: Decimal) -> str:
    return f"{(seconds / 60).quantize(Decimal('0.1'), ROUND_HALF_UP):,f}"


def _share(part: Decimal, whole: Decimal) -> str:
    percent = part * 100 / (whole or 1)
    return "under 0.1 %" if 0 < percent < Decimal("0.1") else f"{percent:.1f} %"
