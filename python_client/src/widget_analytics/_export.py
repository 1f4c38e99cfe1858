"""The command ``export``: from the client to a file, with progress on standard error."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from widget_analytics._atomic import atomic_file
from widget_analytics._copied import cells
from widget_analytics._exit import OutputError, UsageError
from widget_analytics._formats import FORMATS
from widget_analytics._manifest import FileFacts, Manifest, manifest_path
from widget_analytics._parquet import require_pyarrow
from widget_analytics._selection import Detail, Totals, utc
from widget_analytics.client import WidgetAnalytics
from widget_analytics.models import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from widget_analytics._formats import CopyWriter
    from widget_analytics._selection import ExportRow, Kind, Selection, Source
    from widget_analytics.periods import Period

    _Write: TypeAlias = Callable[[BinaryIO, Totals, "ByTime"], None]


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
    client: Source,
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
    statement = client.statement(selection.month) if with_manifest and selection.month else None

    def write_manifest(facts: FileFacts, totals: Totals, path: Path) -> None:
        Manifest(
            file=facts,
            selection=selection,
            totals=totals.to_json(),
            statement=statement.content_hash if statement else None,
            created_at=utc(datetime.now(UTC)),
            project=client.host,
        ).write(manifest_path(path))

    kind, write_copied = selection.kind, FORMATS[file_format].write_copied
    with ExitStack() as until_written:
        write: _Write
        if write_copied and selection.detail is Detail.CALLS and not isinstance(client, WidgetAnalytics):
            batches = until_written.enter_context(closing(client.call_batches(selection)))
            write = _write_batches(batches, kind, write_copied)
        else:
            write = _write_rows(selection.rows(client), kind, file_format)
        _write_file(
            write,
            kind,
            period=selection.period,
            file_format=file_format,
            output=output,
            then=write_manifest if with_manifest else None,
        )


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
    _write_file(
        _write_rows(rows, kind, file_format), kind, period=period, file_format=file_format, output=output, then=None
    )


def _write_rows(rows: Iterator[ExportRow], kind: Kind, file_format: Format) -> _Write:
    # Asked before anything is written: what goes wrong at once leaves no header without rows.
    rows = chain(list(islice(rows, 1)), rows)

    def write(file: BinaryIO, totals: Totals, progress: ByTime) -> None:
        FORMATS[file_format].write(kind.model, counted(rows, totals, progress), file)

    return write


def _write_batches(batches: Iterator[list[bytes]], kind: Kind, write_copied: CopyWriter) -> _Write:
    batches = chain(list(islice(batches, 1)), batches)

    def write(file: BinaryIO, totals: Totals, progress: ByTime) -> None:
        write_copied(kind.model, counted_lines(batches, totals, progress), file)

    return write


def _write_file(
    write: _Write,
    kind: Kind,
    *,
    period: Period,
    file_format: Format,
    output: Path | None,
    then: Callable[[FileFacts, Totals, Path], None] | None,
) -> None:
    """Write, and tell what the rows add up to; ``then`` is told of the finished file."""
    totals = Totals()
    with write_errors(output or "standard output"):
        with progress_bar(period, "reading") as progress, _open(output) as file:
            write(file, totals, progress)
            facts = _facts(file_format, file) if then else None
        if facts and output and then:
            then(facts, totals, output)
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        totals.sentence(kind) + (f" -> {output}" if output else ""), markup=False
    )


def _facts(file_format: Format, file: BinaryIO) -> FileFacts:
    # From the disk, before the file gets its name: what is hashed is what was stored.
    file.flush()
    with Path(file.name).open("rb") as stored:
        return FileFacts.of(file_format.value, stored)


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


def counted(rows: Iterator[ExportRow], totals: Totals, progress: ByTime) -> Iterator[ExportRow]:
    """Pass the rows on, and add them up on the way."""
    for row in rows:
        totals.add(row)
        progress.at(row, totals.rows)
        yield row


def counted_lines(batches: Iterator[list[bytes]], totals: Totals, progress: ByTime) -> Iterator[list[bytes]]:
    """The same for calls as COPY writes them."""
    started_at = Call.columns().index("started_at")
    for batch in batches:
        totals.add_copied(batch)
        (last,) = cells(batch[-1:])
        progress.reached(datetime.fromisoformat(last[started_at]), totals.rows)
        yield batch


class ByTime:
    """A bar that follows the calls' start through the period: how many there will be, nobody knows beforehand."""

    def __init__(self, period: Period, bar: Progress, what: str) -> None:
        self._period = period
        self._bar = bar
        self._task = bar.add_task(what, total=(period.end - period.start).total_seconds(), rows=0)

    def at(self, row: ExportRow, rows: int) -> None:
        """Show that so many rows have been read, the last one this."""
        if rows % 100 == 0:
            if isinstance(row, Call):
                self.reached(row.started_at, rows)
            else:
                self._bar.update(self._task, total=None, rows=rows)

    def reached(self, moment: datetime, rows: int) -> None:
        """Show that so many rows have been read, up to a moment of the period."""
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
