"""``reconcile``: what call providers carried in a month beside what is billed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from widget_analytics._commands.tables import table
from widget_analytics._exit import one_line_errors
from widget_analytics._export import Format, check_output, open_output
from widget_analytics._formats import FORMATS
from widget_analytics._labels import label, names_of
from widget_analytics._lines import lines_of
from widget_analytics._options import file_of, first_of
from widget_analytics._parquet import ROWS_IN_GROUP
from widget_analytics.book_models import Reconciliation
from widget_analytics.client import WidgetAnalytics
from widget_analytics.models import Widget
from widget_analytics.periods import Period

_COLUMNS = (
    *("provider", "widget", "matched", "our seconds", "their seconds", "apart"),
    *("only there", "of these billed", "only here", "its cost"),
)


def register(app: typer.Typer) -> None:
    """Add this verb."""
    app.command()(reconcile)


def reconcile(
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="A billing month, closed or open.")],
    file_format: Annotated[
        Format | None,
        typer.Option("--format", help="For programs and spreadsheets; a table if left out."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; standard output by default.")
    ] = None,
) -> None:
    """Compare what call providers carried in a month with what is billed, by provider and widget.

    Matched calls, and how far their seconds are apart (ours less theirs); calls that only the provider knows, and how
    many of these are billed all the same; calls that only browsers know, of widgets with a provider; and what the
    provider charges, where it says so. docs/providers.md says what to do about each.
    """
    with one_line_errors():
        first_of(month)
        file = file_of(output)
        kind = file_format or (Format.CSV if file else None)
        if kind is not None:
            check_output(file, kind, with_manifest=False)
        with WidgetAnalytics() as client:
            bounds = client.billing_month(month)
            rows = client.reconciliation(Period(bounds.period_start, bounds.period_end))
            names = names_of(client)
        if kind is None:
            typer.echo("\n".join(_lines(rows, names)))
            return
        with open_output(file) as opened:
            FORMATS[kind].write(Reconciliation, lines_of(Reconciliation, rows, ROWS_IN_GROUP), opened)


def _lines(rows: list[Reconciliation], names: dict[str, Widget]) -> Iterator[str]:
    if not rows:
        yield "no calls of a provider, and no widget with one, in this month"
        return
    cells = [
        (
            row.provider or "several",
            "none" if row.widget_id is None else label(names, row.widget_id),
            f"{row.matched_calls:,}",
            f"{row.our_seconds:,f}",
            f"{row.provider_seconds:,f}",
            f"{row.seconds_apart:+,f}",
            f"{row.provider_only_calls:,}",
            f"{row.made_calls:,}",
            f"{row.browser_only_calls:,}",
            row.cost,
        )
        for row in rows
    ]
    yield from table(_COLUMNS, cells, left=2)
