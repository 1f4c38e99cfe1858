"""``export``, ``verify`` and ``report``: bills as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from widget_analytics._commands.finding import WidgetsOption, find_ids, find_scope
from widget_analytics._exit import NOT_EQUAL, one_line_errors
from widget_analytics._export import Format, check_output, export_rows
from widget_analytics._options import (
    FileFormat,
    Output,
    check_closed_detail,
    file_of,
    first_of,
    instant_of,
    period_of,
    selection_of,
    settled,
    source,
)
from widget_analytics._report import write_report
from widget_analytics._selection import KINDS, Detail
from widget_analytics._verify import MOST_DIFFERENCES, verify_file
from widget_analytics.client import WidgetAnalytics
from widget_analytics.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.command()(export)
    app.command()(verify)
    app.command()(report)


Direct = Annotated[
    bool,
    typer.Option("--direct", help="Read from the database of SUPABASE_DB_URL, not over the API. Needs psycopg."),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", metavar="URL", help="--direct, from this database (others may see its password)."),
]
Month = Annotated[str, typer.Option(metavar="YYYY-MM", help="A billing month.")]


def export(
    month: Annotated[str | None, typer.Option(metavar="YYYY-MM", help="A billing month.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="First instant: a date or timestamp, in UTC.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="First instant after: a date or timestamp, in UTC.")
    ] = None,
    widget: WidgetsOption = None,
    detail: Annotated[
        Detail, typer.Option(help="What a row is; the last three are of one month, by --month.")
    ] = Detail.USAGE,
    file_format: FileFormat = Format.CSV,
    output: Output = None,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="TIME", help="Count only events received by then, to make a past bill again."),
    ] = None,
    manifest: Annotated[
        bool, typer.Option("--manifest", help="Write FILE.manifest.json too, by which `verify` checks the file.")
    ] = False,
    direct: Direct = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Export calls or usage of a period, or a closed month, as CSV, JSON Lines or Parquet.

    calls: a row for each call. usage: for each widget. statements: what a closed month charges each widget.
    statement-lines: the calls on it. adjustments: those of them that late arrivals changed in earlier months; of an
    open month those that are pending.

    Of a closed month, usage and calls are what was charged; of an open one what the ledger says now. Standard error
    says which of the two a file holds, as does the column is_closed.

    A call belongs to the period in which it started; --to itself is outside. --month is in the time zone that the
    database bills in, UTC unless it says otherwise.

    FILE appears, or is replaced, only when it is complete.

    Times are UTC, seconds exact. CSV puts an apostrophe before text that could be taken for a formula.

    JSON Lines and Parquet keep ids to the letter.

    With --manifest, calls and usage are as of a minute ago by the server's clock, unless --as-of names an earlier
    moment: only what is settled can be verified.

    With --direct the same file comes many times as fast, from the database itself.
    """
    with one_line_errors():
        file = file_of(output)
        period = period_of(month, start, end)
        moment = None if as_of is None else instant_of("--as-of", as_of)
        if KINDS[detail].is_closed:
            check_closed_detail(detail, month, moment)
        check_output(file, file_format, with_manifest=manifest)
        with source(direct, database_url) as reader:
            selection = selection_of(reader, detail, month, period, widgets=find_ids(reader, widget), as_of=moment)
            if manifest and not KINDS[detail].is_closed:
                selection = replace(selection, as_of=settled(reader, moment))
            if manifest and selection.is_pending:
                raise UsageError(
                    f"--manifest: {month} is open, and what is pending changes; `verify` could not check it"
                )
            export_rows(reader, selection, file_format=file_format, output=file, with_manifest=manifest)


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `export --manifest` wrote.")],
    direct: Direct = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Check an exported file against its manifest and against the database.

    Reads the same rows again, as of the same moment, and compares them one by one. Exits with 1, and names the first
    differences, where the file, its manifest and the database do not agree.
    """
    with one_line_errors(), source(direct, database_url) as reader:
        verified = verify_file(reader, file)
        if verified.manifest.project != reader.host:
            typer.echo(f"exported from {verified.manifest.project}, compared with {reader.host}", err=True)
        if not verified.differences:
            typer.echo(f"{file}: equal: {verified.sentence()}")
            return
        for difference in verified.differences:
            typer.echo(f"{file}: {difference}")
        more = " or more" if len(verified.differences) >= MOST_DIFFERENCES else ""
        typer.echo(f"widget-analytics: {file} differs in {len(verified.differences)}{more} points", err=True)
        raise typer.Exit(NOT_EQUAL)


def report(
    month: Month,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The HTML file to write; - for standard output.")
    ],
    customer: Annotated[str | None, typer.Option(metavar="REF", help="Only this customer's widgets.")] = None,
    owner: Annotated[str | None, typer.Option(metavar="EMAIL|ID", help="Only this owner's widgets.")] = None,
    widget: WidgetsOption = None,
) -> None:
    """Write a month's report as one HTML page, to read, to print and to attach to an invoice.

    Of all widgets, or of one customer's: what each is charged, what changed in earlier months, usage by day, how the
    ends of calls are known. A closed month's figures are its statement's. Nothing in the page is loaded from elsewhere.

    Figures are rounded as people read them; `export` has the exact ones. Needs matplotlib: the extra `report`.
    """
    with one_line_errors():
        first_of(month)
        with WidgetAnalytics() as client:
            write_report(client, month, file_of(output), find_scope(client, customer, owner, widget))
