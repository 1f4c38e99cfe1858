"""The command ``report``: a month as one HTML page that loads nothing, for people in finance to read and print.

A closed month's figures come from its statement alone, and so never change. An open one's are as they stand.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from html import escape
from importlib.metadata import version
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from widget_analytics._atomic import atomic_file
from widget_analytics._exit import MissingExtra, UsageError
from widget_analytics._export import progress_bar, write_errors
from widget_analytics._plots import COLOURS, EVIDENCE_COLOURS, OTHERS, require_matplotlib, stacked_days, stacked_shares
from widget_analytics._selection import utc
from widget_analytics.errors import NotMigrated, Refused
from widget_analytics.models import Evidence
from widget_analytics.periods import Period

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from uuid import UUID

    from widget_analytics.client import WidgetAnalytics
    from widget_analytics.models import BillingMonth, Statement

_ZERO = Decimal(0)
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
    require_matplotlib()
    content = "".join(_page(_read(client, month))).encode()
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
    with progress_bar(Period(month.bounds.period_start, month.bounds.period_end), "reading") as progress:
        for number, line in enumerate(client.statement_lines(first), start=1):
            progress.at(line, number)
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
    with progress_bar(period, "reading") as progress:
        for number, call in enumerate(client.calls(period), start=1):
            progress.at(call, number)
            month.widgets[call.widget_id].add(
                call.started_at.astimezone(zone).date(), call.billable_seconds, call.evidence
            )
    for usage in client.usage(period):
        widget = month.widgets[usage.widget_id]
        widget.amount, widget.currency = usage.amount, usage.currency or ""


def _page(month: _Month) -> Iterator[str]:
    widgets = month.in_order()
    title = f"Widget usage, {date.fromisoformat(f'{month.name}-01'):%B %Y}"
    yield _HEAD.format(title=escape(title), style=_STYLE)
    yield f"<header><h1>{escape(title)}</h1>{_state(month)}</header><main>"
    yield _key_figures(month)
    if any(widget.seconds for _, widget in widgets):
        yield from _plots(month, widgets)
    else:
        yield "<p>No billable calls in this month.</p>"
    yield from _table(month, widgets)
    yield from _notes(month)
    yield "</main></body></html>\n"


def _state(month: _Month) -> str:
    statement = month.statement
    if statement is None:
        return (
            '<p class="state open"><strong>Open</strong> This month is not closed: figures may still change. '
            f"They count what was received by {_moment(month.made_at)}.</p>"
        )
    return (
        f'<p class="state closed"><strong>Closed</strong> on {_moment(statement.closed_at)} by '
        f"{escape(statement.closed_by)}, with what was received by {_moment(statement.as_of)}. "
        f"This statement no longer changes; its hash is <code>{escape(statement.content_hash)}</code>.</p>"
    )


def _key_figures(month: _Month) -> str:
    every = month.widgets.values()
    amounts: dict[str, Decimal] = {}
    for widget in every:
        if widget.amount is not None or widget.adjustments:
            due = (widget.amount or _ZERO) + widget.adjustments
            amounts[widget.currency] = amounts.get(widget.currency, _ZERO) + due
    figures = [
        ("calls", f"{sum(widget.calls for widget in every):,}"),
        ("billable minutes", _minutes(sum((widget.seconds for widget in every), _ZERO))),
        ("widgets with calls", f"{sum(widget.calls > 0 for widget in every):,}"),
        *(
            ("to be paid" if month.statement else "so far", f"{amount:,f} {currency}")
            for currency, amount in sorted(amounts.items())
        ),
    ]
    return (
        '<dl class="figures">'
        + "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in figures)
        + "</dl>"
    )


def _plots(month: _Month, widgets: list[tuple[UUID, _WidgetMonth]]) -> Iterator[str]:
    shown, rest = widgets[: len(COLOURS)], widgets[len(COLOURS) :]
    days = month.days
    series = [(COLOURS[n], [float(w.days.get(day, _ZERO) / 60) for day in days]) for n, (_, w) in enumerate(shown)]
    legend = [(COLOURS[n], month.label(widget_id)) for n, (widget_id, _) in enumerate(shown)]
    if rest:
        series.append((OTHERS, [float(sum((w.days.get(day, _ZERO) for _, w in rest), _ZERO) / 60) for day in days]))
        legend.append((OTHERS, f"{len(rest):,} other widgets"))
    yield _figure("Billable minutes per day", stacked_days([day.day for day in days], series), legend)

    total = sum((widget.seconds for _, widget in widgets), _ZERO)
    rows = [("All widgets", _evidence_sums(widget for _, widget in widgets))]
    if len(shown) > 1:
        rows += [(month.label(widget_id), widget.evidence) for widget_id, widget in shown if widget.seconds]
    shares = [
        (label, [(EVIDENCE_COLOURS[e], float(evidence[e] / (sum(evidence.values(), _ZERO) or 1))) for e in _EVIDENCE])
        for label, evidence in rows
    ]
    legend = [
        (EVIDENCE_COLOURS[e], f"{e}: {meaning} ({_share(rows[0][1][e], total)})") for e, meaning in _EVIDENCE.items()
    ]
    yield _figure("How the ends of calls are known, by billable minutes", stacked_shares(shares), legend)


def _evidence_sums(widgets: Iterable[_WidgetMonth]) -> defaultdict[Evidence, Decimal]:
    sums: defaultdict[Evidence, Decimal] = defaultdict(Decimal)
    for widget in widgets:
        for evidence, seconds in widget.evidence.items():
            sums[evidence] += seconds
    return sums


def _figure(caption: str, svg: str, legend: list[tuple[str, str]]) -> str:
    entries = "".join(
        f'<li><span class="swatch" style="background:{colour}"></span>{escape(label)}</li>' for colour, label in legend
    )
    return (
        f'<figure><figcaption>{escape(caption)}</figcaption><div role="img" aria-label="{escape(caption)}">{svg}</div>'
        f'<ul class="legend">{entries}</ul></figure>'
    )


def _table(month: _Month, widgets: list[tuple[UUID, _WidgetMonth]]) -> Iterator[str]:
    has_adjustments = any(widget.adjustments for _, widget in widgets)
    heads = ["Widget", "Calls", "Billable seconds", "Minutes", "Amount"]
    heads += ["Adjustments", "To be paid"] if has_adjustments else []
    cells = "".join(f'<th scope="col">{head}</th>' for head in heads)
    yield f"<h2>By widget</h2><table><thead><tr>{cells}</tr></thead><tbody>"
    for widget_id, widget in widgets:
        name = month.names.get(widget_id)
        label = f"{escape(name)}<small>{widget_id}</small>" if name else str(widget_id)
        yield f'<tr><th scope="row">{label}</th>{_cells(widget, has_adjustments=has_adjustments)}</tr>'
    yield "</tbody><tfoot>"
    for total in _sums(widget for _, widget in widgets):
        name = f"All in {escape(total.currency)}" if total.currency else "All without a price"
        yield f'<tr><th scope="row">{name}</th>{_cells(total, has_adjustments=has_adjustments)}</tr>'
    yield "</tfoot></table>"


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


def _cells(widget: _WidgetMonth, *, has_adjustments: bool) -> str:
    def money(amount: Decimal | None) -> str:
        return _NOTHING if amount is None else f"{amount:,f} {widget.currency}"

    cells = [f"{widget.calls:,}", _seconds(widget.seconds), _minutes(widget.seconds), money(widget.amount)]
    if has_adjustments:
        due = (widget.amount or _ZERO) + widget.adjustments
        cells += [money(widget.adjustments or None), money(widget.amount if due == _ZERO else due)]
    return "".join(f"<td>{escape(cell)}</td>" for cell in cells)


def _notes(month: _Month) -> Iterator[str]:
    bounds = month.bounds
    yield '<h2>How to read this</h2><dl class="notes">'
    yield (
        f"<dt>Month</dt><dd>Calls that started from {_moment(bounds.period_start)} until before "
        f"{_moment(bounds.period_end)}; days are those of {escape(bounds.time_zone)}.</dd>"
        "<dt>Amount</dt><dd>Billable seconds beyond the plan's included ones, at its price, rounded once for each "
        "widget and month. Without a plan there is none.</dd>"
    )
    if month.statement:
        yield (
            "<dt>Adjustments</dt><dd>What arrived late and changed earlier closed months; below zero: a credit.</dd>"
            "<dt>Hash</dt><dd>SHA-256 of the statement: with it and the database, anyone can check that it is the "
            "same.</dd>"
        )
    yield (
        f"<dt>Made</dt><dd>{_moment(datetime.now(UTC))} from {escape(month.project)}, widget-analytics "
        f"{escape(version('widget-analytics'))}</dd></dl>"
    )


def _moment(at: datetime) -> str:
    return f'<time datetime="{utc(at)}">{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC</time>'


def _seconds(seconds: Decimal) -> str:
    whole = f"{seconds:,f}"
    return whole.rstrip("0").rstrip(".") if "." in whole else whole


def _minutes(seconds: Decimal) -> str:
    return f"{(seconds / 60).quantize(Decimal('0.1'), ROUND_HALF_UP):,f}"


def _share(part: Decimal, whole: Decimal) -> str:
    percent = part * 100 / (whole or 1)
    return "under 0.1 %" if 0 < percent < Decimal("0.1") else f"{percent:.1f} %"


_HEAD = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    # Nothing may be loaded or run, whatever a widget is called.
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    "<style>{style}</style></head><body>"
)

_STYLE = """
:root { --ink: #1b2330; --soft: #5b6675; --line: #d9dee5; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem; max-width: 60rem; color: var(--ink); background: #fff;
  font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.state { margin: 0; padding: .5rem .8rem; border-left: 4px solid; background: #f5f7f9; }
code { font-size: .82em; overflow-wrap: anywhere; }
.state strong { margin-right: .4rem; }
.closed { border-color: #2e7d5b; } .open { border-color: #c98a1b; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; margin: 1.5rem 0; }
.figures dt { color: var(--soft); font-size: .85rem; }
.figures dd { margin: 0; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
figure { margin: 2rem 0; break-inside: avoid; }
figcaption { font-weight: 600; font-size: 1.15rem; }
figure svg text { font-family: inherit !important; }
figure svg { display: block; width: 100%; height: auto; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; margin: .3rem 0 0; padding: 0;
  font-size: .85rem; }
.legend li { overflow-wrap: anywhere; }
.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .45em; border-radius: 2px;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .4rem .5rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
td { white-space: nowrap; }
th:first-child { width: 36%; text-align: left; font-weight: 500; overflow-wrap: anywhere; }
thead th { color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); }
tfoot th, tfoot td { font-weight: 700; border-top: 2px solid var(--line); border-bottom: 0; }
th small { display: block; color: var(--soft); font-size: .7rem; font-weight: 400; }
tr { break-inside: avoid; }
.notes { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; font-size: .85rem; margin: 0; }
.notes dt { color: var(--soft); } .notes dd { margin: 0; overflow-wrap: anywhere; }
@page { size: A4; margin: 15mm; }
@media print {
  body { padding: 0; max-width: none; font-size: 10pt; }
  h2 { break-after: avoid; }
  .state { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
