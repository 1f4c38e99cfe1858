"""`widget-analytics status` and `cleanup`, on a stack of their own: they speak of the project as a whole."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

from local_stack.stack import Stack
from tests.client_support import LedgerCall, environment, insert_calls, run

Connection = psycopg.Connection[DictRow]


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    with Stack(durable=False, migrate=False) as running:
        yield running


@pytest.fixture(scope="module")
def own_db(own_stack: Stack) -> Iterator[Connection]:
    with psycopg.connect(own_stack.database_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def test_before_the_migrations(own_stack: Stack, tmp_path: Path) -> None:
    """Each command says in one line what to do, with exit code 5."""
    for arguments in (["status"], ["cleanup"], ["export", "--month", "2026-10", "--output", "bill.csv"]):
        done = run(environment(own_stack), tmp_path, *arguments)

        assert (done.returncode, done.stdout) == (5, "")
        assert "Run `supabase db push`" in done.stderr
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_project_whose_cleanup_never_ran_is_late(own_stack: Stack, own_db: Connection, tmp_path: Path) -> None:
    """Exit code 1, and the reason on standard error."""
    own_stack.push_migrations()
    own_stack.restart_gateway()
    own_db.execute("select cron.unschedule(jobid) from cron.job")

    done = run(environment(own_stack), tmp_path, "status")

    assert done.returncode == 1
    assert "never" in done.stdout
    assert done.stderr.startswith("widget-analytics: the cleanup is late")


def test_cleanup_completes_stale_calls_and_status_is_well(own_stack: Stack, own_db: Connection, tmp_path: Path) -> None:
    """Counts of the run, of open calls, of this month and of refusals; exit code 0."""
    row = own_db.execute("insert into public.widgets (name) values ('Shop') returning id, now() as now").fetchone()
    assert row is not None
    insert_calls(
        own_db,
        row["id"],
        [
            LedgerCall(started_at=row["now"] - timedelta(minutes=50), session_id="stale", call_id="c", lasts=None),
            LedgerCall(started_at=row["now"] - timedelta(minutes=2), session_id="fresh", call_id="c", lasts=None),
        ],
    )
    own_db.execute("select public.track_event(%s, 'widget_load', 's')", [uuid4()])

    cleaned = run(environment(own_stack), tmp_path, "cleanup")
    status = run(environment(own_stack), tmp_path, "status")

    assert (cleaned.returncode, cleaned.stdout) == (0, "checked 1, completed 1, still active 0\n")
    assert (status.returncode, status.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in status.stdout.splitlines()]
    assert lines[0].startswith("last cleanup ")
    assert lines[0].endswith(" UTC, 0 minutes ago")
    assert lines[1:3] == ["checked 1, completed 1, still active 0", "open calls 1"]
    assert lines[3].startswith(f"{row['now']:%Y-%m} so far ")
    assert lines[4] == "refused in 24 h 1 unknown_widget"


def test_a_shorter_limit_completes_more(own_stack: Stack, tmp_path: Path) -> None:
    """`--stale-after` is in minutes."""
    done = run(environment(own_stack), tmp_path, "cleanup", "--stale-after", "1")

    assert (done.returncode, done.stdout) == (0, "checked 1, completed 1, still active 0\n")


def test_a_cleanup_of_more_than_35_minutes_ago_is_late(own_stack: Stack, own_db: Connection, tmp_path: Path) -> None:
    """34 minutes are well, 36 are not."""
    for minutes, code in ((34, 0), (36, 1)):
        own_db.execute(
            """
            update public.widget_cleanup_runs
            set started_at = now() - make_interval(mins => %s), finished_at = now() - make_interval(mins => %s)
            """,
            [minutes, minutes],
        )

        assert run(environment(own_stack), tmp_path, "status").returncode == code


def test_a_failed_cleanup_is_told(own_stack: Stack, own_db: Connection, tmp_path: Path) -> None:
    """Exit code 1, and the database's reason; a cleanup that fails now exits with 6."""
    row = own_db.execute("select id, now() as now from public.widgets").fetchone()
    assert row is not None
    insert_calls(
        own_db,
        row["id"],
        [LedgerCall(started_at=row["now"] - timedelta(hours=1), session_id="stuck", call_id="c", lasts=None)],
    )
    own_db.execute("alter table public.widget_analytics add constraint nothing_more check (false) not valid")
    try:
        failed = run(environment(own_stack), tmp_path, "cleanup")
    finally:
        own_db.execute("alter table public.widget_analytics drop constraint nothing_more")

    status = run(environment(own_stack), tmp_path, "status")

    assert (failed.returncode, failed.stdout) == (6, "")
    assert "the cleanup failed" in failed.stderr
    assert status.returncode == 1
    assert status.stderr.startswith("widget-analytics: the last cleanup failed: 23514")
