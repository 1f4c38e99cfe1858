"""What the tests of the archive share: databases of their own, a ledger with closed months, and the command on it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row

from local_stack.stack import Stack
from tests.client_support import run
from tests.support import Connection, Row, record
from widget_analytics._archive.move import Archived, archive_month
from widget_analytics._archive.place import Place
from widget_analytics.models import Call, Usage

JANUARY = datetime(2026, 1, 10, 12, tzinfo=UTC)
FEBRUARY = datetime(2026, 2, 10, 12, tzinfo=UTC)
MARCH = datetime(2026, 3, 10, 12, tzinfo=UTC)


_TEMPLATE = "as_new"


@contextmanager
def new_server() -> Iterator[Stack]:
    """A server with a database as new, in which nobody is: it can be copied."""
    with Stack(durable=False, jobs=False, gateway=False) as stack:
        with psycopg.connect(_url(stack.database.superuser_url, "template1"), autocommit=True) as platform:
            for attempts_left in reversed(range(20)):
                # The scheduler comes back to its database when it is sent away, but not at once.
                platform.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = 'postgres'")
                try:
                    platform.execute(f"create database {_TEMPLATE} template postgres owner postgres")
                    break
                except psycopg.errors.ObjectInUse:
                    if not attempts_left:
                        raise
        yield stack


@contextmanager
def database_copy(server: Stack) -> Iterator[str]:
    """A database as new, for one test: months are archived in order, and stay so."""
    name = f"archive_{uuid4().hex}"
    with psycopg.connect(_url(server.database.superuser_url, "template1"), autocommit=True) as platform:
        platform.execute(f"create database {name} template {_TEMPLATE} owner postgres")
    yield _url(server.database_url, name)


def _url(url: str, database: str) -> str:
    return url.replace("/postgres?", f"/{database}?")


def connect(url: str) -> Connection:
    return psycopg.connect(url, autocommit=True, row_factory=dict_row)


def command(database_url: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `widget-analytics` to its end."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return run(kept | {"SUPABASE_DB_URL": database_url} | environment, Path("/"), *arguments)


def new_widget(db: Connection) -> UUID:
    row = db.execute("insert into public.widgets (allowed_domains) values ('{*}') returning id").fetchone()
    assert row is not None
    widget_id: UUID = row["id"]
    return widget_id


def session(
    db: Connection, widget_id: UUID, at: datetime, name: str, *, lasts: timedelta = timedelta(seconds=90)
) -> list[UUID]:
    """A load, a call `c` and its end, with whatever a file could stumble on."""
    odd = {"page_url": 'https://shop.example/a,\n"b"|1', "user_agent": "", "properties": {"é": [1.50, None, "\\N"]}}
    return [
        record(db, widget_id, name, "widget_load", at, received_at=at, **odd),
        record(db, widget_id, name, "call_start", at, received_at=at, call_id="c", seq=2),
        record(db, widget_id, name, "call_end", at + lasts, received_at=at + lasts, call_id="c", seq=3),
    ]


def close_months(db: Connection, *months: str) -> None:
    for month in months:
        db.execute("select * from public.close_widget_billing_period(%s)", [month])


def move(url: str, place: Path | str, month: str, **options: Any) -> Archived:
    with psycopg.connect(url, autocommit=True) as connection:
        return archive_month(connection, Place(str(place)), month, **options)


def usage(db: Connection, *months: str) -> list[Row]:
    """What Postgres says of months, in the columns of the client's model."""
    return rows(
        db,
        f"select {', '.join(Usage.columns())} from public.widget_billing_usage("
        " (select period_start from public.widget_billing_period(%s)),"
        " (select period_end from public.widget_billing_period(%s))) order by widget_id",
        months[0],
        months[-1],
    )


def calls(db: Connection, month: str) -> list[Row]:
    return rows(
        db,
        f"select {', '.join(f'c.{name}' for name in Call.columns())} from public.widget_billing_period(%s) p,"
        " public.widget_billing_calls(p.period_start, p.period_end) c"
        " order by started_at, c.widget_id::text, session_id, call_id",
        month,
    )


def rows(db: Connection, query: str, *parameters: Any) -> list[Row]:
    return db.execute(query, parameters).fetchall()


def ledger(db: Connection) -> list[Row]:
    return rows(db, "select * from public.widget_analytics order by widget_id, id")


def session_names(db: Connection) -> set[str]:
    return {row["session_id"] for row in ledger(db)}
