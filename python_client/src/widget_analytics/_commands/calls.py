"""``correct``, ``void`` and ``record``: what people, servers and providers know of a call."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Annotated

import typer

from widget_analytics._commands.asking import DryRun, Yes, goes_ahead
from widget_analytics._commands.finding import WidgetOption, find_widget
from widget_analytics._commands.tables import money, number, plain, second
from widget_analytics._exit import one_line_errors
from widget_analytics._options import instant_of
from widget_analytics.book_models import KnownCall
from widget_analytics.client import WidgetAnalytics
from widget_analytics.errors import UsageError
from widget_analytics.models import Widget
from widget_analytics.periods import Period

_MOST_NAMED = 5

CallOption = Annotated[str, typer.Option("--call", metavar="ID", help="The call's call_id, as exports have it.")]
SessionOption = Annotated[
    str | None, typer.Option("--session", metavar="ID", help="Its session_id; needed where several have such a call.")
]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; the bill's rule says it.")]
By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who decides; the login's name by default.")]


class Source(StrEnum):
    """Who knows of a call."""

    SERVER = "server"
    PROVIDER = "provider"


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.command()(correct)
    app.command()(void)
    app.command()(record)


def correct(
    widget: WidgetOption,
    call: CallOption,
    seconds: Annotated[str, typer.Option(metavar="N", help="How long the call was, from its start.")],
    reason: Reason,
    session: SessionOption = None,
    by: By = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Set how long a call was, whatever else is said of it.

    Of several corrections the latest counts. In a closed month the difference is an adjustment on a later statement.
    """
    with one_line_errors(), WidgetAnalytics() as client:
        try:
            length = Decimal(seconds)
        except InvalidOperation:
            length = Decimal("NaN")
        if not length.is_finite() or length < 0:
            raise UsageError(f"--seconds: must be a number of 0 or more, not {seconds!r}")
        _set_length(client, widget, call, session, length, reason=reason, by=by, dry_run=dry_run, yes=yes)


def void(
    widget: WidgetOption,
    call: CallOption,
    reason: Reason,
    session: SessionOption = None,
    by: By = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Void a call: it is billed at nothing, whatever its plan says.

    In a closed month that is an adjustment on a later statement.
    """
    with one_line_errors(), WidgetAnalytics() as client:
        _set_length(client, widget, call, session, Decimal(0), reason=reason, by=by, dry_run=dry_run, yes=yes)


def _set_length(
    client: WidgetAnalytics,
    widget: str,
    call_id: str,
    session: str | None,
    length: Decimal,
    *,
    reason: str,
    by: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    found = find_widget(client, widget)
    call = _find_call(client, found, call_id, session)
    by = by or _login()
    will = f"{number(length)} s long, as {by} says: {reason}" if length else f"void, as {by} says: {reason}"
    if goes_ahead([*_call_lines(client, found, call), f"  will be  {will}"], "Go on?", dry_run=dry_run, yes=yes):
        changed = client.correct_call(call, duration_seconds=length, reason=reason, corrected_by=by)
        for line in _bill_lines(client, changed):
            typer.echo(line)


def record(
    widget: WidgetOption,
    session: Annotated[str, typer.Option("--session", metavar="ID", help="The session that reported the call.")],
    call: CallOption,
    record_id: Annotated[
        str,
        typer.Option("--record", metavar="ID", help="The record's name at its source; twice is once."),
    ],
    source: Annotated[Source, typer.Option(help="Who knows: your server, or the call provider.")] = Source.PROVIDER,
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="When the call began; UTC.")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="When it ended; UTC.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="It ended by an error.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Add what your server or the call provider knows of a call: its start, its end, or both.

    It outranks what the browser said. A call that nobody reported begins so.
    """
    with one_line_errors(), WidgetAnalytics() as client:
        started_at = None if start is None else instant_of("--from", start)
        ended_at = None if end is None else instant_of("--to", end)
        if started_at is None and ended_at is None:
            raise UsageError("say when the call began or ended: --from TIME, --to TIME, or both")
        found = find_widget(client, widget)
        known = client.find_calls(found.id, call, session)
        lines = list(_call_lines(client, found, known[0])) if known else [f"call {plain(call)} is not known yet"]
        lines += [f"  {source} says  {_said(started_at, ended_at, failed=failed)} (record {plain(record_id)})"]
        if not goes_ahead(lines, "Go on?", dry_run=dry_run, yes=yes):
            return
        recorded = client.record_call(
            found.id,
            session,
            call,
            source=source,
            record_id=record_id,
            started_at=started_at,
            ended_at=ended_at,
            has_failed=failed,
        )
        if recorded.duplicates and not recorded.accepted:
            typer.echo(f"record {plain(record_id)} is known: nothing was changed")
        elif recorded.call is None:
            typer.echo("added; the call is billed once its start is known")
        else:
            for line in _bill_lines(client, recorded.call):
                typer.echo(line)


def _said(started_at: datetime | None, ended_at: datetime | None, *, failed: bool) -> str:
    parts = [f"began {second(started_at)}" if started_at else "", f"ended {second(ended_at)}" if ended_at else ""]
    return ", ".join(part for part in (*parts, "failed" if failed else "") if part)


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise UsageError("--by: this login has no name, say who decides") from None


def _find_call(client: WidgetAnalytics, widget: Widget, call_id: str, session: str | None) -> KnownCall:
    calls = client.find_calls(widget.id, call_id, session)
    if len(calls) == 1:
        return calls[0]
    if not calls:
        where = f" of session {session!r}" if session else ""
        raise UsageError(
            f"--call: {plain(widget.name)!r} has no call {call_id!r}{where}; export --detail calls lists them"
        )
    sessions = ", ".join(f"{call.session_id!r} ({second(call.started_at)})" for call in calls[:_MOST_NAMED])
    more = f" and {len(calls) - _MOST_NAMED:,} more" if len(calls) > _MOST_NAMED else ""
    raise UsageError(f"--call: {len(calls)} sessions have a call {call_id!r}, give --session: {sessions}{more}")


def _call_lines(client: WidgetAnalytics, widget: Widget, call: KnownCall) -> Iterator[str]:
    ended = second(call.ended_at) if call.ended_at else "not yet"
    yield f"call {plain(call.call_id)} of session {plain(call.session_id)}, {plain(widget.name) or widget.id}"
    yield f"  began    {second(call.started_at)}, ended {ended}: {call.outcome}, {call.evidence or 'no evidence yet'}"
    yield from _bill_lines(client, call)


def _bill_lines(client: WidgetAnalytics, call: KnownCall) -> Iterator[str]:
    """Say what is billed for a call, and what the next statement will change of that."""
    instant = Period(call.started_at, call.started_at + timedelta(microseconds=1))
    for billed in client.calls(instant, widgets=[call.widget_id]):
        if (billed.session_id, billed.call_id) == (call.session_id, call.call_id):
            cost = f", {money(billed.amount, billed.currency)}" if billed.currency else ""
            month = ", in a closed month" if billed.is_closed else ""
            yield f"  billed   {number(billed.billable_seconds)} s{cost}{month}: {plain(billed.rule)}"
    for late in client.pending_adjustments(widgets=[call.widget_id]):
        if (late.session_id, late.call_id) == (call.session_id, call.call_id):
            yield f"  pending  {number(late.difference_seconds)} s on the next statement: {plain(late.rule)}"
