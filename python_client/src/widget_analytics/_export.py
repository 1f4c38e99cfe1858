"""The command ``export``: from the client to a file, with progress on standard error."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from decimal import Decimal
from enum import StrEnum
from itertools import chain, islice
from typing import TYPE_CHECKING, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from widget_analytics._atomic import atomic_file
from widget_analytics._exit import OutputError
from widget_analytics._formats import WRITERS
from widget_analytics.models import Call, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from pathlib import Path
    from uuid import UUID

    from widget_analytics.client import WidgetAnalytics
    from widget_analytics.periods import Period


class Detail(StrEnum):
    """What a row is."""

    CALLS = "calls"
    USAGE = "usage"


class Format(StrEnum):
    """How rows are written."""

    CSV = "csv"
    JSONL = "jsonl"


def export_rows(
    client: WidgetAnalytics,
    *,
    period: Period,
    widgets: Iterable[UUID] | None,
    as_of: datetime | None,
    detail: Detail,
    file_format: Format,
    output: Path | None,
) -> None:
    """Write the period's calls or usage to ``output``, or to standard output where that is None.

    Raises:
        WidgetAnalyticsError: the rows could not be read.
        OutputError: the file could not be written.
    """
    model = Call if detail is Detail.CALLS else Usage
    rows: Iterator[Call | Usage]
    if detail is Detail.CALLS:
        rows = client.calls(period, widgets=widgets, as_of=as_of)
    else:
        rows = client.usage(period, widgets=widgets, as_of=as_of)
    # Asked before anything is written: what goes wrong at once leaves no header without rows.
    rows = chain(list(islice(rows, 1)), rows)
    total = _Total()
    with _progress(period) as progress, _open(output) as file:
        WRITERS[file_format](model, _counted(rows, total, progress), file)
    noun = ("call" if detail is Detail.CALLS else "widget") + ("" if total.rows == 1 else "s")
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"{total.rows:,} {noun}, {total.billable_seconds:,f} billable seconds" + (f" -> {output}" if output else ""),
        markup=False,
    )


class _Total:
    """What has been written so far."""

    def __init__(self) -> None:
        self.rows = 0
        self.billable_seconds = Decimal(0)


@contextmanager
def _open(output: Path | None) -> Iterator[BinaryIO]:
    try:
        if output is None:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        else:
            with atomic_file(output) as file:
                yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {output or 'standard output'}: {error.strerror or error}") from error


def _counted(rows: Iterator[Call | Usage], total: _Total, progress: _ByTime) -> Iterator[Call | Usage]:
    for row in rows:
        total.rows += 1
        total.billable_seconds += row.billable_seconds
        progress.at(row, total.rows)
        yield row


class _ByTime:
    """A bar that follows the calls' start through the period: how many there will be, nobody knows beforehand."""

    def __init__(self, period: Period, bar: Progress) -> None:
        self._period = period
        self._bar = bar
        self._task = bar.add_task("reading", total=(period.end - period.start).total_seconds(), rows=0)

    def at(self, row: Call | Usage, rows: int) -> None:
        if isinstance(row, Call) and rows % 100 == 0:
            done = (row.started_at - self._period.start).total_seconds()
            self._bar.update(self._task, completed=done, rows=rows)


@contextmanager
def _progress(period: Period) -> Iterator[_ByTime]:
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
        yield _ByTime(period, bar)
