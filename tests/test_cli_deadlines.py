"""A gateway that hangs: no command waits for long, and what makes progress may take its time."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from local_stack.stack import Stack
from tests.client_support import environment, run, run_process
from widget_analytics import Period, WidgetAnalytics

HEADERS_FOR_EVER = (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 10_000)
EMPTY_LIST = (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"[       ]")


@contextmanager
def slow_gateway(beginning: bytes = b"", drops: bytes = b"") -> Iterator[str]:
    """Takes connections and sends the beginning, then a drop each 100 ms; by default nothing at all."""
    ended = threading.Event()
    held: list[socket.socket] = []

    def answer(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(beginning)
            for drop in drops:
                if ended.wait(0.1):
                    return
                connection.sendall(bytes([drop]))

    def accept() -> None:
        with suppress(OSError):
            while True:
                held.append(server.accept()[0])
                threading.Thread(target=answer, args=[held[-1]], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        ended.set()
        server.shutdown(socket.SHUT_RDWR)
    for connection in held:
        connection.close()


def test_doctor_takes_ten_seconds_at_most(stack: Stack, tmp_path: Path) -> None:
    """From its start as a process to its end, whatever trickles in: all checks wait side by side."""
    with slow_gateway(*HEADERS_FOR_EVER) as url:
        began = time.monotonic()
        done = run_process(environment(stack, SUPABASE_URL=url), tmp_path, "doctor")
        took = time.monotonic() - began

    assert (done.returncode, done.stderr) == (15, "")
    assert took < 10


@pytest.mark.parametrize("sends", [(), HEADERS_FOR_EVER], ids=["nothing", "headers for ever"])
@pytest.mark.parametrize(
    "line", ["status", "cleanup", "close", "plan show", "export --month 2026-10", "push lago --month 2026-10"]
)
def test_a_command_gives_up_in_time(stack: Stack, tmp_path: Path, line: str, sends: tuple[bytes, ...]) -> None:
    """After the seconds that the environment says: exit code 4, and one line that says how to wait longer."""
    with slow_gateway(*sends) as url:
        env = environment(stack, SUPABASE_URL=url, WIDGET_ANALYTICS_TIMEOUT="0.3")
        began = time.monotonic()
        done = run(env, tmp_path, *line.split())
        took = time.monotonic() - began

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("widget-analytics: no answer within 0.3 s. Check SUPABASE_URL, the network and the ")
    assert "WIDGET_ANALYTICS_TIMEOUT=SECONDS waits longer" in done.stderr
    assert done.stderr.count("\n") == 1
    assert took < 3


def test_an_answer_that_makes_progress_may_take_longer(stack: Stack) -> None:
    """Its list is read to the end, in three times the time that it had to begin."""
    with (
        slow_gateway(*EMPTY_LIST) as url,
        WidgetAnalytics(url=url, secret_key=stack.secret_key, timeout=0.3, attempts=1) as client,
    ):
        began = time.monotonic()

        assert list(client.usage(Period.month("2026-10"))) == []
        assert time.monotonic() - began > 0.8


def test_a_database_that_hangs(stack: Stack, tmp_path: Path) -> None:
    """The direct way gives up too; two seconds are the driver's least."""
    with slow_gateway() as url:
        address = url.replace("http://", "postgresql://postgres@")
        env = environment(stack, SUPABASE_DB_URL=address, WIDGET_ANALYTICS_TIMEOUT="0.3")
        done = run(env, tmp_path, "export", "--month", "2026-10", "--direct")

    assert (done.returncode, done.stdout) == (4, "")
    assert "the database of SUPABASE_DB_URL cannot be reached: " in done.stderr


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan"])
def test_a_limit_that_is_none(stack: Stack, tmp_path: Path, seconds: str) -> None:
    """Nothing is sent."""
    done = run(environment(stack, WIDGET_ANALYTICS_TIMEOUT=seconds), tmp_path, "close")

    assert (done.returncode, done.stdout) == (3, "")
    assert "WIDGET_ANALYTICS_TIMEOUT must be a number of seconds" in done.stderr
