"""A full disk and a database that takes no writes: a clear answer, nothing half-written, and on it goes by itself."""

import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import psycopg

from local_stack.stack import Stack
from tests.support import Row, event, events_of
from tests.torture.crashes import connect
from tests.torture.traffic import PAGE, Connection, await_true, check_kept_calls, new_widgets

_MEGABYTES = 16
_WAL_MEGABYTES = 160
_BATCH = 100


@dataclass(frozen=True)
class FullDisk:
    """What a full disk was answered with, and what became of the events."""

    stored_before: int
    status: int
    code: str
    refused: int
    """Events in the request that met it: all of them or none are stored."""


@contextmanager
def small_disk(megabytes: int = _MEGABYTES) -> Iterator[Path]:
    """A file system of its own, of so many megabytes. Needs root, as mounting does."""
    folder = Path(tempfile.mkdtemp(prefix="widget-small-disk-"))
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["/bin/umount", "--lazy", folder], check=True)
        folder.rmdir()


def full_disk(stack: Stack) -> FullDisk:
    """Move the ledger to a small disk, fill it, and free it again.

    Raises:
        AssertionError: the answer is no 5xx, something is half-written, or it does not go on by itself.
    """
    with small_disk() as disk, connect(stack) as db, _tables_on(stack, disk):
        (widget_id,) = new_widgets(db, 1)
        ballast = disk / "ballast"
        stored = 0
        while stored < 5 * _BATCH:
            stored += track(stack, _events(widget_id)).json()["accepted"]
        _fill(ballast)
        while (answer := track(stack, batch := _events(widget_id))).status_code == 200:
            stored += len(batch)
            assert stored < 100_000, "the disk does not become full"

        assert answer.status_code >= 500, f"a tracker drops its events at {answer.status_code}: {answer.text}"
        assert stored_of(db, widget_id) == stored, "a part of the refused batch is there"
        check_kept_calls(db)

        ballast.unlink()
        again = track(stack, batch)
        assert (again.status_code, again.json()["accepted"]) == (200, len(batch)), again.text
        assert stored_of(db, widget_id) == stored + len(batch)
        check_kept_calls(db)
        return FullDisk(stored, answer.status_code, answer.json().get("code", ""), len(batch))


@dataclass(frozen=True)
class FullWal:
    """What became of a server that could not write its log any more."""

    acknowledged: int
    answers: Counter[str]
    """What requests were answered from then on."""
    in_doubt_stored: int
    """Events of the request that met it, and of those after, that are there all the same."""
    ended_after: float | None
    """Seconds until the server gave up starting again; none if it went on trying until there was room."""
    started_full: bool
    """Started again without room, it stayed up."""
    ready_after: float
    """Seconds from the room, and a start where it had given up, to the next event acknowledged."""


def full_wal(stack: Stack, *, seconds: float = 60) -> FullWal:
    """Move the write-ahead log to a small disk, fill it, send for a while, and make room.

    Raises:
        AssertionError: an acknowledged event is lost, something is half-written, or it does not go on.
    """
    with small_disk(megabytes=_WAL_MEGABYTES) as disk, _wal_on(stack, disk):
        with connect(stack) as db:
            (widget_id,) = new_widgets(db, 1)
        acknowledged: set[str] = set()
        in_doubt: list[list[Row]] = []
        answers: Counter[str] = Counter()
        ballast = disk / "ballast"

        def send(batch: list[Row]) -> bool:
            try:
                answer = track(stack, batch)
            except httpx.TransportError as error:
                answers[type(error).__name__] += 1
                return False
            if answer.status_code != 200:
                answers[f"HTTP {answer.status_code} {answer.json().get('code')}"] += 1
                assert answer.status_code >= 500, f"a tracker drops its events at {answer.text}"
                return False
            acknowledged.update(told["event_id"] for told in batch)
            return True

        _fill(ballast)
        while send(batch := _events(widget_id)):
            if len(acknowledged) % 1000:
                continue
            # The rest of a segment is as good as used: so the end comes sooner.
            with suppress(psycopg.OperationalError), psycopg.connect(stack.superuser_url, autocommit=True) as platform:
                platform.execute("select pg_switch_wal()")
        in_doubt.append(batch)
        full_at = time.monotonic()
        ended_after = None
        while ended_after is None and time.monotonic() < full_at + seconds:
            if not send(batch := _events(widget_id)):
                in_doubt.append(batch)
            if not stack.database.is_running:
                ended_after = time.monotonic() - full_at
        for _ in range(3):
            in_doubt.append(batch := _events(widget_id))
            assert not send(batch), "it is not full"
        # Started again too soon it ends again, and has spoilt nothing.
        with suppress(RuntimeError):
            stack.database.start()
        started_full = stack.database.is_running

        ballast.unlink()
        room_at = time.monotonic()
        stack.database.start()  # as the platform, or systemd, does by itself
        await_true(lambda: send(_events(widget_id)), seconds=60, what="an event acknowledged again")
        ready_after = time.monotonic() - room_at

        with connect(stack) as db:
            stored = {str(row["id"]) for row in events_of(db, widget_id)}
            assert acknowledged <= stored, f"{len(acknowledged - stored)} acknowledged events are lost"
            parts = [sum(told["event_id"] in stored for told in batch) for batch in in_doubt]
            assert set(parts) <= {0, _BATCH}, "a part of a batch is there"
            check_kept_calls(db)
            assert all(send(batch) for batch in in_doubt), "what was kept is not taken"
            assert stored_of(db, widget_id) == len(acknowledged)
            check_kept_calls(db)
        kept_anyhow = _BATCH * len(in_doubt)
        return FullWal(len(acknowledged) - kept_anyhow, answers, sum(parts), ended_after, started_full, ready_after)


