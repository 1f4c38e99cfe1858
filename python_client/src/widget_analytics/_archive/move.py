"""The command ``archive``: a month leaves the ledger, and not one event before its file was read back.

Each step can be repeated: who is killed begins again, and finds what is done.
"""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

from widget_analytics._archive.files import ledger_sums, read_sums, write_events
from widget_analytics._archive.manifest import ArchivedMonth, Chunk, StoredFile, manifest_name
from widget_analytics._archive.plans import write_plans
from widget_analytics._exit import InputError, UsageError
from widget_analytics._selection import utc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from widget_analytics._archive.place import Place

    Connection = psycopg.Connection[Any]
    # Told of each step before it is taken: what it is, and its place among how many.
    OnStep = Callable[[str, int, int], object]

# Of at most 100 sessions each: about a million events a file.
CHUNKS_IN_FILE = 2_000
_LOCK = "hashtextextended('widget_internal: archive', 0)"


@dataclass(frozen=True, kw_only=True)
class Archived:
    """What came of it: ``released`` events left now, those of ``late`` events' sessions came after."""

    manifest: ArchivedMonth
    released: int
    late_events: int


def archive_month(
    connection: Connection,
    place: Place,
    month: str,
    *,
    on_step: OnStep = lambda _step, _number, _of: None,
    chunks_in_file: int = CHUNKS_IN_FILE,
) -> Archived:
    """Move a closed month's sessions from the ledger to an archive.

    Raises:
        UsageError: somebody else is archiving.
        InputError: a file does not hold what the ledger holds; nothing was released.
        OutputError: the files cannot be stored.
        psycopg.Error: the database refused.
    """
    first_day = date.fromisoformat(f"{month}-01")
    with alone(connection):
        on_step("marking sessions", 0, 1)
        _notice_archived_sessions(connection)
        connection.execute("select widget_internal.seal_archive(%s, %s)", [first_day, place.url])
        on_step("choosing sessions", 0, 1)
        as_of, manifest_hash = row_of(
            connection,
            "select widget_internal.settle_archive(%s), manifest_hash from public.widget_archives where month = %s",
            [first_day, first_day],
        )
        if manifest_hash:
            manifest = ArchivedMonth.read(place, month, sha256=manifest_hash)
        else:
            manifest = _write_files(_Month(connection, place, month, as_of), on_step, chunks_in_file)
            connection.execute(
                "update public.widget_archives set manifest_hash = %s where month = %s",
                [hashlib.sha256(manifest.to_bytes()).hexdigest(), first_day],
            )
        released = _release(connection, manifest, first_day, on_step)
        on_step("finishing", 0, 1)
        connection.execute("select widget_internal.finish_archive(%s)", [first_day])
        (late_events,) = row_of(connection, "select count(*) from public.widget_late_events")
    return Archived(manifest=manifest, released=released, late_events=late_events)


def row_of(connection: Connection, query: LiteralString, parameters: list[Any] | None = None) -> Any:
    """Ask what always has one row."""
    row = connection.execute(query, parameters).fetchone()
    assert row is not None  # noqa: S101 (such queries only)
    return row


@contextmanager
def alone(connection: Connection) -> Iterator[None]:
    """Keep other archiving away from the database meanwhile.

    Raises:
        UsageError: it is at work already.
    """
    if row_of(connection, f"select pg_try_advisory_lock({_LOCK})") != (True,):
        raise UsageError(
            "another `widget-analytics archive` or `restore` is at work on this database; wait for its end"
        )
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(f"select pg_advisory_unlock({_LOCK})")


def _notice_archived_sessions(connection: Connection) -> None:
    # Once in a database's life. Who waits for a lock holds up those behind: briefly, or not at all.
    (is_off,) = row_of(
        connection,
        "select coalesce(max(tgenabled) = 'D', false) from pg_trigger"
        " where tgrelid = 'public.widget_analytics'::regclass and tgname = 'divert_archived_events'",
    )
    if is_off:
        with connection.transaction():
            connection.execute("set local lock_timeout = '2s'")
            connection.execute("alter table public.widget_analytics enable trigger divert_archived_events")


