"""The command ``verify``: an exported file against its manifest, and against the database."""

from __future__ import annotations

import io
import json
from collections import deque
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

from widget_analytics._export import counted, progress_bar
from widget_analytics._formats import FORMATS, FileFormat
from widget_analytics._manifest import FileFacts, Manifest, manifest_path
from widget_analytics._parquet import require_pyarrow
from widget_analytics._selection import Kind, Totals, utc
from widget_analytics.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from widget_analytics._reader import Reader

MOST_DIFFERENCES = 10
# How far apart rows are still recognised as the same one: beyond, each side is told to have one more.
_WINDOW = 1_000

Cells = list[str]


class Verified:
    """What came out: differences, none if all is equal, and what was compared."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.differences: list[str] = []
        self.totals = Totals()

    def sentence(self) -> str:
        """Tell in a line what the database holds."""
        selection = self.manifest.selection
        moment = f", as of {utc(selection.as_of)}" if selection.as_of else ", as closed"
        return self.totals.sentence(selection.kind) + moment


def verify_file(reader: Reader, path: Path) -> Verified:
    """Compare a file with its manifest, and both with the rows that the database gives as of the same moment.

    Reads one page at a time, and stops at `MOST_DIFFERENCES`.

    Raises:
        InputError: the file or its manifest cannot be read.
        WidgetAnalyticsError: the rows could not be read.
    """
    manifest = Manifest.read(manifest_path(path))
    if manifest.file.format == "parquet":
        require_pyarrow()
    verified = Verified(manifest)
    selection, form = manifest.selection, FORMATS[manifest.file.format]
    kind = selection.kind
    try:
        with (
            path.open("rb") as file,
            closing(reader.batches(selection.query)) as batches,
            progress_bar(selection.period, "comparing") as progress,
        ):
            verified.differences += _file_differences(manifest, FileFacts.of(manifest.file.format, file))
            file.seek(0)
            counts = counted(batches, kind, verified.totals, progress)
            found = _row_differences(form.read(kind.model, file), _reread(kind, form, counts), kind)
            verified.differences += islice(found, MOST_DIFFERENCES)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if len(verified.differences) < MOST_DIFFERENCES:
        verified.differences += _manifest_differences(reader, verified)
    return verified


def _reread(kind: Kind, form: FileFormat, batches: Iterator[list[bytes]]) -> Iterator[Cells]:
    """Give rows of the database as the cells that they would be in the file."""
    for batch in batches:
        written = io.BytesIO()
        form.write(kind.model, [batch], written)
        written.seek(0)
        yield from form.read(kind.model, written)


def _file_differences(manifest: Manifest, facts: FileFacts) -> Iterator[str]:
    if facts.sha256 != manifest.file.sha256 or facts.bytes != manifest.file.bytes:
        yield (
            f"the file is not the one that was exported: {facts.bytes:,} bytes, SHA-256 {facts.sha256}; "
            f"manifest: {manifest.file.bytes:,} bytes, {manifest.file.sha256}"
        )


def _manifest_differences(reader: Reader, verified: Verified) -> Iterator[str]:
    now, manifest = verified.totals.to_json(), verified.manifest
    for name in sorted(now | manifest.totals):
        if now.get(name) != manifest.totals.get(name):
            told, is_now = (json.dumps(totals.get(name)) for totals in (manifest.totals, now))
            yield f"{name}: manifest {told}, database {is_now}"
    if manifest.selection.month:
        statement = reader.statement(manifest.selection.month)
        content_hash = statement.content_hash if statement else None
        if content_hash != manifest.statement:
            yield f"statement: manifest {manifest.statement}, database {content_hash}"


def _row_differences(stored: Iterator[Cells], current: Iterator[Cells], kind: Kind) -> Iterator[str]:
    """Tell where two sequences of rows part, each row by what it is called."""
    columns, key = kind.model.columns(), kind.key
    places = [columns.index(column) for column in key]
    left, right = _Window(stored, places), _Window(current, places)
    while True:
        try:
            ours = left.first()
        except ValueError as error:
            yield f"the file cannot be read on: {error}"
            # The database's totals are told, too: of all its rows.
            deque(current, maxlen=0)
            return
        theirs = right.first()
        if ours is None and theirs is None:
            return
        if ours == theirs:
            left.drop()
            right.drop()
        elif ours and theirs and left.key(ours) == right.key(theirs):
            changes = "; ".join(
                f"{column}: file {a!r}, database {b!r}"
                for column, a, b in zip(columns, ours, theirs, strict=False)
                if a != b
            )
            yield f"{_name(key, left.key(ours))}: {changes}"
            left.drop()
            right.drop()
        elif ours and not right.has(left.key(ours)):
            yield f"{_name(key, left.key(ours))}: only in the file"
            left.drop()
        elif theirs and not left.has(right.key(theirs)):
            yield f"{_name(key, right.key(theirs))}: only in the database"
            right.drop()
        elif ours:
            yield f"{_name(key, left.key(ours))}: in another place in the file than in the database"
            right.remove(left.key(ours))
            left.drop()


class _Window:
    """The next rows of a sequence: one, or more where a row is looked for."""

    def __init__(self, rows: Iterator[Cells], places: list[int]) -> None:
        self._rows = rows
        self._places = places
        self._next: deque[Cells] = deque()
        self._error: ValueError | None = None

    def first(self) -> Cells | None:
        if not self._next:
            self._fill(1)
        if not self._next and self._error:
            raise self._error
        return self._next[0] if self._next else None

    def drop(self) -> None:
        self._next.popleft()

    def key(self, row: Cells) -> tuple[str, ...]:
        return tuple(row[place] if place < len(row) else "" for place in self._places)

    def has(self, key: tuple[str, ...]) -> bool:
        self._fill(_WINDOW)
        return any(self.key(row) == key for row in self._next)

    def remove(self, key: tuple[str, ...]) -> None:
        self._next.remove(next(row for row in self._next if self.key(row) == key))

    def _fill(self, rows: int) -> None:
        try:
            self._next.extend(islice(self._rows, max(rows - len(self._next), 0)))
        except ValueError as error:
            # Told when the rows before it have been compared.
            self._error = error


def _name(key: tuple[str, ...], values: tuple[str, ...]) -> str:
    # Ids are the sender's to choose: as Python writes them, none can steer a terminal.
    return ", ".join(f"{column} {value!r}" for column, value in zip(key, values, strict=True))
