"""The command ``widget-analytics``. Its verbs are in `_commands`, in groups that register themselves."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from widget_analytics import __version__
from widget_analytics._commands import (
    archives,
    calls,
    closing,
    exports,
    health,
    plans,
    providers,
    pushes,
    reconciling,
    widgets,
)
from widget_analytics._exit import CODES_HELP

app = typer.Typer(
    name="widget-analytics",
    help="Bill the usage of call widgets, and keep an eye on how it is collected.\n\n"
    "Reads SUPABASE_URL and SUPABASE_SECRET_KEY from the environment, else from the nearest .env file.",
    epilog=CODES_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command and exit with its code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names are in any alphabet: what the terminal's encoding lacks is no reason to stop half-way.
        sys.stdout.reconfigure(errors="backslashreplace")
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"widget-analytics {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


for verbs in (exports, closing, calls, plans, widgets, health, archives, pushes, providers, reconciling):
    verbs.register(app)
