"""The command ``report``: a month as one HTML page that loads nothing, to read, print and attach to an invoice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

from widget_analytics._export import open_output
from widget_analytics._lines import utc
from widget_analytics._plots import COLOURS, EVIDENCE_COLOURS, OTHERS, in_page, stacked_days, stacked_shares
from widget_analytics._report_month import Month, Scope, WidgetMonth, read_month
from widget_analytics.client import WidgetAnalytics
from widget_analytics.errors import MissingExtra
from widget_analytics.models import Evidence

_Legend: TypeAlias = list[tuple[str, str]]

_NOTHING = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_MOST_ADJUSTED = 200
_EVIDENCE = {
    Evidence.OBSERVED: "the browser or your server reported the end",
    Evidence.PROVIDER: "the call provider's record",
    Evidence.OPERATOR: "set by a person",
    Evidence.HEARTBEAT: "the last sign of life stands for the end",
    Evidence.ASSUMED: "nothing was heard, so the end is assumed",
}


def write_report(client: WidgetAnalytics, month: str, output: Path | None, scope: Scope | None = None) -> None:
    """Write a month's page to ``output``, standard output where that is None: of all widgets, or of a scope's.

    Raises:
        WidgetAnalyticsError: the month could not be read, or matplotlib is missing.
        OutputError: the file could not be written.
    """
    for package in ("jinja2", "matplotlib"):
        MissingExtra.unless_installed(package, "the report", "report")
    content = _page(read_month(client, month, scope)).encode()
    with open_output(output) as file:
        file.write(content)


def _page(month: Month) -> str:
    # As it is an extra.
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    pages = Environment(
        loader=PackageLoader("widget_analytics", ""),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    pages.filters |= {
        "utc": utc,
        "minute": _minute,
        "minutes": _minutes,
        "money": _money,
        "price": _price,
    }
    every, totals = _sum(month.widgets.values()), _by_currency(month.widgets.values())
    return pages.get_template("report.html.jinja").render(
        title=f"Widget usage, {month.first:%B %Y}",
        month=month,
        version=version("widget-analytics"),
        every=every,
        widgets=month.in_order(),
        totals=totals,
        has_adjustments=any(widget.adjustments for widget in month.widgets.values()),
        adjusted=month.adjusted[:_MOST_ADJUSTED],
        figures=_key_figures(month, every, totals),
        assumed=lambda widget: _share(widget.evidence[Evidence.ASSUMED], widget.seconds),
        plots=list(_plots(month, every)) if every.seconds else [],
        reconciled=month.reconciled,
    )


def _key_figures(month: Month, every: WidgetMonth, totals: list[WidgetMonth]) -> list[tuple[str, str]]:
    due = "to be paid" if month.statement else "so far"
    return [
        ("calls", f"{every.calls:,}"),
        ("billable minutes", _minutes(every.seconds)),
        ("of them assumed", _share(every.evidence[Evidence.ASSUMED], every.seconds)),
        *((due, _money(total.due, total.currency)) for total in totals if total.due is not None),
    ]


def _plots(month: Month, every: WidgetMonth) -> Iterator[tuple[str, str, _Legend]]:
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
        (in_page(EVIDENCE_COLOURS[e]), f"{e}: {meaning} ({_share(every.evidence[e], every.seconds)})")
        for e, meaning in _EVIDENCE.items()
    ]
    yield "How the ends of calls are known, by billable minutes", stacked_shares(shares), legend


def _sum(widgets: Iterable[WidgetMonth], currency: str = "") -> WidgetMonth:
    total = WidgetMonth(currency=currency)
    for widget in widgets:
        total.add_all(widget)
    return total


def _by_currency(widgets: Iterable[WidgetMonth]) -> list[WidgetMonth]:
    """Add up by currency: euros are not added to dollars; what has no price comes last."""
    groups = defaultdict[str, list[WidgetMonth]](list)
    for widget in widgets:
        groups[widget.currency].append(widget)
    return [_sum(groups[name], name) for name in sorted(groups, key=lambda name: (not name, name))]


def _money(amount: Decimal | None, currency: str) -> str:
    return _NOTHING if amount is None else f"{amount:,f} {currency}".replace("-", _MINUS)


def _price(amount: Decimal | None, currency: str) -> str:
    if amount is None:
        return _NOTHING
    exponent = amount.normalize().as_tuple().exponent
    return _money(round(amount, max(2, -exponent if isinstance(exponent, int) else 0)), currency)


def _minute(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def _minutes(seconds: Decimal | int) -> str:
    return f"{(Decimal(seconds) / 60).quantize(Decimal('0.1'), ROUND_HALF_UP):,f}".replace("-", _MINUS)


def _share(part: Decimal, whole: Decimal) -> str:
    percent = part * 100 / (whole or 1)
    return "under 0.1 %" if 0 < percent < Decimal("0.1") else f"{percent:.1f} %"
