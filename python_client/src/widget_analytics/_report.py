"""The command ``report``: a month as one HTML page that loads nothing, for people in finance to read and print.

A closed month's figures come from its statement alone, and so never change. An open one's are as they stand.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from widget_analytics._atomic import atomic_file
from widget_analytics._export import progress_bar, write_errors
from widget_analytics._plots import COLOURS, EVIDENCE_COLOURS, OTHERS, stacked_days, stacked_shares
from widget_analytics._selection import utc
from widget_analytics.errors import MissingExtra, NotMigrated, Refused, UsageError
from widget_analytics.models import Evidence
from widget_analytics.periods import Period

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from uuid import UUID

    from widget_analytics.client import WidgetAnalytics
    from widget_analytics.models import BillingMonth, Statement

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

    def add(self, day: date, seconds: Decimal, evidence: Evidence | None) -> None:
        self.calls += 1
        self.seconds += seconds
        self.days[day] += seconds
        if evidence is not None:
            self.evidence[evidence] += seconds


@dataclass
class _Month:
    """What the page tells."""

    name: str
    bounds: BillingMonth
    statement: Statement | None
    made_at: datetime
    project: str
    widgets: dict[UUID, _WidgetMonth] = field(default_factory=lambda: defaultdict(_WidgetMonth))
    names: dict[UUID, str] = field(default_factory=dict)

    @property
    def days(self) -> list[date]:
        zone = ZoneInfo(self.bounds.time_zone)
        first, end = (at.astimezone(zone).date() for at in (self.bounds.period_start, self.bounds.period_end))
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
    month = _Month(
        name=name,
        bounds=bounds,
        statement=client.statement(first),
        made_at=datetime.now(UTC),
        project=client.host,
    )
    try:
        zone = ZoneInfo(bounds.time_zone)
    except ZoneInfoNotFoundError:
        raise MissingExtra(f"the time zone {bounds.time_zone}", "tzdata", "report") from None
    if month.statement:
        _read_closed(client, month, first, zone)
    else:
        _read_open(client, month, zone)
    try:
        # Owners' own table: where it has no names, or may not be read, ids must do.
        month.names = {widget.id: widget.name.strip() for widget in client.widgets()}
    except (NotMigrated, Refused):
        month.names = {}
    return month


def _read_closed(client: WidgetAnalytics, month: _Month, first: date, zone: ZoneInfo) -> None:
    with progress_bar(Period(month.bounds.period_start, month.bounds.period_end), "reading") as reached:
        for number, line in enumerate(client.statement_lines(first), start=1):
            if number % _OFTEN == 0:
                reached(None, number)
            if line.usage_period == first:
                day = line.started_at.astimezone(zone).date()
                month.widgets[line.widget_id].add(day, line.new_seconds, line.evidence)
    for charge in client.charges(first):
        widget = month.widgets[charge.widget_id]
        widget.currency = widget.currency or charge.currency or ""
        if charge.difference_amount is None:
            continue
        if charge.currency != widget.currency:
            raise UsageError(
                f"widget {charge.widget_id} is charged in two currencies in {month.name}: "
                "the report cannot add them up, `export --detail statements` lists them"
            )
        if charge.usage_period == first:
            widget.amount = charge.difference_amount
        else:
            widget.adjustments += charge.difference_amount


def _read_open(client: WidgetAnalytics, month: _Month, zone: ZoneInfo) -> None:
    period = Period(month.bounds.period_start, month.bounds.period_end)
    with progress_bar(period, "reading") as reached:
        for number, call in enumerate(client.calls(period), start=1):
            if number % _OFTEN == 0:
                reached(call.started_at, number)
            month.widgets[call.widget_id].add(
                call.started_at.astimezone(zone).date(), call.billable_seconds, call.evidence
            )
    for usage in client.usage(period):
        widget = month.widgets[usage.widget_id]
        widget.amount, widget.currency = usage.amount, usage.currency or ""


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
    widgets = month.in_order()
    return pages.get_template("report.html.jinja").render(
        title=f"Widget usage, {date.fromisoformat(f'{month.name}-01'):%B %Y}",
        statement=month.statement,
        bounds=month.bounds,
        made_at=month.made_at,
        project=month.project,
        version=version("widget-analytics"),
        names=month.names,
        widgets=widgets,
        totals=_sums(month.widgets.values()),
        has_adjustments=any(widget.adjustments for _, widget in widgets),
        figures=_key_figures(month),
        plots=list(_plots(month, widgets)) if any(widget.seconds for _, widget in widgets) else [],
    )


def _key_figures(month: _Month) -> list[tuple[str, str]]:
    every = month.widgets.values()
    priced = [total for total in _sums(every) if total.due is not None]
    return [
        ("calls", f"{sum(widget.calls for widget in every):,}"),
        ("billable minutes", _minutes(sum((widget.seconds for widget in every), _ZERO))),
        ("widgets with calls", f"{sum(widget.calls > 0 for widget in every):,}"),
        *(("to be paid" if month.statement else "so far", _money(total.due, total.currency)) for total in priced),
    ]


def _plots(month: _Month, widgets: list[tuple[UUID, _WidgetMonth]]) -> Iterator[tuple[str, str, _Legend]]:
    """Draw the plots: caption, SVG and legend."""
    shown, rest = widgets[: len(COLOURS)], widgets[len(COLOURS) :]
    days = month.days
    parts = [(colour, month.label(widget_id), [one]) for colour, (widget_id, one) in zip(COLOURS, shown, strict=False)]
    if rest:
        parts.append((OTHERS, f"{len(rest):,} other widgets", [widget for _, widget in rest]))
    series = [
        (colour, [float(sum((one.days[day] for one in ones), _ZERO) / 60) for day in days]) for colour, _, ones in parts
    ]
    legend = [(colour, label) for colour, label, _ in parts]
    yield "Billable minutes per day", stacked_days([day.day for day in days], series), legend

    rows = [("All widgets", _evidence_sums(widget for _, widget in widgets))]
    if len(shown) > 1:
        rows += [(month.label(widget_id), widget.evidence) for widget_id, widget in shown if widget.seconds]
    shares = [
        (label, [(EVIDENCE_COLOURS[e], float(evidence[e] / (sum(evidence.values(), _ZERO) or 1))) for e in _EVIDENCE])
        for label, evidence in rows
    ]
    total = sum((widget.seconds for _, widget in widgets), _ZERO)
    legend = [
        (EVIDENCE_COLOURS[e], f"{e}: {meaning} ({_share(rows[0][1][e], total)})") for e, meaning in _EVIDENCE.items()
    ]
    yield "How the ends of calls are known, by billable minutes", stacked_shares(shares), legend


def _evidence_sums(widgets: Iterable[_WidgetMonth]) -> defaultdict[Evidence, Decimal]:
    sums: defaultdict[Evidence, Decimal] = defaultdict(Decimal)
    for widget in widgets:
        for evidence, seconds in widget.evidence.items():
            sums[evidence] += seconds
    return sums


def _sums(widgets: Iterable[_WidgetMonth]) -> list[_WidgetMonth]:
    """Add up by currency: euros are not added to dollars."""
    sums: dict[str, _WidgetMonth] = {}
    for widget in widgets:
        total = sums.setdefault(widget.currency, _WidgetMonth(currency=widget.currency))
        total.calls += widget.calls
        total.seconds += widget.seconds
        total.adjustments += widget.adjustments
        if widget.amount is not None:
            total.amount = (total.amount or _ZERO) + widget.amount
    return [sums[currency] for currency in sorted(sums, key=lambda currency: (not currency, currency))]


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
