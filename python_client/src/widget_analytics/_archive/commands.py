"""What the commands ``archive`` and ``bill`` print, with progress on standard error."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from widget_analytics._archive.bill import archived_calls, archived_months, archived_usage
from widget_analytics._archive.files import require_duckdb
from widget_analytics._archive.place import Place
from widget_analytics._database import connected
from widget_analytics._export import write_rows
from widget_analytics._selection import KINDS, Detail
from widget_analytics._settings import DATABASE_URL, database_url
from widget_analytics.errors import InputError, MissingExtra
from widget_analytics.periods import Period

if TYPE_CHECKING:
    from pathlib import Path

    from widget_analytics._archive.engines import EngineName
    from widget_analytics._export import Format


def archive(month: str, url: str) -> None:
    """Move a month to the archive at a place."""
    place = Place(url)
    require_duckdb()
    MissingExtra.unless_installed("psycopg", "an archive", "archive")
    from widget_analytics._archive.move import archive_month, refuse_pooler  # noqa: PLC0415 (needs psycopg)

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    connect = partial(connected, database_url(), setting=DATABASE_URL, role="the owner of the tables, `postgres`")
    with connect() as connection, console.status("", spinner="line") as status:
        with connect() as other:
            refuse_pooler(connection, other)
        archived = archive_month(connection, place, month, on_step=status.update)
    plural = "" if archived.events == 1 else "s"
    console.print(f"{month}: {archived.events:,} event{plural} left the database for {place.url}", markup=False)
    if archived.bills:
        console.print(f"calls and charges written: {', '.join(archived.bills)}", markup=False)


def bill(
    url: str, month: str | None, detail: Detail, *, file_format: Format, output: Path | None, engine: EngineName
) -> None:
    """Write the rows of a month, or of all months that are there."""
    place = Place(url)
    months = archived_months(place)
    if month is not None and month not in months:
        raise InputError(f"{place.url} has no archive of {month}")
    wanted = months if month is None else [month]
    read = archived_calls if detail is Detail.CALLS else archived_usage
    write_rows(
        read(place, wanted, engine=engine),
        KINDS[detail],
        period=Period(Period.month(wanted[0]).start, Period.month(wanted[-1]).end),
        file_format=file_format,
        output=output,
    )
