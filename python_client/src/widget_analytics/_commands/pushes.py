"""The command ``push``: bills out, to a billing system, each charge once."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from widget_analytics._exit import INCOMPLETE, one_line_errors
from widget_analytics._options import first_of
from widget_analytics._push.charges import customers_of, with_customers
from widget_analytics._push.outbox import Outbox, PushRow
from widget_analytics._push.push import Pusher
from widget_analytics._push.target import Planned, Target
from widget_analytics._settings import variable
from widget_analytics.client import WidgetAnalytics
from widget_analytics.errors import ConfigError, MissingExtra, UsageError

_MEANINGS = {
    "confirmed": "confirmed",
    "accepted": "taken, but not seen there yet: run it again after some minutes",
    "sending": "sent without an answer: run it again",
    "planned": "not sent yet: run it again",
    "unclear": "not known to be there or not, and not sent again: run it again after a quarter of an hour, it looks",
    "refused": "refused, and not there: mend the cause and run it again",
}


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
    account: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Your name for the account, where there are several. Else test or live at Stripe, or the server.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would still be sent, one JSON object a line.")
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
        first = first_of(month)
        if meter is not None and system is not System.STRIPE:
            raise UsageError("--meter is of stripe")
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        with WidgetAnalytics() as client:
            if status:
                complete = _report(Outbox(client._transport, system, account, first), typer.echo)
            elif client.statement(first) is None:
                raise UsageError(f"--month: {month} is not closed; only a closed month's charges are final")
            else:
                known = None if customers is None else customers_of(customers)
                target = _target(system, meter=meter, code=code, account=account, needs_key=not dry_run)
                outbox = Outbox(client._transport, system, target.account, first)
                planned = target.plan(with_customers(outbox.charges(), known))
                if dry_run:
                    _print(planned, {row.event_id: row for row in outbox.rows() if row.state != "refused"})
                    return
                with console.status("", spinner="line") as line:
                    Pusher(outbox, target, say=line.update).push(planned)
                complete = _report(outbox, lambda text: console.print(text, markup=False))
        if not complete:
            raise typer.Exit(INCOMPLETE)


def _print(planned: list[Planned], frozen: Mapping[str, PushRow]) -> None:
    """Print what the next run would send: what is frozen goes as it is, and what was taken goes no more."""
    taken = sum(row.state not in ("planned", "sending") for row in frozen.values())
    typer.echo(f"{len(planned) - taken:,} to be sent, {taken:,} sent already", err=True)
    for each in planned:
        row = frozen.get(each.charge.event_id)
        if row is None:
            refused = {"refused": each.refusal} if each.refusal else {}
            typer.echo(json.dumps({"event_id": each.charge.event_id, **refused, "payload": each.payload}))
        elif row.state in ("planned", "sending"):
            typer.echo(json.dumps({"event_id": row.event_id, "payload": row.payload}))


def _report(outbox: Outbox, say: Callable[[str], object]) -> bool:
    """Say how far it is, account by account, and whether that is all the way."""
    states: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: dict[str, list[str]] = defaultdict(list)
    for row in outbox.rows():
        states[row.account][row.state] += 1
        if row.state in ("refused", "unclear"):
            reasons[row.account].append(f"    {row.event_id} ({row.customer}), {row.state}: {row.answer}")
    for account, counts in states.items():
        say(f"account {account}:")
        for state, meaning in _MEANINGS.items():
            if counts[state]:
                say(f"  {counts[state]:,} {meaning}")
        for line in reasons[account]:
            say(line)
    if not states:
        say("nothing was planned")
    return all(set(counts) == {"confirmed"} for counts in states.values())


def _target(system: System, *, meter: str | None, code: str, account: str | None, needs_key: bool) -> Target:
    def key(name: str) -> str:
        value = variable(name)
        if needs_key and not value:
            raise ConfigError(f"{name} is missing: set it in the environment or in .env")
        return value or "none"

    with _extra(system):
        if system is System.STRIPE:
            from widget_analytics._push.stripe_target import StripeTarget  # noqa: PLC0415 (an extra)

            return StripeTarget(
                key("STRIPE_API_KEY"), meter=meter, account=account, url=variable("STRIPE_API_URL") or None
            )
        if system is System.LAGO:
            from widget_analytics._push.lago_target import LagoTarget  # noqa: PLC0415 (an extra)

            return LagoTarget(key("LAGO_API_KEY"), code=code, account=account, url=variable("LAGO_API_URL") or None)
        from widget_analytics._push.openmeter_target import OpenMeterTarget  # noqa: PLC0415 (an extra)

        url = variable("OPENMETER_URL") or None
        return OpenMeterTarget(key("OPENMETER_API_KEY"), event_type=code, account=account, url=url)


@contextmanager
def _extra(system: System) -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise MissingExtra(f"push {system}", "its package", system) from None
