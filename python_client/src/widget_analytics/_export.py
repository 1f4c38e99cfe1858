"""The command ``export``: from the database to a file, with progress on standard error."""

from __future__ import annotations

import sys
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from widget_analytics._atomic import atomic_file
from widget_analytics._formats import FORMATS
from widget_analytics._lines import batches, cells, texts, to_lines
from widget_analytics._manifest import FileFacts, Manifest, manifest_path
from widget_analytics._parquet import ROWS_IN_GROUP, require_pyarrow
from widget_analytics._selection import Totals, utc
from widget_analytics.errors import OutputError, UsageError
from widget_analytics.models import Call

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from widget_analytics._reader import Reader
    from widget_analytics._selection import ExportRow, Kind, Selection
    from widget_analytics.periods import Period


class Format(StrEnum):
    """How rows are written."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


def check_output(output: Path | None, file_format: Format, *, with_manifest: bool) -> None:
    """Refuse what cannot be written, before anything is asked.

    Raises:
        UsageError: Parquet, which is not written from front to end, or a manifest has no file to be.
        MissingExtra: Parquet cannot be written here.
    """
    is_file = output is not None and (output.is_file() or not output.exists())
    if file_format is Format.PARQUET and not is_file:
        raise UsageError("--format parquet cannot be streamed: name a file, --output calls.parquet")
    if with_manifest and not is_file:
        raise UsageError("--manifest lies beside a file: name one, --output calls.csv")
    if file_format is Format.PARQUET:
        require_pyarrow()


def export_rows(
    reader: Reader,
    selection: Selection,
    *,
    file_format: Format,
    output: Path | None,
    with_manifest: bool = False,
) -> None:
    """Write the rows to ``output``, or to standard output where that is None.

    Raises:
        WidgetAnalyticsError: the rows could not be read.
        OutputError: the file could not be written.
    """
    statement = reader.statement(selection.month) if with_manifest and selection.month else None
    kind, period = selection.kind, selection.period
    facts: list[FileFacts] | None = [] if with_manifest else None
    with closing(reader.batches(selection.query)) as lines:
        totals = _write(lines, kind, period=period, file_format=file_format, output=output, facts=facts)
    if facts and output:
        manifest = Manifest(
            file=facts[0],
            selection=selection,
            totals=totals.to_json(),
            statement=statement.content_hash if statement else None,
            created_at=utc(datetime.now(UTC)),
            project=reader.host,
        )
        with write_errors(output):
            manifest.write(manifest_path(output))
    _tell(totals, kind, output)


def write_rows(
    rows: Iterator[ExportRow],
    kind: Kind,
    *,
    period: Period,
    file_format: Format,
    output: Path | None,
) -> None:
    """Write rows, wherever they come from, and tell what they add up to.

    Raises:
        WidgetAnalyticsError: the rows could not be read.
        OutputError: the file could not be written.
    """
    lines = to_lines(kind.model, map(texts, map(attrgetter(*kind.model.columns()), rows)))
    totals = _write(batches(lines, ROWS_IN_GROUP), kind, period=period, file_format=file_format, output=output)
    _tell(totals, kind, output)


def _write(
    lines: Iterator[list[bytes]],
    kind: Kind,
    *,
    period: Period,
    file_format: Format,
    output: Path | None,
    facts: list[FileFacts] | None = None,
) -> Totals:
    """Write, and give what the rows add up to; ``facts`` gets those of the file, where somebody wants to know."""
    # Asked before anything is written: what goes wrong at once leaves no header without rows.
    lines = chain(list(islice(lines, 1)), lines)
    totals = Totals()
    with (
        write_errors(output or "standard output"),
        progress_bar(period, "reading") as progress,
        _open(output) as file,
    ):
        FORMATS[file_format].write(kind.model, counted(lines, kind, totals, progress), file)
        if facts is not None:
            # From the disk, before the file gets its name: what is hashed is what was stored.
            file.flush()
            with Path(file.name).open("rb") as stored:
                facts.append(FileFacts.of(file_format.value, stored))
    return totals


def _tell(totals: Totals, kind: Kind, output: Path | None) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        totals.sentence(kind) + (f" -> {output}" if output else ""), markup=False
    )


@contextmanager
def write_errors(name: Path | str) -> Iterator[None]:
    """Turn the system's errors inside into ours."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {name}: {error.strerror or error}") from error


@contextmanager
def _open(output: Path | None) -> Iterator[BinaryIO]:
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        with atomic_file(output) as file:
            yield file


def counted(batches: Iterable[list[bytes]], kind: Kind, totals: Totals, progress: ByTime) -> Iterator[list[bytes]]:
    """Pass lines on, and add them up on the way."""
    for batch in batches:
        totals.add(kind, batch)
        if batch and kind.model is Call:
            (last,) = cells(batch[-1:])
            progress.reached(datetime.fromisoformat(last[_STARTED_AT]), totals.rows)
        else:
            progress.reached(None, totals.rows)
        yield batch


_STARTED_AT = Call.columns().index("started_at")


class ByTime:
    """A bar that follows the calls' start through the period: how many there will be, nobody knows beforehand."""

    def __init__(self, period: Period, bar: Progress, what: str) -> None:
        self._period = period
        self._bar = bar
        self._task = bar.add_task(what, total=(period.end - period.start).total_seconds(), rows=0)

    def reached(self, moment: datetime | None, rows: int) -> None:
        """Show that so many rows have been read, up to a moment of the period where they are in its order."""
        if moment is None:
            self._bar.update(self._task, total=None, rows=rows)
        else:
            self._bar.update(self._task, completed=(moment - self._period.start).total_seconds(), rows=rows)


@contextmanager
def progress_bar(period: Period, what: str) -> Iterator[ByTime]:
    """Show a bar on standard error while rows are read, if that is a terminal."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        yield ByTime(period, bar, what)
