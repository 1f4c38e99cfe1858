"""Notes of runs and counts of refusals are kept for as long as the settings say, and nobody else's are touched."""

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from psycopg.rows import dict_row

from local_stack.places import SUPABASE
from local_stack.stack import Stack
from tests.conftest import Connect, FreshDatabase
from tests.support import Connection, Row, record
from tests.test_rules_of_cleanup import ago

SCHEDULE = SUPABASE / "schemas" / "1_core" / "91_schedule.sql"


@pytest.fixture(scope="module")
def db() -> Iterator[Connection]:
    """Of a database of these tests' own: pruning meets everyone's notes."""
    with (
        Stack(durable=False, jobs=False, gateway=False) as stack,
        psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as connection,
    ):
        yield connection


def prune(db: Connection) -> Row:
    row = db.execute("select * from widget_internal.prune()").fetchone()
    assert row is not None
    return row


def note_cleanup(db: Connection, *, days_ago: float) -> int:
    row = db.execute(
        "insert into public.widget_cleanup_runs (started_at) values (%s) returning id", [ago(days=days_ago)]
    ).fetchone()
    assert row is not None
    return int(row["id"])


def note_job_run(db: Connection, job: str, *, days_ago: float | None) -> int:
    """A run as pg_cron notes it; without a time it was cut short by a crash."""
    row = db.execute(
        "insert into cron.job_run_details (jobid, command, status, start_time, end_time)"
        " select jobid, command, 'failed', %s, %s from cron.job where jobname = %s returning runid",
        [None if days_ago is None else ago(days=days_ago)] * 2 + [job],
    ).fetchone()
    assert row is not None
    return int(row["runid"])


def ids(db: Connection, table: str, key: str) -> set[int]:
    return {row[key] for row in db.execute(f"select {key} from {table}").fetchall()}


def test_old_notes_of_the_cleanup_go(db: Connection) -> None:
    """What is older than keep_runs, 90 days unless set otherwise, and nothing else."""
    old, young = note_cleanup(db, days_ago=91), note_cleanup(db, days_ago=89)

    assert prune(db)["cleanup_runs"] == 1

    assert ids(db, "public.widget_cleanup_runs", "id") & {old, young} == {young}


def test_the_last_note_of_the_cleanup_stays(db: Connection) -> None:
    """However old it is: it says since when the cleanup has not run."""
    db.execute("delete from public.widget_cleanup_runs")
    last = note_cleanup(db, days_ago=500)

    prune(db)

    assert ids(db, "public.widget_cleanup_runs", "id") == {last}


def test_old_counts_of_refusals_go(db: Connection) -> None:
    """The hours older than keep_refusals, 400 days unless set otherwise."""
    for days in (401, 399):
        db.execute(
            "insert into widget_internal.refusal_counts (hour, reason, detail, shard, refusals)"
            " values (date_trunc('hour', %s::timestamptz), 'unknown_widget', %s, 0, 1)",
            [ago(days=days), str(days)],
        )

    assert prune(db)["refusal_counts"] == 1

    assert [row["detail"] for row in db.execute("select detail from public.widget_refusals").fetchall()] == ["399"]


def test_old_notes_of_our_jobs_go_and_other_jobs_keep_theirs(db: Connection) -> None:
    """pg_cron's notes: of all our jobs, also the cut-short runs among the old; of the project's own jobs none."""
    db.execute("select cron.schedule('widgets_report', '0 3 1 1 *', 'select 1')")
    ours = [row["jobname"] for row in db.execute("select jobname from cron.job where jobname <> 'widgets_report'")]
    assert {"widget_complete_stale_sessions", "widget_prune"} <= set(ours)
    old = {note_job_run(db, job, days_ago=days) for job in ours for days in (200, None, 91)}
    theirs = {note_job_run(db, "widgets_report", days_ago=200)}
    young = {note_job_run(db, job, days_ago=days) for job in ours for days in (89, None, 0)}

    assert prune(db)["job_runs"] == len(old)

    assert ids(db, "cron.job_run_details", "runid") & (old | theirs | young) == theirs | young


