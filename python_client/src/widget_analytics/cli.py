"""The command ``widget-analytics``: what each subcommand takes and prints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from widget_analytics import __version__
from widget_analytics._archive import commands as archives
from widget_analytics._archive.engines import EngineName
from widget_analytics._deadline import within
from widget_analytics._exit import CODES_HELP, NOT_EQUAL, OTHER_ALARM, STATUS_CODES, UNWELL, one_line_errors
from widget_analytics._export import Format, check_output, export_rows
from widget_analytics._options import check_closed_detail, instant_of, period_of, selection_of, settled, source
from widget_analytics._report import write_report
from widget_analytics._selection import KINDS, Detail
from widget_analytics._verify import MOST_DIFFERENCES, verify_file
from widget_analytics.client import WidgetAnalytics
from widget_analytics.errors import UsageError
from widget_analytics.models import CleanupResult, CleanupRun
from widget_analytics.status import Status, Thresholds

# Seconds that a monitor waits at most for `status`.
_PATIENCE = 8.0

app = typer.Typer(
    name="widget-analytics",
    help="Export the usage that you bill, and keep an eye on how it is collected.\n\n"
    "Reads SUPABASE_URL and SUPABASE_SECRET_KEY from the environment, else from the nearest .env file.",
    epilog=CODES_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command and exit with its code."""
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


Direct = Annotated[
    bool,
    typer.Option("--direct", help="Read from the database of SUPABASE_DB_URL, not over the API. Needs psycopg."),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", metavar="URL", help="--direct, from this database (others may see its password)."),
]


Month = Annotated[str, typer.Option(metavar="YYYY-MM", help="A billing month.")]
FileFormat = Annotated[Format, typer.Option("--format", help="For spreadsheets, programs or data warehouses.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; standard output by default.")
]


@app.command()
def export(
    month: Annotated[str | None, typer.Option(metavar="YYYY-MM", help="A billing month.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="First instant: a date or timestamp, in UTC.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="First instant after: a date or timestamp, in UTC.")
    ] = None,
    widget: Annotated[
        list[UUID] | None, typer.Option(metavar="ID", help="Only this widget; may be repeated. All by default.")
    ] = None,
    detail: Annotated[
        Detail, typer.Option(help="What a row is; the last three are of a closed month, by --month.")
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
    statement-lines: the calls on it. adjustments: those of them that late arrivals changed in earlier months.

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
        file = None if output is None or str(output) == "-" else output
        period = period_of(month, start, end)
        moment = None if as_of is None else instant_of("--as-of", as_of)
        if KINDS[detail].is_closed:
            check_closed_detail(detail, month, moment)
        check_output(file, file_format, with_manifest=manifest)
        with source(direct, database_url) as reader:
            selection = selection_of(reader, detail, month, period, widgets=widget, as_of=moment)
            if manifest and not KINDS[detail].is_closed:
                selection = replace(selection, as_of=settled(reader, moment))
            export_rows(reader, selection, file_format=file_format, output=file, with_manifest=manifest)


@app.command()
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


@app.command()
def report(
    month: Month,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The HTML file to write.")],
) -> None:
    """Write a month's report as one HTML page, to read and to print.

    Usage by day and widget, how the ends of calls are known, and what is charged. A closed month's figures are its
    statement's. Nothing in the page is loaded from elsewhere. Needs matplotlib: the extra `report`.
    """
    with one_line_errors():
        period_of(month, None, None)
        with WidgetAnalytics() as client:
            write_report(client, month, output)


@app.command()
def cleanup(
    stale_after: Annotated[
        float, typer.Option("--stale-after", metavar="MINUTES", min=0, help="Minutes without a sign of life.")
    ] = 30,
) -> None:
    """Complete calls that have been open for too long, now.

    The database does this by itself every 30 minutes. Doing it more often, or twice at once, does no harm.
    """
    with one_line_errors(), WidgetAnalytics() as client:
        result = client.complete_stale_sessions(timedelta(minutes=stale_after))
        typer.echo(_counts(result))


@app.command()
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
        now = within(_PATIENCE, lambda: client.status(limits))
        typer.echo(json.dumps(asdict(now), default=str, indent=2) if as_json else "\n".join(_status_lines(now)))
        problems = {alarm.message: alarm.alarm for alarm in now.alarms}
        for message in problems:
            typer.echo(f"widget-analytics: {' '.join(message.split())}", err=True)
        if problems:
            codes = (code for alarm, code in STATUS_CODES.items() if alarm in problems.values())
            raise typer.Exit(next(codes, OTHER_ALARM))


@app.command()
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


@app.command()
def archive(
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="A closed month that is over for 35 days.")],
    to: Annotated[str, typer.Option(metavar="PLACE", help="A folder, or a URL such as s3://bucket/folder.")],
) -> None:
    """Move a closed month's events from the database to Parquet files. Its calls stay, and are copied there too.

    Not one event is deleted before its file was read back and compared with the database, by count and by SHA-256. If
    interrupted, run it again: it resumes. Run again later, it writes the calls of those months anew that a later
    statement has adjusted.

    Needs SUPABASE_DB_URL, the database's address as `postgres` (not behind a transaction pooler), and the extra
    `archive`; for s3:// also `s3`.
    """
    with one_line_errors():
        period_of(month, None, None)
        archives.archive(month, to)


@app.command()
def bill(
    archive: Annotated[str, typer.Option(metavar="PLACE", help="Where `archive` moved months to.")],
    month: Annotated[
        str | None, typer.Option(metavar="YYYY-MM", help="A month in the archive; all that there are by default.")
    ] = None,
    detail: Annotated[Detail, typer.Option(help="What a row is: usage or calls.")] = Detail.USAGE,
    file_format: FileFormat = Format.CSV,
    output: Output = None,
    engine: Annotated[
        EngineName, typer.Option(help="What computes it: this machine, or Apache Spark.")
    ] = EngineName.DUCKDB,
) -> None:
    """Sum up archived months as they were charged, from their files: what `export` says of them.

    Needs no database. The same SQL runs on DuckDB (the extra `archive`) and on Apache Spark (the extra `spark`).
    """
    with one_line_errors():
        if KINDS[detail].is_closed:
            raise UsageError("--detail must be usage or calls: statements stay in the database, see `export`")
        if month is not None:
            period_of(month, None, None)
        file = None if output is None or str(output) == "-" else output
        check_output(file, file_format, with_manifest=False)
        archives.bill(archive, month, detail, file_format=file_format, output=file, engine=engine)


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
    yield f"{now.month.start:%Y-%m} so far   {calls}, {now.month_seconds:,f} billable seconds"
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
