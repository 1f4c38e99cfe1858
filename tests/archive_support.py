"""What the tests of the archive share: a ledger with closed months, and the command on it."""

import os
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.support import Connection, Row, record

JANUARY = datetime(2026, 1, 10, 12, tzinfo=UTC)
FEBRUARY = datetime(2026, 2, 10, 12, tzinfo=UTC)


def command(database_url: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `widget-analytics` to its end."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "widget_analytics", *map(str, arguments)],
        env=kept | {"SUPABASE_DB_URL": database_url} | environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def new_widget(db: Connection) -> UUID:
    row = db.execute("insert into public.widgets (allowed_domains) values ('{*}') returning id").fetchone()
    assert row is not None
    widget_id: UUID = row["id"]
    return widget_id


def session(db: Connection, widget_id: UUID, at: datetime, seconds: float = 90, name: str = "s") -> list[UUID]:
    """A load, a call and its end."""
    return [
        record(db, widget_id, name, "widget_load", at, page_url="https://shop.example/a,\n\"b\"", received_at=at),
        record(db, widget_id, name, "call_start", at, call_id="c", seq=2, received_at=at),
        record(db, widget_id, name, "call_end", at + timedelta(seconds=seconds), call_id="c", seq=3, received_at=at),
    ]


def close_months(db: Connection, *months: str) -> None:
    for month in months:
        db.execute("select * from public.close_widget_billing_period(%s)", [month])


def ledger(db: Connection) -> list[Row]:
    return db.execute("select * from public.widget_analytics order by widget_id, id").fetchall()


def rows(db: Connection, query: str, parameters: Iterable[Any] = ()) -> list[Row]:
    return db.execute(query, list(parameters)).fetchall()