@contextmanager
def _wal_on(stack: Stack, disk: Path) -> Iterator[None]:
    with psycopg.connect(stack.superuser_url, autocommit=True) as platform:
        row = platform.execute("show data_directory").fetchone()
    assert row is not None
    home = Path(row[0], "pg_wal")
    owner = _owner_of(stack)
    stack.database.kill()
    shutil.copytree(home, disk / "pg_wal", copy_function=shutil.copy2)
    for place in (disk / "pg_wal", *(disk / "pg_wal").rglob("*")):
        os.chown(place, *owner)
    (disk / "pg_wal").chmod(0o700)
    home.rename(home.with_name("pg_wal_before"))
    home.symlink_to(disk / "pg_wal")
    stack.database.start()
    try:
        yield
    finally:
        if stack.database.is_running:
            stack.database.kill()


@contextmanager
def _tables_on(stack: Stack, disk: Path) -> Iterator[None]:
    place = disk / "tablespace"
    place.mkdir()
    shutil.chown(place, *_owner_of(stack))
    with psycopg.connect(stack.superuser_url, autocommit=True) as platform:
        platform.execute(f"create tablespace widget_small location '{place}'".encode())
        _move(platform, "widget_small")
        try:
            yield
        finally:
            _move(platform, "pg_default")
            platform.execute("drop tablespace widget_small")


def _move(platform: psycopg.Connection, tablespace: str) -> None:
    relations = platform.execute(
        "select c.relkind::text, c.oid::regclass::text from pg_class c where c.relkind in ('r', 'i')"
        " and coalesce((select indrelid from pg_index where indexrelid = c.oid), c.oid) in"
        " ('public.widget_analytics'::regclass, 'public.widget_calls'::regclass)"
    ).fetchall()
    for kind, name in relations:
        platform.execute(f"alter {'table' if kind == 'r' else 'index'} {name} set tablespace {tablespace}".encode())


def _owner_of(stack: Stack) -> tuple[int, int]:
    """Whom the server runs as."""
    status = Path(f"/proc/{stack.database.pid}").stat()
    return status.st_uid, status.st_gid


def _fill(ballast: Path) -> None:
    """Leave no block free."""
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            os.fsync(file.fileno())


def _events(widget_id: UUID) -> list[Row]:
    return [
        event(widget_id, kind, f"session-{uuid4()}", call_id="call", event_id=str(uuid4()))
        for kind in ("call_start", "call_end")
        for _ in range(_BATCH // 2)
    ]


def track(stack: Stack, events: list[Row], *, timeout: float = 60) -> httpx.Response:
    return httpx.post(
        f"{stack.api_url}/rest/v1/rpc/track_events",
        headers={"apikey": stack.publishable_key, "origin": PAGE},
        json={"events": events},
        timeout=timeout,
    )


def stored_of(db: Connection, widget_id: UUID) -> int:
    row = db.execute("select count(*) from public.widget_analytics where widget_id = %s", [widget_id]).fetchone()
    assert row is not None
    return int(row["count"])


@contextmanager
def read_only(stack: Stack) -> Iterator[None]:
    """As the platform does when a disk is almost full: within, and after, every connection knows how it is."""
    with psycopg.connect(stack.superuser_url, autocommit=True) as platform:
        platform.execute("alter system set default_transaction_read_only = on")
        _reload(stack, platform, await_value="on")
        try:
            yield
        finally:
            platform.execute("set transaction_read_only = off")
            platform.execute("set default_transaction_read_only = off")
            platform.execute("alter system reset default_transaction_read_only")
            _reload(stack, platform, await_value="off")


def _reload(stack: Stack, platform: psycopg.Connection, *, await_value: str) -> None:
    """pg_reload_conf() returns before anybody has read anything: wait until all connections have.

    The server reads its files, signals its processes one by one, and only then accepts the next connection. So when
    one is opened after another that knows the new value, all have been signalled, and look before their next query.
    """

    def known() -> bool:
        with psycopg.connect(stack.superuser_url, autocommit=True) as new:
            return new.execute("show default_transaction_read_only").fetchone() == (await_value,)

    platform.execute("select pg_reload_conf()")
    await_true(known, seconds=60, what=f"default_transaction_read_only = {await_value}")
    assert known()
