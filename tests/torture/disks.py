"""A full disk and a database that takes no writes: a clear answer, nothing half-written, and on it goes by itself."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import psycopg

from local_stack.stack import Stack
from tests.support import Row, event
from tests.torture.crashes import connect
from tests.torture.traffic import PAGE, Connection, await_true, check_kept_calls, new_widgets

_MEGABYTES = 16
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
