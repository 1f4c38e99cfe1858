"""The cleanup, alone, repeated, in parallel, from pg_cron and over HTTP."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from uuid import UUID

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from local_stack.stack import Stack
from tests.conftest import Connect, FreshDatabase, NewWidget
from tests.support import Connection, Row, calls_of, clean_up, differences, events_of, record

JOB = "widget_complete_stale_sessions"


@pytest.fixture
def widget_id(new_widget: NewWidget) -> UUID:
    return new_widget()


def ago(**time: float) -> datetime:
    return datetime.now(UTC) - timedelta(**time)


def await_true(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, f"{what}: not within {seconds} s"
        sleep(0.05)


def inferred_ends(db: Connection, widget_id: UUID) -> list[Row]:
    return [row for row in events_of(db, widget_id) if row["source"] == "inferred"]


def test_r7_a_silent_call_is_assumed_to_last_half_an_hour(db: Connection, widget_id: UUID) -> None:
    """A call without a heartbeat is assumed to have lasted assumed_call_duration."""
    started_at = ago(hours=2)
    record(db, widget_id, "s", "call_start", started_at, call_id="a")

    clean_up(db)

    (end,) = inferred_ends(db, widget_id)
    assert (end["event_type"], end["call_id"], end["timestamp"]) == (
        "call_end",
        "a",
        started_at + timedelta(minutes=30),
    )
    (call,) = calls_of(db, widget_id)
    assert (call["duration_seconds"], call["evidence"]) == (1800, "assumed")


def test_r7_a_call_ends_at_its_last_heartbeat(db: Connection, widget_id: UUID) -> None:
    """Never past the last sign of life."""
    started_at = ago(hours=2)
    last_heartbeat_at = started_at + timedelta(minutes=70)
    record(db, widget_id, "s", "call_start", started_at)
    record(db, widget_id, "s", "call_heartbeat", started_at + timedelta(minutes=1))
    record(db, widget_id, "s", "call_heartbeat", last_heartbeat_at)

    clean_up(db)

    (end,) = inferred_ends(db, widget_id)
    assert end["timestamp"] == last_heartbeat_at
    (call,) = calls_of(db, widget_id)
    assert (call["duration_seconds"], call["evidence"]) == (70 * 60, "heartbeat")


def test_r7_a_living_call_is_left_alone(db: Connection, widget_id: UUID) -> None:
    """Young calls are not looked at; an old one with a young heartbeat is counted as still active."""
    record(db, widget_id, "young", "call_start", ago(minutes=29))
    record(db, widget_id, "alive", "call_start", ago(hours=3))
    record(db, widget_id, "alive", "call_heartbeat", ago(minutes=29))

    counts = clean_up(db)

    assert inferred_ends(db, widget_id) == []
    assert counts["calls_still_active"] >= 1
    assert {call["outcome"] for call in calls_of(db, widget_id)} == {"open"}


def test_r7_running_again_changes_nothing(db: Connection, widget_id: UUID) -> None:
    """The second run finds nothing to do; an unnamed second call of the session is completed on its own."""
    record(db, widget_id, "s", "call_start", ago(hours=5))
    record(db, widget_id, "s", "call_start", ago(hours=2))

    clean_up(db)
    first = events_of(db, widget_id)
    clean_up(db)

    assert events_of(db, widget_id) == first
    assert [call["duration_seconds"] for call in calls_of(db, widget_id)] == [1800, 1800]
    assert differences(db, widget_id) == []


@pytest.mark.parametrize(
    ("age", "stale_after"),
    [(timedelta(minutes=10), timedelta(minutes=1)), (timedelta(hours=9), timedelta(hours=4))],
)
def test_r7_no_bill_depends_on_stale_after(
    db: Connection, widget_id: UUID, age: timedelta, stale_after: timedelta
) -> None:
    """stale_after says only when a call is looked at: it is assumed to have lasted half an hour all the same."""
    started_at = datetime.now(UTC) - age
    record(db, widget_id, "s", "call_start", started_at)

    clean_up(db, stale_after)

    assert inferred_ends(db, widget_id)[0]["timestamp"] == started_at + timedelta(minutes=30)
    (call,) = calls_of(db, widget_id)
    assert (call["duration_seconds"], call["evidence"]) == (1800, "assumed")


def test_r7_a_negative_stale_after_is_refused_by_name(db: Connection) -> None:
    """The error says what is wrong, and nothing ran."""
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="stale_after"):
        clean_up(db, timedelta(minutes=-1))


def test_r7_an_assumed_length_ends_before_the_next_call(db: Connection, widget_id: UUID) -> None:
    """One sender does not hold two calls at once: an unnamed call that was lost ended when the next one began."""
    for session, starts_and_end in {"lost": (0, 90, 150), "twice": (0, 2, 60)}.items():
        first, second, end = (ago(hours=3) + timedelta(seconds=offset) for offset in starts_and_end)
        record(db, widget_id, session, "call_start", first)
        record(db, widget_id, session, "call_start", second)
        record(db, widget_id, session, "call_end", end)

    clean_up(db)

    assert sorted(round(call["duration_seconds"]) for call in calls_of(db, widget_id)) == [2, 58, 60, 90]


def test_r7_the_assumed_length_is_a_setting(db: Connection, widget_id: UUID) -> None:
    """A changed assumed_call_duration settles assumed calls anew, and no other."""
    record(db, widget_id, "s", "call_start", ago(hours=2), call_id="assumed")
    record(db, widget_id, "s", "call_start", ago(hours=3), call_id="ended")
    record(db, widget_id, "s", "call_end", ago(hours=2), call_id="ended")
    clean_up(db)

    found = []
    try:
        for minutes in (5, 30):
            db.execute(
                "update widget_internal.settings set assumed_call_duration = make_interval(mins => %s)", [minutes]
            )
            found.append({call["call_id"]: round(call["duration_seconds"]) for call in calls_of(db, widget_id)})
    finally:
        db.execute("update widget_internal.settings set assumed_call_duration = default")

    assert found == [{"assumed": 300, "ended": 3600}, {"assumed": 1800, "ended": 3600}]
    assert differences(db, widget_id) == []


def test_r7_a_second_run_at_once_says_so(stack: Stack, db: Connection, widget_id: UUID) -> None:
    """While one cleanup runs another does nothing, at once, and leaves no row."""
    record(db, widget_id, "s", "call_start", ago(hours=2), call_id="a")
    runs = "select count(*) as n from public.widget_cleanup_runs"
    with psycopg.connect(stack.database_url, row_factory=dict_row) as first:
        clean_up(first)
        before = db.execute(runs).fetchone()
        second = clean_up(db)
        after = db.execute(runs).fetchone()

    assert second == {"calls_checked": 0, "calls_completed": 0, "calls_still_active": 0, "calls_left": None}
    assert before == after
    assert len(inferred_ends(db, widget_id)) == 1


def test_r7_what_does_not_fit_is_left_for_the_next_run(db: Connection, connect: Connect, widget_id: UUID) -> None:
    """A run that has no time left keeps the part that it did and says how many calls are left."""
    db.execute(
        """
        insert into public.widget_analytics (widget_id, session_id, call_id, event_type, timestamp)
        select %s, 's', 'c' || n, 'call_start', now() - interval '2 hours' from generate_series(1, 2500) n
        """,
        [widget_id],
    )
    # The function reads that it has a millisecond; the statement itself keeps the time that it had.
    part = """
        select r.* from (select set_config('statement_timeout', '1ms', true)) s (timeout)
        cross join lateral public.complete_stale_sessions(case when s.timeout = '1ms' then interval '30 minutes' end) r
    """

    runs = [db.execute(part).fetchone() for _ in range(3)]

    assert [(run["calls_completed"], run["calls_left"]) for run in runs if run] == [(1000, 1500), (1000, 500), (500, 0)]
    assert {call["evidence"] for call in calls_of(db, widget_id)} == {"assumed"}


def test_r7_a_late_real_end_outranks(db: Connection, widget_id: UUID) -> None:
    """The real end of a call that was completed by inference bills, both events stay in the ledger."""
    started_at = ago(hours=2)
    record(db, widget_id, "s", "call_start", started_at)
    clean_up(db)

    record(db, widget_id, "s", "call_end", started_at + timedelta(minutes=5))

    (call,) = calls_of(db, widget_id)
    assert (call["duration_seconds"], call["evidence"]) == (300, "observed")
    assert len(events_of(db, widget_id)) == 3


def test_r7_after_an_outage_of_days_one_run_is_enough(db: Connection, widget_id: UUID) -> None:
    """2,000 calls of seven days without a cleanup are each completed as if it had run on time."""
    db.execute(
        """
        insert into public.widget_analytics (widget_id, session_id, event_type, timestamp, received_at)
        select %s, 's' || n, 'call_start', now() - n * interval '5 minutes', now() - n * interval '5 minutes'
        from generate_series(8, 2007) n
        """,
        [widget_id],
    )

    clean_up(db)

    calls = calls_of(db, widget_id)
    assert len(calls) == 2000
    assert {(call["duration_seconds"], call["evidence"]) for call in calls} == {(1800, "assumed")}


def test_r7_parallel_cleanups_and_late_ends(stack: Stack, db: Connection, widget_id: UUID) -> None:
    """Eight cleanups against a storm of late ends: at most one inferred end a call, and the real one bills."""
    calls = 120
    started_at = ago(hours=2)
    for number in range(calls):
        record(db, widget_id, f"s{number % 40}", "call_start", started_at, call_id=f"c{number}")
    gate = threading.Barrier(12)

    def cleaner(_: int) -> None:
        with psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as own:
            gate.wait()
            for _run in range(5):
                clean_up(own)

    def ender(part: int) -> None:
        with psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as own:
            gate.wait()
            for number in range(part, calls, 4):
                record(
                    own, widget_id, f"s{number % 40}", "call_end", started_at + timedelta(seconds=60),
                    call_id=f"c{number}",
                )  # fmt: skip

    with ThreadPoolExecutor(12) as pool:
        for done in [pool.submit(cleaner, n) for n in range(8)] + [pool.submit(ender, n) for n in range(4)]:
            done.result()

    inferred = [row["call_id"] for row in inferred_ends(db, widget_id)]
    assert len(inferred) == len(set(inferred))
    assert {(call["duration_seconds"], call["evidence"]) for call in calls_of(db, widget_id)} == {(60, "observed")}
    assert differences(db, widget_id) == []


def test_r7_every_run_is_recorded(db: Connection, widget_id: UUID) -> None:
    """A run leaves a row with its times and counts; one that fails leaves its error and nothing else."""
    record(db, widget_id, "s", "call_start", ago(hours=2))
    counts = clean_up(db)
    good = db.execute("select * from public.widget_cleanup_runs order by id desc limit 1").fetchone()

    record(db, widget_id, "s", "call_start", ago(hours=2), call_id="b")
    db.execute("alter table public.widget_analytics add constraint no_inferred check (source <> 'inferred') not valid")
    try:
        failed_counts = clean_up(db)
    finally:
        db.execute("alter table public.widget_analytics drop constraint no_inferred")
    failed = db.execute("select * from public.widget_cleanup_runs order by id desc limit 1").fetchone()

    assert good is not None
    assert failed is not None
    assert {name: good[name] for name in counts} == counts
    assert good["error"] is None
    assert good["started_at"] <= good["finished_at"]
    assert set(failed_counts.values()) == {0}
    assert failed["error"].startswith("23514: ")
    assert len(inferred_ends(db, widget_id)) == 1


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_r7_a_run_in_a_snapshot_fails_and_says_so(
    db: Connection, connect: Connect, widget_id: UUID, level: str
) -> None:
    """It does not see the heartbeat that has just come in: it must not infer that the call is over."""
    record(db, widget_id, "s", "call_start", ago(hours=2), call_id="a")
    cleanup = connect("service_role")
    cleanup.execute(f"begin isolation level {level}".encode())
    cleanup.execute("select count(*) from public.widget_calls")  # from here on it sees nothing new
    record(db, widget_id, "s", "call_heartbeat", ago(minutes=1), call_id="a")

    cleanup.execute("select * from public.complete_stale_sessions()")
    cleanup.execute("commit")

    run = db.execute("select error from public.widget_cleanup_runs order by id desc limit 1").fetchone()
    assert run is not None
    assert run["error"].startswith("0A000: ")
    assert inferred_ends(db, widget_id) == []
    assert differences(db, widget_id) == []


def test_r7_a_failed_run_answers_500_over_http(
    stack: Stack, http: httpx.Client, db: Connection, widget_id: UUID
) -> None:
    """Who triggers a run that fails hears of it, and nothing is half done."""
    record(db, widget_id, "s", "call_start", ago(hours=2))
    db.execute("alter table public.widget_analytics add constraint no_inferred check (source <> 'inferred') not valid")
    try:
        answer = http.post("/functions/v1/cleanup", headers={"authorization": f"Bearer {stack.cron_secret}"})
    finally:
        db.execute("alter table public.widget_analytics drop constraint no_inferred")

    assert answer.status_code == 500
    assert inferred_ends(db, widget_id) == []


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_r7_only_the_company_runs_it(connect: Connect, role: str) -> None:
    """Neither anonymous callers nor widget owners can run the cleanup."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connect(role).execute("select * from public.complete_stale_sessions()")


