"""What the tests of the Python client share: calls in the ledger, the command, an unreliable network."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch
from uuid import UUID

import httpx
import psycopg
from psycopg.rows import DictRow
from typer.testing import CliRunner

from local_stack.stack import Stack
from widget_analytics.cli import app


@dataclass(frozen=True, kw_only=True)
class LedgerCall:
    """A call as its events tell it."""

    started_at: datetime
    session_id: str
    call_id: str
    lasts: timedelta | None = timedelta(minutes=2)
    """None while it is open."""
    end: str = "call_end"


def insert_calls(db: psycopg.Connection[DictRow], widget_id: UUID, calls: Iterable[LedgerCall]) -> None:
    """Write the calls' events into the ledger, as the SQL editor would."""
    with (
        db.cursor() as cursor,
        cursor.copy(
            "copy public.widget_analytics (widget_id, event_type, session_id, call_id, timestamp) from stdin"
        ) as copy,
    ):
        for call in calls:
            copy.write_row((widget_id, "call_start", call.session_id, call.call_id, call.started_at))
            if call.lasts is not None:
                copy.write_row((widget_id, call.end, call.session_id, call.call_id, call.started_at + call.lasts))


def environment(stack: Stack, **changes: str) -> dict[str, str]:
    """What the command needs of the environment, and nothing of this machine's."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {"SUPABASE_URL": stack.api_url, "SUPABASE_SECRET_KEY": stack.secret_key} | changes


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "widget_analytics", *map(str, arguments)]


def run(env: dict[str, str], cwd: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, within this process: as it answers what it answers as one of its own.

    Its output is text as written, line ends and all.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    words = list(map(str, arguments))
    try:
        with patch.dict(os.environ, env, clear=True), chdir(cwd):
            done = CliRunner().invoke(app, words, catch_exceptions=False, prog_name="widget-analytics")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout_bytes.decode(), done.stderr_bytes.decode())


def run_process(env: dict[str, str], cwd: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The same as a process of its own, for what only a process can show."""
    done = subprocess.run(command(*arguments), env=env, cwd=cwd, capture_output=True, timeout=120, check=False)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


class Network:
    """Stands between a client and the stack, and can fail as networks do.

    `faults` holds what happens to the next requests, one each: an HTTP status to answer with, "lose the answer"
    (the stack gets the request, the client no answer), or "pass". After the last, everything passes. While `held`
    is set, answers wait.
    """

    def __init__(self, target: str) -> None:
        self.faults: list[int | str] = []
        self.requests = 0
        self.retry_after: str | None = None
        self.hold_from: int | None = None
        self.holding = threading.Event()
        self._released = threading.Event()
        network = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                network._handle(self, target)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler, target: str) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        self.requests += 1
        if self.hold_from is not None and self.requests >= self.hold_from:
            self.holding.set()
            self._released.wait(60)
        fault = self.faults.pop(0) if self.faults else "pass"
        if isinstance(fault, int):
            handler.send_response(fault)
            if self.retry_after is not None:
                handler.send_header("Retry-After", self.retry_after)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return

        skipped = {"host", "content-length", "connection", "accept-encoding"}
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in skipped}
        answer = httpx.request(handler.command, target + handler.path, content=body, headers=headers, timeout=60)
        if fault == "lose the answer":
            handler.close_connection = True
            return
        handler.send_response(answer.status_code)
        handler.send_header("Content-Type", answer.headers.get("content-type", "application/json"))
        if "content-range" in answer.headers:
            handler.send_header("Content-Range", answer.headers["content-range"])
        handler.send_header("Content-Length", str(len(answer.content)))
        handler.end_headers()
        handler.wfile.write(answer.content)


@contextmanager
def network_to(stack: Stack, faults: Sequence[int | str] = ()) -> Iterator[Network]:
    network = Network(stack.api_url)
    network.faults += faults
    try:
        yield network
    finally:
        network.close()
