"""`widget-analytics doctor`, against a stack and against a gateway that hangs."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import DictRow

from local_stack.stack import Stack
from tests.client_support import environment, run


@contextmanager
def hanging_gateway(*, drips: bool) -> Iterator[str]:
    """Takes connections and never answers, or sends a header's bytes one by one."""
    ended = threading.Event()
    held: list[socket.socket] = []

    def drip(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not ended.wait(0.2):
                connection.sendall(b"x")

    def accept() -> None:
        with suppress(OSError):
            while True:
                held.append(server.accept()[0])
                if drips:
                    threading.Thread(target=drip, args=[held[-1]], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        ended.set()
        server.shutdown(socket.SHUT_RDWR)
    for connection in held:
        connection.close()


def test_a_test_event_comes_back_and_is_no_call(stack: Stack, db: psycopg.Connection[DictRow], tmp_path: Path) -> None:
    """It is stored once, and no call came of it; the browser's way is well."""
    widget = uuid4()
    db.execute(
        "insert into public.widgets (id, name, allowed_domains) values (%s, 'Doctor', '{shop.example}')", [widget]
    )
    env = environment(stack, SUPABASE_PUBLISHABLE_KEY=stack.publishable_key)

    done = run(env, tmp_path, "doctor", "--json", "--widget", str(widget))

    found = {one["check"]: one for one in json.loads(done.stdout)}
    for check in (
        "secret key",
        "publishable key",
        "api",
        "clock",
        "rights",
        "browser",
        "test event",
        "cleanup function",
    ):
        assert found[check]["result"] == "well", found[check]
    stored = db.execute("select event_type from public.widget_analytics where widget_id = %s", [widget]).fetchall()
    calls = db.execute("select from public.widget_calls where widget_id = %s", [widget]).fetchall()
    assert (stored, calls) == ([{"event_type": "widget_load"}], [])


def test_rights_that_came_back_are_named(stack: Stack, db: psycopg.Connection[DictRow], tmp_path: Path) -> None:
    """Exit code 15, and the statement that takes them away."""
    db.execute("grant execute on function public.complete_stale_sessions(interval) to anon")
    done = run(environment(stack), tmp_path, "doctor")
    db.execute("select widget_internal.apply_rights()")

    assert done.returncode == 15
    line = next(line for line in done.stdout.splitlines() if line.startswith("rights "))
    assert "problem" in line
    assert "select widget_internal.apply_rights()" in line


def test_a_key_of_another_project_or_kind(stack: Stack, tmp_path: Path) -> None:
    """Each is named with its setting."""
    env = environment(stack, SUPABASE_PUBLISHABLE_KEY=stack.secret_key)
    swapped = run(env, tmp_path, "doctor")
    foreign = run(environment(stack, SUPABASE_SECRET_KEY="sb_secret_of_another_project"), tmp_path, "doctor")

    assert "SUPABASE_PUBLISHABLE_KEY holds no publishable key" in swapped.stdout
    assert "SUPABASE_SECRET_KEY is not this project's" in foreign.stdout
    assert (swapped.returncode, foreign.returncode) == (15, 15)


@pytest.mark.parametrize("drips", [False, True])
def test_a_gateway_that_hangs_takes_ten_seconds_at_most(stack: Stack, tmp_path: Path, *, drips: bool) -> None:
    """All checks wait side by side, and say that no answer came."""
    with hanging_gateway(drips=drips) as url:
        began = time.monotonic()
        done = run(environment(stack, SUPABASE_URL=url), tmp_path, "doctor")
        took = time.monotonic() - began

    assert (done.returncode, done.stderr) == (15, "")
    assert took < 9


@pytest.mark.parametrize("drips", [False, True])
def test_status_gives_up_in_time(stack: Stack, tmp_path: Path, *, drips: bool) -> None:
    """Exit code 4, and one line."""
    with hanging_gateway(drips=drips) as url:
        began = time.monotonic()
        done = run(environment(stack, SUPABASE_URL=url), tmp_path, "status")
        took = time.monotonic() - began

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert took < 10
