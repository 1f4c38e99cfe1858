"""The command ``export``: from the database to a file, with progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from widget_analytics._atomic import atomic_file
from widget_analytics._formats import FORMATS
from widget_analytics._lines import cells, lines_of, utc
from widget_analytics._manifest import FileFacts, Manifest, manifest_path
from widget_analytics._parquet import ROWS_IN_GROUP, require_pyarrow
from widget_analytics._reader import Reader
from widget_analytics._selection import ExportRow, Kind, Selection, Totals
from widget_analytics._state import Pending, state_of
from widget_analytics.errors import OutputError, UsageError
from widget_analytics.models import Call
from widget_analytics.periods import Period

#: Told how many rows have been read, and up to which moment where they are in its order.
Reached: TypeAlias = Callable[[datetime | None, int], None]


class Format(StrEnum):
    """How rows are written."""

    CSV = "csv"
    EXCEL = "excel"
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
    reader: Reader, selection: Selection, *, file_format: Format, output: Path | None, with_manifest: bool = False
) -> None:
    """Write the rows to ``output``, or to standard output where that is None.

    Raises:
        WidgetAnalyticsError: the rows could not be read.
        OutputError: the file could not be written.
    """
    statement = reader.statement(selection.month) if with_manifest and selection.month else None
    kind, period = selection.kind, selection.period
    # Asked first: of a connection that reads rows nothing else can be asked.
    state, pending = state_of(reader, selection), Pending(kind)
    with closing(selection.lines(reader)) as lines:
        written = _Written(kind, file_format, output)
        written.write(pending.noted(lines), period, with_facts=with_manifest)
    if written.facts and output:
        manifest = Manifest(
            file=written.facts,
            selection=selection,
            totals=written.totals.to_json(),
            statement=statement.content_hash if statement else None,
            created_at=utc(datetime.now(UTC)),
            project=reader.host,
        )
        with write_errors(output):
            manifest.write(manifest_path(output))
    written.tell()
    _tell(state + pending.sentence())


def write_rows(
    rows: Iterator[ExportRow], kind: Kind, *, period: Period, file_format: Format, output: Path | None
) -> None:
    """Write rows, wherever they come from and without labels, and tell what they add up to."""
    kind = replace(kind, is_labelled=False)
    written = _Written(kind, file_format, output)
    written.write(lines_of(kind.model, rows, ROWS_IN_GROUP), period)
    written.tell()


class _Written:
    """A file of rows, and what they add up to."""

    def __init__(self, kind: Kind, file_format: Format, output: Path | None) -> None:
        self.totals = Totals()
        self.facts: FileFacts | None = None
        self._kind, self._format, self._output = kind, file_format, output

    def write(self, lines: Iterator[list[bytes]], period: Period, *, with_facts: bool = False) -> None:
        # Asked before anything is written: what goes wrong at once leaves no header without rows.
        lines = chain(list(islice(lines, 1)), lines)
        with progress_bar(period, "reading") as reached, open_output(self._output) as file:
            FORMATS[self._format].write(self._kind.file, counted(lines, self._kind, self.totals, reached), file)
            if with_facts:
                # From the disk, before the file gets its name: what is hashed is what was stored.
                file.flush()
                with Path(file.name).open("rb") as stored:
                    self.facts = FileFacts.of(self._format.value, stored)

    def tell(self) -> None:
        _tell(self.totals.sentence(self._kind) + (f" -> {self._output}" if self._output else ""))


def _tell(line: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(line, markup=False)


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
def open_output(output: Path | None) -> Iterator[BinaryIO]:
    """Open a file that appears when it is complete, or standard output where that is None.

    Raises:
        OutputError: it could not be written.
    """
    with write_errors(output or "standard output"):
        if output is not None:
            with atomic_file(output) as file:
                yield file
        elif sys.stdout is None:
            raise OSError("it is closed")
        else:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()


def counted(batches: Iterable[list[bytes]], kind: Kind, totals: Totals, reached: Reached) -> Iterator[list[bytes]]:
    """Pass lines on, and add them up on the way."""
    started_at = kind.file.columns().index("started_at") if kind.model is Call else None
    for batch in batches:
        totals.add(kind, batch)
        moment = None
        if batch and started_at is not None:
            (last,) = cells(batch[-1:])
            moment = datetime.fromisoformat(last[started_at])
        reached(moment, totals.rows)
        yield batch


@contextmanager
def progress_bar(period: Period, what: str) -> Iterator[Reached]:
    """Show a bar on standard error while rows are read, if that is a terminal.

    It follows the calls' start through the period: how many there will be, nobody knows beforehand.
    """
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
        length = (period.end - period.start).total_seconds()
        task = bar.add_task(what, total=length, rows=0)

        def reached(moment: datetime | None, rows: int) -> None:
            if moment:
                bar.update(task, completed=(moment - period.start).total_seconds(), rows=rows)
            else:
                bar.update(task, total=None, rows=rows)

        yield reached
