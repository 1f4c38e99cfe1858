"""What a verb that changes something shares with the others: it shows what will happen, and asks."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from widget_analytics._exit import NOT_DONE
from widget_analytics.errors import UsageError

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, as in scripts.")]


def goes_ahead(lines: Iterable[str], question: str, *, dry_run: bool, yes: bool) -> bool:
    """Show what will happen, and say whether it is to happen.

    Raises:
        UsageError: nobody is there to be asked.
        typer.Exit: the answer is no.
    """
    for line in lines:
        typer.echo(line)
    if dry_run:
        typer.echo("nothing was changed (--dry-run)")
        return False
    if yes:
        return True
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("nothing was changed: to be asked takes a terminal; in a script add --yes")
    if typer.confirm(question, err=True):
        return True
    typer.echo("nothing was changed", err=True)
    raise typer.Exit(NOT_DONE)
