"""Months that leave the ledger for Parquet files: what is moved, what comes late, and who is killed in between."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row

from local_stack.stack import Stack
from tests.archive_support import FEBRUARY, JANUARY, close_months, command, ledger, new_widget, rows, session
from tests.support import Connection


@pytest.fixture(scope="module")
def server() -> Iterator[Stack]:
    with Stack(durable=False, gateway=False) as stack:
        yield stack


@pytest.fixture
def url(server: Stack) -> str:
    return server.database_url


@pytest.fixture
def db(url: str) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def test_a_month_leaves(url: str, db: Connection, tmp_path: Path) -> None:
    widget_id = new_widget(db)
    session(db, widget_id, JANUARY, name="january")
    session(db, widget_id, FEBRUARY, name="february")
    close_months(db, "2026-01", "2026-02")
    usage = rows(db, "select * from public.widget_billing_usage('2026-01-01', '2026-02-01')")

    done = command(url, "archive", "--month", "2026-01", "--to", tmp_path)
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    print([r["session_id"] for r in ledger(db)])
    done = command(url, "bill", "--archive", tmp_path, "--month", "2026-01", "--detail", "calls")
    print(done, usage)
    done = command(url, "bill", "--archive", tmp_path, "--month", "2026-01")
    print(done)
    print(rows(db, "select * from public.widget_pending_adjustments()"))
    session(db, widget_id, JANUARY, name="january")
    print(rows(db, "select * from public.widget_late_events"))
    done = command(url, "restore")
    print(done)
    print(rows(db, "select * from public.widget_late_events"))
    print([r["session_id"] for r in ledger(db)])
    print(rows(db, "select * from public.widget_pending_adjustments()"))
    assert 0
