"""The command ``push``: bills out, to a billing system, each charge once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from widget_analytics._exit import one_line_errors
from widget_analytics._options import period_of
from widget_analytics._push.charges import customers_of, with_customers
from widget_analytics._push.outbox import Outbox
from widget_analytics._push.push import Pusher
from widget_analytics._push.target import Planned, Target
from widget_analytics._settings import variable
from widget_analytics.client import WidgetAnalytics
from widget_analytics.errors import ConfigError, MissingExtra, UsageError

INCOMPLETE = 1


def register(app: typer.Typer) -> None:
    """Add this verb."""
    app.command()(push)


class System(StrEnum):
    """A billing system."""

    STRIPE = "stripe"
    LAGO = "lago"
    OPENMETER = "openmeter"


def push(
    system: Annotated[System, typer.Argument(help="The billing system.")],
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="A closed month.")],
    customers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV with columns reference and id: each customer's id there. Else the reference is the id.",
        ),
    ] = None,
    meter: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Stripe: send seconds to the meter of this event name, not invoice items."),
    ] = None,
    code: Annotated[
        str, typer.Option(metavar="CODE", help="Lago: the billable metric's code; OpenMeter: the events' type.")
    ] = "widget_calls",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be sent, one JSON object a line.")
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Print what was sent, waits or was refused, and why.")
    ] = False,
) -> None:
    """Send a closed month's charges and adjustments to a billing system, each once.

    What is to be sent is written to the outbox in the database first (widget_pushes). If interrupted, run it again:
    each charge arrives once. A charge without a customer stops it before anything is sent.

    Reads STRIPE_API_KEY, LAGO_API_KEY and LAGO_API_URL, or OPENMETER_API_KEY and OPENMETER_URL from the environment or
    .env. Needs the extra of the system's name. Exits with 1 where something waits or was refused.
    """
    with one_line_errors():
        period_of(month, None, None)
        if meter is not None and system is not System.STRIPE:
            raise UsageError("--meter is of stripe")
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        with WidgetAnalytics() as client:
            first = date.fromisoformat(f"{month}-01")
            outbox = Outbox(client._transport, system, first)
            if status:
                complete = _report(outbox, typer.echo)
            elif client.statement(first) is None:
                raise UsageError(f"--month: {month} is not closed; only a closed month's charges are final")
            else:
                charges = with_customers(outbox.charges(), None if customers is None else customers_of(customers))
                target = _target(system, meter=meter, code=code, needs_key=not dry_run)
                planned = target.plan(charges)
                if dry_run:
                    _print(planned)
                    return
                with console.status("", spinner="line") as line:
                    Pusher(outbox, target, say=line.update).push(planned)
                complete = _report(outbox, lambda text: console.print(text, markup=False))
        if not complete:
            raise typer.Exit(INCOMPLETE)


def _print(planned: list[Planned]) -> None:
    for each in planned:
        refused = {"refused": each.refusal} if each.refusal else {}
        typer.echo(json.dumps({"event_id": each.charge.event_id, **refused, "payload": each.payload}))


def _report(outbox: Outbox, say: Callable[[str], object]) -> bool:
    """Say how far it is, and whether that is all the way."""
    states = outbox.states()
    words = {
        "confirmed": "confirmed",
        "accepted": "taken, but not seen there yet: look again with --status after some minutes, or run it again",
        "sending": "sent without an answer: run it again",
        "planned": "not sent yet: run it again",
        "refused": "refused",
    }
    for state, meaning in words.items():
        if states[state]:
            say(f"{states[state]:,} {meaning}")
    if not states:
        say("nothing was planned")
    for row in outbox.rows("refused"):
        say(f"  {row.event_id} ({row.customer}): {row.answer}")
    return not states or set(states) == {"confirmed"}


def _target(system: System, *, meter: str | None, code: str, needs_key: bool) -> Target:
    def key(name: str) -> str:
        value = variable(name)
        if needs_key and not value:
            raise ConfigError(f"{name} is missing: set it in the environment or in .env")
        return value or "none"

    with _extra(system):
        if system is System.STRIPE:
            from widget_analytics._push.stripe_target import StripeTarget  # noqa: PLC0415 (an extra)

            return StripeTarget(key("STRIPE_API_KEY"), meter=meter, url=variable("STRIPE_API_URL") or None)
        if system is System.LAGO:
            from widget_analytics._push.lago_target import LagoTarget  # noqa: PLC0415 (an extra)

            return LagoTarget(key("LAGO_API_KEY"), code=code, url=variable("LAGO_API_URL") or None)
        from widget_analytics._push.openmeter_target import OpenMeterTarget  # noqa: PLC0415 (an extra)

        return OpenMeterTarget(key("OPENMETER_API_KEY"), event_type=code, url=variable("OPENMETER_URL") or None)


@contextmanager
def _extra(system: System) -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise MissingExtra(f"push {system}", "its package", system) from None
