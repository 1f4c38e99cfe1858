"""What the tests of the Python client share: calls in the ledger, and the command."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import chdir
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from unittest.mock import patch
from uuid import UUID

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
