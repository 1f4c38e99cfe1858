"""What the commands ``archive``, ``restore`` and ``bill`` print, with progress on standard error."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from widget_analytics._archive.database import owner_connection
from widget_analytics._archive.manifest import ArchivedMonth
from widget_analytics._archive.place import Place
from widget_analytics._export import write_rows
from widget_analytics._parquet import require_pyarrow
from widget_analytics._selection import KINDS, Detail
from widget_analytics.periods import Period

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from widget_analytics._archive.engines import EngineName
    from widget_analytics._export import Format


def archive(month: str, url: str) -> None:
    """Move a month to the archive at a place."""
    place = Place(url)
    require_pyarrow()
    with owner_connection() as connection, _steps() as bar:
        # Here, as it needs what only the extra brings.
        from widget_analytics._archive.move import archive_month  # noqa: PLC0415

        task = bar.add_task("")
        archived = archive_month(
            connection,
            place,
            month,
            on_step=lambda step, number, of: bar.update(task, description=step, completed=number, total=of),
        )
    manifest, plural = archived.manifest, "" if archived.released == 1 else "s"
    _say(
        f"{month}: {archived.released:,} event{plural} left the database now; "
        f"{place.url} holds {manifest.events:,}, in {sum(file.bytes for file in manifest.files):,} bytes, "
        f"as of {manifest.as_of}"
    )
    if archived.late_events:
        _say(f"{archived.late_events:,} events came late for archived sessions: widget-analytics restore")


def restore(sessions: list[tuple[UUID, str]] | None) -> None:
    """Bring sessions back."""
    with owner_connection() as connection:
        from widget_analytics._archive.restore import restore_sessions  # noqa: PLC0415

        is_idle = True
        for widget_id, session_id, events in restore_sessions(connection, sessions):
            is_idle = False
            # As Python writes it: a session id is the sender's to choose, and must not steer a terminal.
            _say(f"{widget_id} {session_id!r}: {events:,} events" + ("" if events else ", is not in the archive"))
        if is_idle:
            _say("no events wait for a session in the archive")


def bill(url: str, month: str, detail: Detail, *, file_format: Format, output: Path | None, engine: EngineName) -> None:
    """Compute and write a month's rows."""
    from widget_analytics._archive.bill import archived_calls, archived_usage  # noqa: PLC0415

    place = Place(url)
    manifest = ArchivedMonth.read(place, month)
    read = archived_calls if detail is Detail.CALLS else archived_usage
    period = Period(datetime.fromisoformat(manifest.period_start), datetime.fromisoformat(manifest.period_end))
    write_rows(
        read(place, manifest, engine=engine), KINDS[detail], period=period, file_format=file_format, output=output
    )


def _steps() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _say(line: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(line, markup=False)
