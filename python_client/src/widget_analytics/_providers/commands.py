"""The commands ``providers …``, with progress on standard error."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console

from widget_analytics._exit import one_line_errors
from widget_analytics._options import instant_of
from widget_analytics._providers.pull import SOURCES, WITHOUT_LIST, Pulled, pull
from widget_analytics._rest import RestTransport
from widget_analytics._settings import Settings
from widget_analytics.errors import UsageError

providers = typer.Typer(no_args_is_help=True, help="What call providers themselves say of calls.")


# A group's commands are named only where there is more than one, or a callback.
@providers.callback()
def _providers() -> None:
    pass


@providers.command("pull")
def pull_command(
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help=f"One of {', '.join(SOURCES)}.")],
    since: Annotated[str, typer.Option(metavar="TIME", help="Calls from then on: a date or timestamp, in UTC.")],
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Calls up to then: a date or timestamp, in UTC; now by default.")
    ] = None,
) -> None:
    """Record the calls that the provider's own list has and no webhook brought.

    Most of these webhooks are delivered at most once. The list is read with the provider's key, such as VAPI_API_KEY.
    A call recorded already stays as it is, so run this daily, or at any time.

    LiveKit has no such list.
    """
    with one_line_errors():
        if provider in WITHOUT_LIST:
            raise UsageError(f"{provider} has no list to pull: {WITHOUT_LIST[provider]}")
        if provider not in SOURCES:
            raise UsageError(f"there is no provider {provider!r}: name one of {', '.join(SOURCES)}")
        start = instant_of("--since", since)
        end = datetime.now(UTC) if until is None else instant_of("--until", until)
        if end <= start:
            raise UsageError("--until must be after --since")
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        transport = RestTransport(Settings.load(), origin=None, timeout=60, attempts=4, page_size=1)
        try:
            with console.status(f"{provider}: asking", spinner="line") as status:
                done = pull(
                    SOURCES[provider], transport, start, end, on_step=lambda now: status.update(_line(provider, now))
                )
        finally:
            transport.close()
        for refusal in done.refusals:
            console.print(f"{provider}: {refusal}", markup=False)
        console.print(_line(provider, done), markup=False)


def _line(provider: str, pulled: Pulled) -> str:
    return f"{provider}: {pulled.sentence()}"