@dataclass(frozen=True)
class _Month:
    """What is being archived, from where, to where, and as of when."""

    connection: Connection
    place: Place
    month: str
    as_of: datetime

    def sums(self, first_chunk: int, last_chunk: int) -> dict[int, Chunk]:
        return ledger_sums(self.connection, first_chunk, last_chunk, self.as_of)

    def write(self, first_chunk: int, last_chunk: int, name: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder, "part")
            write_events(self.connection, first_chunk, last_chunk, self.as_of, part)
            self.place.put(part, name)

    def stored(self, name: str, wanted: dict[int, Chunk]) -> StoredFile | None:
        """Read a file back; None where it is not there, or is not what is wanted."""
        if not self.place.has(name):
            return None
        with self.place.stored(name) as file:
            try:
                found = read_sums(file)
            except InputError:
                return None
            return StoredFile.of(name, file, sum(c.events for c in found.values())) if found == wanted else None

    def manifest(self, files: list[StoredFile], chunks: dict[int, Chunk]) -> ArchivedMonth:
        start, end, zone, longest = row_of(
            self.connection,
            "select b.*, extract(epoch from s.max_call_duration)::bigint"
            " from public.widget_billing_period(%s) b, widget_internal.settings s",
            [self.month],
        )
        return ArchivedMonth(
            month=self.month,
            period_start=utc(start),
            period_end=utc(end),
            time_zone=zone,
            as_of=utc(self.as_of),
            max_call_seconds=longest,
            files=tuple(files),
            plans=write_plans(self.connection, self.place, self.month),
            chunks=tuple(chunks[number] for number in sorted(chunks)),
        )


def _write_files(month: _Month, on_step: OnStep, chunks_in_file: int) -> ArchivedMonth:
    copied, last_chunk = row_of(
        month.connection,
        "select count(*) filter (where chunk = 0), coalesce(max(chunk), 0) from widget_internal.sessions_to_archive",
    )
    ranges = [(0, 0)] if copied else []
    ranges += [
        (first, min(first + chunks_in_file - 1, last_chunk)) for first in range(1, last_chunk + 1, chunks_in_file)
    ]
    files: list[StoredFile] = []
    chunks: dict[int, Chunk] = {}
    for number, (first, last) in enumerate(ranges):
        name = f"events/month={month.month}/part-{first:07}.parquet"
        on_step("writing", number, len(ranges))
        wanted = month.sums(first, last)
        stored = month.stored(name, wanted)
        if stored is None:
            month.write(first, last, name)
            on_step("reading back", number, len(ranges))
            stored = month.stored(name, wanted)
        if stored is None:
            raise InputError(f"{month.place.path(name)} does not hold what the database holds; nothing was released")
        files.append(stored)
        chunks |= wanted
    on_step("writing the manifest", 0, 1)
    manifest = month.manifest(files, chunks)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "manifest").write_bytes(manifest.to_bytes())
        month.place.put(Path(folder, "manifest"), manifest_name(month.month))
    on_step("confirming", 0, 1)
    return ArchivedMonth.read(month.place, month.month, sha256=hashlib.sha256(manifest.to_bytes()).hexdigest())


def _release(connection: Connection, manifest: ArchivedMonth, month: date, on_step: OnStep) -> int:
    left = {
        chunk
        for (chunk,) in connection.execute(
            "select distinct chunk from widget_internal.sessions_to_archive where chunk > 0"
        )
    }
    chunks = [chunk for chunk in manifest.chunks if chunk.chunk in left]
    released = 0
    for number, chunk in enumerate(chunks):
        on_step("releasing", number, len(chunks))
        (gone,) = row_of(
            connection,
            "select widget_internal.release_archived_chunk(%s, %s, %s, %s)",
            [month, chunk.chunk, chunk.events, chunk.digest_sum],
        )
        released += gone
    return released
