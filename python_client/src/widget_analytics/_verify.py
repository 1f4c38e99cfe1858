"""The command ``verify``: an exported file against its manifest, and against the database."""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from widget_analytics._export import counted, progress_bar
from widget_analytics._formats import FORMATS, FileFormat
from widget_analytics._labels import NAMES
from widget_analytics._lines import utc
from widget_analytics._manifest import FileFacts, Manifest, manifest_path
from widget_analytics._parquet import require_pyarrow
from widget_analytics._reader import Reader
from widget_analytics._selection import Kind, Totals
from widget_analytics.errors import InputError

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
            closing(selection.lines(reader)) as batches,
            progress_bar(selection.period, "comparing") as reached,
        ):
            verified.differences += _file_differences(manifest, FileFacts.of(manifest.file.format, file))
            file.seek(0)
            counts = counted(batches, kind, verified.totals, reached)
            found = _row_differences(form.read(kind.file, file), _reread(kind, form, counts), kind)
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
        form.write(kind.file, [batch], written)
        written.seek(0)
        yield from form.read(kind.file, written)


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
    columns, key = kind.file.columns(), kind.key
    left, right = _Window(stored, columns, key), _Window(current, columns, key)
    while True:
        ours, theirs = left.first(), right.first()
        if not ours and (left.error or not theirs):
            break
        if ours and ours == theirs:
            changes = [
                f"{column}: file {a!r}, database {b!r}"
                for column, a, b in zip(columns, left.rows.pop(ours), right.rows.pop(ours), strict=False)
                # A widget may be called something else by now: that is no other bill.
                if a != b and column not in NAMES
            ]
            if changes:
                yield f"{_name(key, ours)}: {'; '.join(changes)}"
        elif ours and ours not in right.rows:
            del left.rows[ours]
            yield f"{_name(key, ours)}: only in the file"
        elif theirs and theirs not in left.rows:
            del right.rows[theirs]
            yield f"{_name(key, theirs)}: only in the database"
        elif ours:
            del left.rows[ours], right.rows[ours]
            yield f"{_name(key, ours)}: in another place in the file than in the database"
    if right.error:
        raise right.error
    if left.error:
        yield f"the file cannot be read on: {left.error}"
        # The database's totals are told, too: of all its rows.
        deque(current, maxlen=0)


class _Window:
    """The next rows of a sequence, by key."""

    def __init__(self, rows: Iterator[Cells], columns: tuple[str, ...], key: tuple[str, ...]) -> None:
        self.rows: dict[tuple[str, ...], Cells] = {}
        self.error: ValueError | None = None
        self._following = rows
        self._places = [columns.index(column) for column in key]
        self._waiting: Cells | None = None

    def first(self) -> tuple[str, ...] | None:
        """Give the key of the next row, having read on; None where there is none."""
        while len(self.rows) < _WINDOW and (row := self._waiting or self._read()):
            found = tuple(row[place] if place < len(row) else "" for place in self._places)
            # A second row of a key waits until the first has been compared.
            self._waiting = row if found in self.rows else None
            if self._waiting:
                break
            self.rows[found] = row
        return next(iter(self.rows), None)

    def _read(self) -> Cells | None:
        try:
            return None if self.error else next(self._following, None)
        except ValueError as error:
            # Told when the rows before it have been compared.
            self.error = error
            return None


def _name(key: tuple[str, ...], values: tuple[str, ...]) -> str:
    # Ids are the sender's to choose: as Python writes them, none can steer a terminal.
    return ", ".join(f"{column} {value!r}" for column, value in zip(key, values, strict=True))