def test_r7_its_work_follows_the_open_calls(db: Connection) -> None:
    """The open calls are found by their own index, whatever the ledger's size."""
    with db.transaction(force_rollback=True):
        db.execute("set local enable_seqscan = off")
        plan = db.execute(
            "explain select * from public.widget_calls where ended_at is null and started_at < now()"
        ).fetchall()

    assert "call_states_open_idx" in str(plan)


@pytest.mark.pg_cron
def test_pg_cron_runs_the_cleanup(fresh_database: FreshDatabase) -> None:
    """The migrations schedule it every 30 minutes, and the job, set to each minute, completes a stale call."""
    with psycopg.connect(fresh_database(jobs=True).database_url, autocommit=True, row_factory=dict_row) as db:
        job = db.execute("select * from cron.job where jobname = %s", [JOB]).fetchone()
        assert job is not None
        assert (job["schedule"], job["active"]) == ("*/30 * * * *", True)
        widget = db.execute("insert into public.widgets default values returning id").fetchone()
        assert widget is not None
        record(db, widget["id"], "s", "call_start", ago(hours=1))

        db.execute("select cron.alter_job(%s, schedule => '* * * * *')", [job["jobid"]])

        await_true(lambda: inferred_ends(db, widget["id"]) != [], 240, "pg_cron's run")
        await_true(
            lambda: db.execute("select from cron.job_run_details where status = 'succeeded'").fetchone() is not None,
            60,
            "pg_cron's record of it",
        )
