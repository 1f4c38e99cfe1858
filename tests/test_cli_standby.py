"""`--direct` against a hot standby: what it has not replayed is never missing without a word."""

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Timer
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row
from testing.common.database import get_unused_port

from local_stack.places import bare_environment
from local_stack.postgres_server import complete_server
from local_stack.processes import await_condition
from local_stack.stack import Stack
from tests.client_support import environment, run
from tests.support import Connection, record

MONTH, START = "2021-02", datetime(2021, 2, 1, tzinfo=UTC)
EXPORT = ("export", "--month", MONTH, "--detail", "calls", "--output", "calls.csv")


@pytest.fixture(scope="module")
def primary() -> Iterator[Stack]:
    with Stack(durable=False, jobs=False) as running:
        yield running


@pytest.fixture(scope="module")
def db(primary: Stack) -> Iterator[Connection]:
    with psycopg.connect(primary.database_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture(scope="module")
def widget_id(db: Connection) -> UUID:
    row = db.execute("insert into public.widgets (name) values ('w') returning id").fetchone()
    assert row is not None
    widget: UUID = row["id"]
    call(db, widget, 0)
    return widget


@pytest.fixture(scope="module")
def standby(primary: Stack, widget_id: UUID) -> Iterator[psycopg.Connection]:
    """A standby that streams from the primary."""
    with standby_of(primary) as url, psycopg.connect(url, autocommit=True) as connection:
        yield connection


@contextmanager
def standby_of(primary: Stack) -> Iterator[str]:
    server = complete_server()
    assert server is not None
    account = {"user": "postgres"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="standby-"))
    if account:
        os.chown(folder, *pwd.getpwnam("postgres")[2:4])
    data, port = folder / "data", get_unused_port()
    subprocess.run(
        [server.bin / "pg_basebackup", "-d", primary.superuser_url, "-D", data, "-R", "-X", "stream", "-c", "fast"],
        check=True,
        cwd=folder,
        env=bare_environment(),
        **account,  # type: ignore[call-overload]  # a user, or nothing
    )
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        # At least the primary's.
        "max_connections": "200",
        "max_worker_processes": "32",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    process: subprocess.Popen[bytes] = subprocess.Popen(
        [server.bin / "postgres", "-D", data, "-p", str(port), *options],
        cwd=folder,
        env=bare_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **account,  # type: ignore[call-overload]
    )
    url = f"postgresql://supabase_admin@127.0.0.1:{port}/postgres?sslmode=disable"
    try:
        await_condition("the standby", lambda: answers(url), seconds=60, explain=lambda: "it does not answer")
        yield url
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def answers(url: str) -> bool:
    try:
        with psycopg.connect(url) as connection:
            return connection.execute("select from pg_stat_wal_receiver").fetchone() is not None
    except psycopg.OperationalError:
        return False


def call(db: Connection, widget_id: UUID, number: int) -> None:
    """A call of a minute, received as it happened."""
    at = START + timedelta(hours=number)
    for kind, moment in (("call_start", at), ("call_end", at + timedelta(minutes=1))):
        record(db, widget_id, f"s{number}", kind, moment, call_id="c", received_at=moment)


def env_of(primary: Stack, standby: psycopg.Connection) -> dict[str, str]:
    port = standby.info.port
    return environment(primary, SUPABASE_DB_URL=f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable")


@contextmanager
def paused(standby: psycopg.Connection) -> Iterator[None]:
    """The standby receives, and replays nothing."""
    standby.execute("select pg_wal_replay_pause()")
    try:
        yield
    finally:
        standby.execute("select pg_wal_replay_resume()")


def test_a_standby_gives_what_the_primary_gives(
    primary: Stack, standby: psycopg.Connection, tmp_path: Path, widget_id: UUID
) -> None:
    """The same file, as of a moment a little earlier; and the primary verifies it."""
    exported = run(env_of(primary, standby), tmp_path, *EXPORT, "--direct", "--manifest")
    verified = run(environment(primary), tmp_path, "verify", "calls.csv")

    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "calls.csv").read_text().count(str(widget_id)) >= 1
    as_of = datetime.fromisoformat(json.loads((tmp_path / "calls.csv.manifest.json").read_text())["export"]["as_of"])
    assert datetime.now(UTC) - as_of >= timedelta(minutes=2)
    assert verified.returncode == 0, verified.stdout


@pytest.mark.parametrize("options", [(), ("--manifest",), ("--as-of", "2021-03-01")])
def test_a_standby_that_lags_is_refused(
    primary: Stack,
    standby: psycopg.Connection,
    db: Connection,
    tmp_path: Path,
    widget_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
) -> None:
    """A call that it has not replayed would be missing: one line, exit code 4, and no file."""
    monkeypatch.setattr("widget_analytics._copy._STANDBY_PATIENCE", 1.0)
    with paused(standby):
        call(db, widget_id, 10 + len(options))
        received = db.execute("select pg_current_wal_insert_lsn() as lsn").fetchone()
        assert received is not None
        await_condition(
            "what was written",
            lambda: bool(standby.execute("select pg_last_wal_receive_lsn() >= %s", [received["lsn"]]).fetchone()[0]),  # type: ignore[index]
            seconds=30,
            explain=lambda: "it has not been received",
        )

        done = run(env_of(primary, standby), tmp_path, *EXPORT, "--direct", *options)

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("widget-analytics: the database is a standby that lags: what came after ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_standby_that_catches_up_is_waited_for(
    primary: Stack, standby: psycopg.Connection, db: Connection, tmp_path: Path, widget_id: UUID
) -> None:
    """What it had received when it was asked is in the file."""
    with paused(standby):
        call(db, widget_id, 20)
        position = db.execute("select pg_current_wal_insert_lsn() as lsn").fetchone()
        assert position is not None
        await_condition(
            "what was written",
            lambda: bool(standby.execute("select pg_last_wal_receive_lsn() >= %s", [position["lsn"]]).fetchone()[0]),  # type: ignore[index]
            seconds=30,
            explain=lambda: "it has not been received",
        )
        resume = Timer(1.5, standby.execute, ["select pg_wal_replay_resume()"])
        resume.start()

        done = run(env_of(primary, standby), tmp_path, *EXPORT, "--direct")

        resume.join()
    assert done.returncode == 0, done.stderr
    assert "s20,c," in (tmp_path / "calls.csv").read_text()
