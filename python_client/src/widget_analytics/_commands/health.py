"""``status``, ``doctor`` and ``cleanup``: how things stand, for people and monitors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, timedelta
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import typer

from widget_analytics._commands.closing import pending_line, waiting_lines
from widget_analytics._commands.tables import share
from widget_analytics._deadline import within
from widget_analytics._exit import OTHER_ALARM, STATUS_CODES, UNWELL, one_line_errors
from widget_analytics._settings import patience
from widget_analytics.client import WidgetAnalytics
from widget_analytics.models import CleanupResult, CleanupRun
from widget_analytics.status import Status, Thresholds

# Seconds that a monitor waits at most for `status`, unless the environment says otherwise.
_PATIENCE = 8.0


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.command()(cleanup)
    app.command()(status)
    app.command()(doctor)


def cleanup(
    stale_after: Annotated[
        float,
        typer.Option("--stale-after", metavar="MINUTES", min=0, max=525_600, help="Minutes without a sign of life."),
    ] = 30,
) -> None:
    """Complete calls that have been open for too long, now.

    The database does this by itself every 30 minutes. Doing it more often, or twice at once, does no harm.
    """
    with one_line_errors(), WidgetAnalytics() as client:
        result = client.complete_stale_sessions(timedelta(minutes=stale_after))
        typer.echo(_counts(result))


def status(
    min_delivery: Annotated[
        float,
        typer.Option(
            "--min-delivery",
            metavar="SHARE",
            min=0,
            max=1,
            envvar="WIDGET_ANALYTICS_MIN_DELIVERY",
            help="Least share of events to arrive.",
        ),
    ] = 0.95,
    min_completion: Annotated[
        float,
        typer.Option(
            "--min-completion",
            metavar="SHARE",
            min=0,
            max=1,
            envvar="WIDGET_ANALYTICS_MIN_COMPLETION",
            help="Least share of calls to end as observed.",
        ),
    ] = 0.8,
    min_cases: Annotated[
        int,
        typer.Option(
            "--min-cases",
            metavar="N",
            min=1,
            envvar="WIDGET_ANALYTICS_MIN_CASES",
            help="Judge no rate by fewer events or calls.",
        ),
    ] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Tell whether the cleanup is on time, how much arrives, and how the month stands.

    Fit for a monitor. Exits with 1 when the last cleanup failed or is more than 35 minutes ago; else with 11 when fewer
    events arrived in the last 24 hours than should, with 12 when fewer calls ended as somebody observed, of all widgets
    or of one, with 13 when nobody counts them, with 14 for any other alarm. Standard error says which.
    """
    limits = Thresholds(
        min_delivery=Decimal(str(min_delivery)), min_completion=Decimal(str(min_completion)), min_cases=min_cases
    )
    with one_line_errors(), WidgetAnalytics() as client:
        now = within(patience(_PATIENCE), lambda: client.status(limits))
        typer.echo(json.dumps(asdict(now), default=str, indent=2) if as_json else "\n".join(_status_lines(now)))
        problems = {alarm.message: alarm.alarm for alarm in now.alarms}
        for message in problems:
            typer.echo(f"widget-analytics: {' '.join(message.split())}", err=True)
        if problems:
            codes = (code for alarm, code in STATUS_CODES.items() if alarm in problems.values())
            raise typer.Exit(next(codes, OTHER_ALARM))


def doctor(
    widget: Annotated[UUID | None, typer.Option(metavar="ID", help="Send a test event for this widget.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array, for programs.")] = False,
) -> None:
    """Check the installation end to end, and say of each part that it is well, or what to do.

    With --widget, sends it one `widget_load` and reads it back: it stays in the ledger, and no bill counts it.
    Takes ten seconds at most. Exits with 15 where there is a problem.
    """
    from widget_analytics._doctor import examine  # noqa: PLC0415 (httpx takes long to import)

    with one_line_errors():
        findings = examine(widget)
        lines = (f"{one.check:<17} {one.result:<8} {' '.join(one.message.split())}" for one in findings)
        typer.echo(json.dumps([asdict(one) for one in findings], indent=2) if as_json else "\n".join(lines))
        if any(one.result == "problem" for one in findings):
            raise typer.Exit(UNWELL)


def _status_lines(now: Status) -> Iterator[str]:
    run = now.last_run
    if run is None:
        yield "last cleanup     never"
    else:
        when = f"{run.started_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC, {_age(now.at - run.started_at)} ago"
        yield f"last cleanup     {when}"
        yield f"                 {_counts(run)}"
    yield f"open calls       {now.open_calls:,}"
    rates = now.rates
    yield (
        f"arrived in 24 h  {_share(rates.delivery_rate)} of {rates.events_expected:,} numbered events"
        f", {rates.events_received:,} events in all"
    )
    over = rates.calls_started - rates.calls_open
    yield (
        f"ended in 24 h    {_share(rates.completion_rate)} of {over:,} calls as observed"
        f", {rates.orphan_ends:,} ends without a call"
    )
    if rates.response_ms_median is not None:
        yield f"answers in 24 h  half within {rates.response_ms_median:,} ms, 95 % within {rates.response_ms_p95:,} ms"
    calls = f"{now.month_calls:,} call" + ("" if now.month_calls == 1 else "s")
    seconds = f"{now.month_seconds:,f} billable seconds"
    assumed = f", {share(now.month_assumed_seconds, now.month_seconds)} of them assumed" if now.month_seconds else ""
    yield f"{now.month.start:%Y-%m} so far   {calls}, {seconds}{assumed}"
    for waiting in waiting_lines(now.months_to_close, now.at) if now.months_to_close else ():
        yield f"to close         {waiting}"
    for pending in now.pending:
        yield f"pending          {pending_line(pending)}"
    refused = ", ".join(f"{count:,} {reason}" for reason, count in now.refusals.items())
    yield f"refused in 24 h  {refused or 'none'}"


def _counts(run: CleanupResult | CleanupRun) -> str:
    return f"checked {run.calls_checked:,}, completed {run.calls_completed:,}, still active {run.calls_still_active:,}"


def _share(rate: Decimal | None) -> str:
    return "none" if rate is None else f"{100 * rate:.1f} %"


def _age(age: timedelta) -> str:
    minutes = max(0, age // timedelta(minutes=1))
    hours, days = minutes // 60, minutes // (24 * 60)
    if days > 1:
        return f"{days} days"
    return f"{hours} hours" if hours > 1 else f"{minutes} minutes"
