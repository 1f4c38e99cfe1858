"""``close`` and ``adjustments``: months to close, and what comes after them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated

import typer

from widget_analytics._commands.asking import DryRun, Yes, goes_ahead
from widget_analytics._commands.finding import WidgetsOption, find_ids
from widget_analytics._commands.tables import Sums, assumed_share, count, minute, money, number, price, table
from widget_analytics._exit import one_line_errors
from widget_analytics._labels import label, names_of
from widget_analytics._options import first_of
from widget_analytics.book_models import MonthToClose, PendingMonth
from widget_analytics.client import WidgetAnalytics
from widget_analytics.errors import UsageError
from widget_analytics.models import Charge, Widget
from widget_analytics.periods import Period

_MOST_SHOWN = 30
_SETTLING_DAYS = 7
_MOST_DAYS = 3660


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.command()(close)
    app.command()(adjustments)


def close(
    month: Annotated[str | None, typer.Option(metavar="YYYY-MM", help="The month to close.")] = None,
    schedule: Annotated[
        str | None,
        typer.Option(metavar="DAYS|off", help="Have months closed by themselves so many days after their end."),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Close a month: write its statement, which nothing changes any more.

    Shows what each widget will be charged, and asks. What comes later is an adjustment on a later month's statement.

    Without --month it lists the months that wait.
    """
    with one_line_errors(), WidgetAnalytics() as client:
        if schedule is not None:
            _schedule(client, schedule, dry_run=dry_run)
        if month is not None:
            _close(client, month, first_of(month), dry_run=dry_run, yes=yes)
        elif schedule is None:
            for line in waiting_lines(client.months_to_close(), datetime.now(UTC)):
                typer.echo(line)


def _schedule(client: WidgetAnalytics, text: str, *, dry_run: bool) -> None:
    days = None if text == "off" else int(text) if re.fullmatch("[0-9]{1,9}", text) else 0
    if days is not None and not _SETTLING_DAYS <= days <= _MOST_DAYS:
        raise UsageError(
            f"--schedule: must be off, or {_SETTLING_DAYS} to {_MOST_DAYS} days, as browsers' events come for "
            f"{_SETTLING_DAYS} days"
        )
    if not dry_run:
        client.schedule_closing(None if days is None else timedelta(days=days))
    would = "would be " if dry_run else "are "
    typer.echo(
        f"months {would}closed by " + ("nobody but you" if days is None else f"themselves, {days} days after their end")
    )


def _close(client: WidgetAnalytics, month: str, first: date, *, dry_run: bool, yes: bool) -> None:
    statement = client.statement(first)
    if statement:
        typer.echo(f"{month} was closed on {minute(statement.closed_at)} by {statement.closed_by}: nothing to do")
        return
    bounds = client.billing_month(month)
    now = datetime.now(UTC)
    earlier = [waiting for waiting in client.months_to_close() if waiting.month < first]
    if earlier and not dry_run:
        raise UsageError(f"--month: close --month {earlier[0].month:%Y-%m} first: it waits to be closed")
    if bounds.period_end > now and not dry_run:
        raise UsageError(f"--month: {month} is not over before {minute(bounds.period_end)}; --dry-run shows it so far")
    settled = bounds.period_end + timedelta(days=_SETTLING_DAYS)
    lines = list(_charge_lines(client.statement_preview(month), names_of(client), first))
    assumed = assumed_share(client.usage(Period(bounds.period_start, bounds.period_end)))
    lines.append(f"assumed ends: {assumed} of the billable seconds of {month}")
    lines += [f"{waiting.month:%Y-%m} waits to be closed before it" for waiting in earlier]
    if settled > now:
        lines.append(
            f"browsers' events may come until {minute(settled)}: what comes after the closing is an adjustment"
        )
    if goes_ahead(lines, f"Close {month}? It cannot be opened again.", dry_run=dry_run, yes=yes):
        closed = client.close_month(month)
        typer.echo(
            f"{month} {closed.answer.replace('closed now', 'is closed')}: {count(closed.calls, 'call')}, "
            f"{count(closed.adjustments, 'adjusted call')}, hash {closed.content_hash}"
        )


def _charge_lines(charges: list[Charge], widgets: dict[str, Widget], month: date) -> Iterator[str]:
    total = Sums()
    rows = []
    for charge in charges:
        total.add(charge.difference_amount, charge.currency)
        widget = widgets.get(str(charge.widget_id))
        rows.append(
            (
                label(widgets, charge.widget_id),
                (widget and widget.customer_reference) or "-",
                f"{charge.usage_period:%Y-%m}" + (" adjusted" if charge.usage_period < month else ""),
                number(charge.difference_seconds),
                number(Decimal(charge.included_seconds)),
                price((charge.usage_period == month and charge.monthly_fee) or None, charge.currency),
                money(charge.difference_amount, charge.currency),
            )
        )
    rows.sort(key=lambda row: (row[1], row[0], row[2]))
    yield from table(
        ("widget", "customer", "month", "seconds", "included", "fee", "amount"), rows[:_MOST_SHOWN], left=3
    )
    if len(rows) > _MOST_SHOWN:
        yield f"... and {len(rows) - _MOST_SHOWN:,} more"
    yield f"{month:%Y-%m}: {count(len(rows), 'charge')}, to be paid: {total}"


def waiting_lines(months: Iterable[MonthToClose], now: datetime) -> Iterator[str]:
    """Say which months wait, when to close them, and that they could be closed by themselves."""
    months = list(months)
    for month in months:
        name = f"{month.month:%Y-%m}"
        if month.closes_at:
            yield f"{name} waits to be closed: by itself, on the day after {minute(month.closes_at)}"
        elif month.settled_at > now:
            yield f"{name} waits to be closed: best after {minute(month.settled_at)}, as events may come until then"
        else:
            yield f"{name} waits to be closed: close --month {name}"
    if not months:
        yield "no month waits to be closed"
    elif not any(month.closes_at for month in months):
        yield "close --schedule 8 has months closed by themselves, 8 days after their end (now off)"


def adjustments(
    month: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM", help="Those of this month's statement; all by default."),
    ] = None,
    widget: WidgetsOption = None,
) -> None:
    """Show what late arrivals changed in closed months, and no statement has yet.

    It becomes lines of the next month that is closed. As a file: export --month … --detail adjustments.
    """
    with one_line_errors(), WidgetAnalytics() as client:
        first = None if month is None else first_of(month)
        pending = client.pending_adjustments(first, widgets=find_ids(client, widget))
        widgets = names_of(client)
        rows = [
            (
                f"{call.usage_period:%Y-%m}",
                label(widgets, call.widget_id),
                call.session_id,
                call.call_id,
                call.rule,
                number(call.old_seconds),
                number(call.new_seconds),
                number(call.difference_seconds),
            )
            for call in pending
        ]
        if not rows:
            typer.echo("nothing is pending: the statements have all that was received")
            return
        head = ("month", "widget", "session", "call", "why", "billed", "now", "seconds")
        for line in table(head, rows, left=5):
            typer.echo(line)
        if first is None and not widget:
            for one in client.pending_months():
                typer.echo(pending_line(one))


def pending_line(pending: PendingMonth) -> str:
    """Say what the next statement adds to a closed month."""
    total = Sums()
    for currency, amount in pending.amounts.items():
        total.add(amount, currency)
    return (
        f"{pending.month:%Y-%m} is closed, and {count(pending.calls, 'call')} changed since: "
        f"{number(pending.seconds)} seconds, {total} on the next statement"
    )
