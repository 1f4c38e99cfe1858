"""`widget-analytics status` and `cleanup`, on a stack of their own: they speak of the project as a whole."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

from local_stack.stack import Stack
from tests.client_support import LedgerCall, environment, insert_calls, run
from tests.support import clean_up, record
from tests.test_rules_of_cleanup import ago

Connection = psycopg.Connection[DictRow]


# Nothing runs in the midst of these tests, and none of it is missed.
JOBS_ELSEWHERE = (
    "update widget_internal.settings set jobs_elsewhere = array(select j.name from widget_internal.scheduled_jobs j)"
)


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    with Stack(durable=False, jobs=False, migrate=False) as running:
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
    own_db.execute(JOBS_ELSEWHERE)
    # What was installed just now is not late yet.
    own_db.execute("update widget_internal.health_state set installed_at = installed_at - interval '1 day'")

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
    own_db.execute("select public.refresh_widget_health()")
    status = run(environment(own_stack), tmp_path, "status")

    assert (cleaned.returncode, cleaned.stdout) == (0, "checked 1, completed 1, still active 0\n")
    assert (status.returncode, status.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in status.stdout.splitlines()]
    assert lines[0].startswith("last cleanup ")
    assert lines[0].endswith(" UTC, 0 minutes ago")
    assert lines[1:3] == ["checked 1, completed 1, still active 0", "open calls 1"]
    assert lines[3] == "arrived in 24 h none of 0 numbered events, 3 events in all"
    assert lines[4] == "ended in 24 h 0.0 % of 1 calls as observed, 0 ends without a call"
    assert lines[5].startswith(f"{row['now']:%Y-%m} so far ")
    assert lines[6] == "refused in 24 h 1 unknown_widget"


def test_status_for_programs(own_stack: Stack, tmp_path: Path) -> None:
    """`--json` is one object with all that the lines tell, decimals and times as text."""
    done = run(environment(own_stack), tmp_path, "status", "--json")

    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert told["last_run"]["calls_completed"] == 1
    assert (told["open_calls"], told["refusals"], told["alarms"]) == (1, {"unknown_widget": 1}, [])
    assert (told["rates"]["events_received"], told["rates"]["completion_rate"]) == (3, "0.000000")


def test_rates_below_their_thresholds_have_codes_of_their_own(
    own_stack: Stack, own_db: Connection, tmp_path: Path
) -> None:
    """11 where too few events arrive, else 12 where too few calls end as observed; limits by option or environment."""
    row = own_db.execute("insert into public.widgets (name) values ('Lossy') returning id").fetchone()
    assert row is not None
    record(own_db, row["id"], "s", "widget_open", ago(minutes=20), seq=40)
    own_db.execute("select public.refresh_widget_health()")

    lossy = run(environment(own_stack), tmp_path, "status")
    unfinished = run(environment(own_stack), tmp_path, "status", "--min-delivery", "0.02", "--min-cases", "1")
    well = run(environment(own_stack, WIDGET_ANALYTICS_MIN_DELIVERY="0"), tmp_path, "status")

    assert lossy.returncode == 11
    assert lossy.stderr.splitlines() == [
        "widget-analytics: all widgets: 2.5 % of the events arrived, expected at least 95.0 %: "
        "look at widget_delivery_rate.sql",
        f"widget-analytics: widget {row['id']}: 2.5 % of the events arrived, expected at least 95.0 %: "
        "look at widget_delivery_rate.sql",
    ]
    assert "arrived in 24 h 2.5 % of 40 numbered events" in " ".join(lossy.stdout.split())
    assert unfinished.returncode == 12
    assert unfinished.stderr.startswith("widget-analytics: all widgets: 0.0 % of the calls that are over")
    assert (well.returncode, well.stderr) == (0, "")
    own_db.execute("delete from public.widget_analytics where widget_id = %s", [row["id"]])
    own_db.execute("select widget_internal.rebuild_health()")


def test_counts_that_nobody_brings_up_to_date(own_stack: Stack, own_db: Connection, tmp_path: Path) -> None:
    """Exit code 13: rates that are not counted look well for ever."""
    own_db.execute("update widget_internal.health_state set counted_to = counted_to - interval '21 minutes'")
    late = run(environment(own_stack), tmp_path, "status")
    own_db.execute("update widget_internal.health_state set counted_to = counted_to + interval '21 minutes'")

    assert late.returncode == 13
    assert "refresh_widget_health() should run every 5 minutes" in late.stderr


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


def test_any_other_alarm_has_a_code_too(own_stack: Stack, own_db: Connection, tmp_path: Path) -> None:
    """A job that nobody runs is told with the statement that brings it back, and with exit code 14."""
    clean_up(own_db)
    own_db.execute("select public.refresh_widget_health()")
    own_db.execute("update widget_internal.settings set jobs_elsewhere = '{}'")
    try:
        done = run(
            environment(own_stack, WIDGET_ANALYTICS_MIN_DELIVERY="0"), tmp_path, "status", "--min-completion", "0"
        )
    finally:
        own_db.execute(JOBS_ELSEWHERE)

    assert done.returncode == 14
    assert "select cron.schedule('widget_complete_stale_sessions'" in done.stderr