def test_every_job_that_a_migration_schedules_is_known(db: Connection) -> None:
    """As it is scheduled: widget_alarms() names the statement that brings a missing one back."""
    scheduled = "select jobname, schedule, command from cron.job where jobname like 'widget\\_%' order by 1"
    known = "select name as jobname, schedule, command from widget_internal.scheduled_jobs order by 1"

    assert db.execute(known.encode()).fetchall() == db.execute(scheduled.encode()).fetchall()


def test_how_long_is_a_setting(db: Connection) -> None:
    """One day at least; a shorter time is refused."""
    young, younger, _last = (note_cleanup(db, days_ago=days) for days in (3, 1, 0))
    with db.transaction(force_rollback=True):
        db.execute("update widget_internal.settings set keep_runs = %s", [timedelta(days=2)])
        prune(db)
        assert ids(db, "public.widget_cleanup_runs", "id") & {young, younger} == {younger}

    with pytest.raises(psycopg.errors.CheckViolation, match="keep_runs_is_a_day_at_least"):
        db.execute("update widget_internal.settings set keep_runs = interval '1 hour'")


def test_events_calls_and_bills_are_not_touched(db: Connection) -> None:
    """However old they are: they are what is billed."""
    widget = db.execute("insert into public.widgets default values returning id").fetchone()
    assert widget is not None
    record(db, widget["id"], "s", "call_start", ago(days=3000), received_at=ago(days=3000))
    kept = "select (select count(*) from public.widget_analytics), (select count(*) from public.widget_calls)"
    before = db.execute(kept).fetchone()

    prune(db)

    assert db.execute(kept).fetchone() == before


def test_pg_cron_prunes_every_day(db: Connection) -> None:
    """The migrations schedule it as the project's owner, and what the job says removes an old note."""
    job = db.execute("select * from cron.job where jobname = 'widget_prune'").fetchone()
    assert job is not None
    assert (job["schedule"], job["active"], job["username"]) == ("17 3 * * *", True, "postgres")
    old, _last = note_cleanup(db, days_ago=91), note_cleanup(db, days_ago=0)

    db.execute(job["command"])

    assert old not in ids(db, "public.widget_cleanup_runs", "id")


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
def test_no_caller_prunes(connect: Connect, role: str) -> None:
    """Over the API nobody removes anything."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connect(role).execute("select * from widget_internal.prune()")


@pytest.mark.pg_cron
def test_where_notes_cannot_be_removed_the_migration_says_so(fresh_database: FreshDatabase) -> None:
    """Without pg_cron, and without the right to remove its notes: it fails, by name."""
    script = SCHEDULE.read_bytes()
    without = fresh_database(migrate=False, scheduler=False)
    with_cron = fresh_database(migrate=False)
    with psycopg.connect(with_cron.superuser_url, autocommit=True) as platform:
        platform.execute("revoke delete on cron.job_run_details from postgres, public")

    for stack, problem in ((without, "pg_cron"), (with_cron, "postgres may not delete")):
        with (
            psycopg.connect(stack.database_url, autocommit=True) as project,
            pytest.raises(psycopg.errors.InsufficientPrivilege, match=problem),
        ):
            project.execute(script)


def test_an_end_that_the_company_recorded_waits_for_its_start(db: Connection) -> None:
    """A browser's is forgotten after two weeks, as its start cannot come any more; a record's may come at any time."""
    row = db.execute("insert into public.widgets (name) values ('late') returning id").fetchone()
    assert row is not None
    for session, source in (("lost", "browser"), ("recorded", "server")):
        record(db, row["id"], session, "call_end", ago(days=20), call_id="c", source=source)
    assert prune(db)["orphans"] == 1

    record(db, row["id"], "recorded", "call_start", ago(days=20, minutes=5), call_id="c", source="server")

    calls = db.execute("select outcome from public.widget_calls where widget_id = %s", [row["id"]]).fetchall()
    assert calls == [{"outcome": "completed"}]
