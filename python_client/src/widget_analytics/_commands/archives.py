"""``archive`` and ``bill``: old months in Parquet files."""

from __future__ import annotations

from typing import Annotated

import typer

from widget_analytics._archive import commands as archives
from widget_analytics._archive.engines import EngineName
from widget_analytics._exit import one_line_errors
from widget_analytics._export import Format, check_output
from widget_analytics._options import FileFormat, Output, file_of, first_of
from widget_analytics._selection import KINDS, Detail
from widget_analytics.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.command()(archive)
    app.command()(bill)


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
        first_of(month)
        archives.archive(month, to)


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
            first_of(month)
        file = file_of(output)
        check_output(file, file_format, with_manifest=False)
        archives.bill(archive, month, detail, file_format=file_format, output=file, engine=engine)
