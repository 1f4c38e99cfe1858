"""widget_alarms(): nothing where all is well; else what is wrong, by name, and what to do."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from local_stack.stack import Stack
from tests.conftest import FreshDatabase
from tests.support import Connection, calls_of, clean_up, record


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    with Stack(durable=False, jobs=False, gateway=False) as stack:
        yield stack


@pytest.fixture(scope="module")
def connection(own_stack: Stack) -> Iterator[Connection]:
    with psycopg.connect(own_stack.database_url, autocommit=True, row_factory=dict_row) as connection:
        clean_up(connection)
        yield connection


@pytest.fixture
def db(connection: Connection) -> Iterator[Connection]:
    """A project of the test's own, in which all is well: alarms are the whole project's."""
    with connection.transaction(force_rollback=True):
        yield connection


def alarms(db: Connection) -> dict[tuple[str, UUID | None], str]:
    db.execute("select public.refresh_widget_health()")
    rows = db.execute("select * from public.widget_alarms()").fetchall()
    return {(row["alarm"], row["widget_id"]): row["message"] for row in rows}


def new_widget(db: Connection, **columns: Any) -> UUID:
    row = {"name": "Shop", **columns}
    names, marks = ", ".join(row), ", ".join("%s" for _ in row)
    stored = db.execute(
        f"insert into public.widgets ({names}) values ({marks}) returning id".encode(), list(row.values())
    ).fetchone()
    assert stored is not None
    widget_id: UUID = stored["id"]
    return widget_id


def hours_ago(hours: float) -> datetime:
    return datetime.now().astimezone() - timedelta(hours=hours)


def send(db: Connection, widget_id: UUID, *, events: int, hours: float) -> None:
    for n in range(events):
        record(db, widget_id, f"s{n}", "widget_load", hours_ago(hours))


def refuse(db: Connection, widget_id: UUID | None, reason: str, detail: str, times: int) -> None:
    db.execute(
        "select widget_internal.count_refusals(array_fill(row(%s, %s, %s)::widget_internal.refusal, array[%s]))",
        [widget_id, reason, detail, times],
    )


def test_a_fresh_install_has_none(fresh_database: FreshDatabase) -> None:
    """Right after the migrations, before anything has run."""
    with psycopg.connect(fresh_database().database_url, autocommit=True) as installed:
        assert installed.execute("select * from public.widget_alarms()").fetchall() == []


@pytest.mark.parametrize(
    ("reason", "detail", "what_to_do"),
    [
        ("domain_not_allowed", "blog.example", "widget-analytics widget set {} --domain"),
        ("widget_inactive", "", "widget-analytics widget set {} --active"),
        ("invalid_input", "event_type", "correct this field"),
    ],
)
def test_refusals_of_most_of_a_widgets_events(db: Connection, reason: str, detail: str, what_to_do: str) -> None:
    """Sixty of sixty were refused; of another widget more are taken than refused."""
    refused, busy = new_widget(db), new_widget(db)
    refuse(db, refused, reason, detail, 60)
    refuse(db, busy, reason, detail, 60)
    send(db, busy, events=61, hours=0)

    found = alarms(db)

    assert set(found) == {("refusals_high", refused)}
    message = found["refusals_high", refused]
    assert "60 events were refused and 0 taken" in message
    assert f"mostly {reason} {detail}".strip() in message
    assert what_to_do.format(refused) in message


def test_pages_with_an_id_that_no_widget_has(db: Connection) -> None:
    """Where the whole project gets nothing else."""
    refuse(db, None, "unknown_widget", str(uuid4()), 60)

    assert "correct the widget_id on the page" in alarms(db)["refusals_high", None]


def test_a_few_refusals_are_no_alarm(db: Connection) -> None:
    """Nineteen are too few to judge by."""
    refuse(db, new_widget(db), "domain_not_allowed", "copycat.example", 19)

    assert alarms(db) == {}


def test_a_quota_that_is_hit(db: Connection) -> None:
    """It says about how much was lost, and where to allow more: of the widget, or of the sender."""
    widget, one_sender = new_widget(db), new_widget(db)
    refuse(db, widget, "over_quota", "widget", 160)
    refuse(db, one_sender, "over_quota", "sender", 32)

    found = alarms(db)

    assert set(found) == {("over_quota", widget), ("over_quota", one_sender)}
    assert "about 160 events were refused over quota" in found["over_quota", widget]
    assert "insert into widget_quotas" in found["over_quota", widget]
    assert "events_per_sender_per_minute" in found["over_quota", one_sender]


WEEK = 7 * 24


def test_a_widget_that_fell_silent(db: Connection) -> None:
    """Busy at this time of the last two weeks, and now nothing for hours; one that still sends is none."""
    silent, alive = new_widget(db), new_widget(db)
    for widget in (silent, alive):
        for week in (1, 2):
            send(db, widget, events=30, hours=week * WEEK + 3)
        send(db, widget, events=1, hours=2 * WEEK + 48)
    send(db, alive, events=1, hours=2)

    found = alarms(db)

    assert set(found) == {("widget_silent", silent)}
    assert "30 at least in the same 6 hours" in found["widget_silent", silent]
    assert f"widget-analytics widget set {silent} --inactive" in found["widget_silent", silent]


def test_a_widget_that_was_silent_for_a_day(db: Connection) -> None:
    """Too few an hour for the short look: the day as a whole tells."""
    widget = new_widget(db)
    for hours in range(2, 24):
        send(db, widget, events=1, hours=WEEK + hours)
    send(db, widget, events=1, hours=2 * WEEK - 24)

    assert set(alarms(db)) == {("widget_silent", widget)}


@pytest.mark.parametrize(
    ("history", "columns"),
    [
        # Busy on other days, and never at this time of the week.
        ([(WEEK - 24, 30), (WEEK + 48, 30), (2 * WEEK + 48, 30)], {}),
        # Busy last week, and not the week before.
        ([(WEEK + 3, 30), (3 * WEEK, 30)], {}),
        # Not known for a week.
        ([(30, 30), (48, 30)], {}),
        ([(WEEK + 3, 30), (WEEK + 48, 30)], {"is_active": False}),
        ([(WEEK + 3, 30), (WEEK + 48, 30)], {"is_demo": True}),
    ],
    ids=["closed on this day", "closed every other week", "new", "switched off", "demo"],
)
def test_silence_that_is_no_alarm(db: Connection, history: list[tuple[float, int]], columns: dict[str, Any]) -> None:
    """A shop that is closed, that is new, that was switched off."""
    widget = new_widget(db, **columns)
    for hours, events in history:
        send(db, widget, events=events, hours=hours)

    assert alarms(db) == {}


def test_months_that_wait_to_be_closed(db: Connection) -> None:
    """Over for more than a week, where there are plans; closing them ends the alarm."""
    widget = new_widget(db)
    for days in (45, 75):
        at = hours_ago(24 * days)
        record(db, widget, f"{days}", "call_start", at, received_at=at, call_id="c")
        record(db, widget, f"{days}", "call_end", at, received_at=at, call_id="c")
    without_plans = alarms(db)
    db.execute(
        "insert into public.widget_plans (widget_id, valid_from, name, price_per_minute, currency)"
        " values (%s, date_trunc('month', now()) - interval '1 year', 'Pro', 0.10, 'EUR')",
        [widget],
    )

    message = alarms(db)["month_not_closed", None]

    assert without_plans == {}
    assert "months wait to be closed" in message
    assert re.search(
        r"widget-analytics close --month (20..-..), or select \* from close_widget_billing_period\('\1'\)", message
    )


@pytest.mark.pg_cron
def test_jobs_that_are_missing_disabled_or_failing(db: Connection) -> None:
    """Each with the statement that mends it; running that ends the alarm."""
    db.execute("select cron.unschedule('widget_prune')")
    db.execute("select cron.alter_job(jobid, active => false) from cron.job where jobname = 'widget_refresh_health'")
    db.execute(
        "insert into cron.job_run_details (jobid, command, status, return_message, start_time)"
        " select jobid, command, 'failed', 'ERROR: no', now() from cron.job where jobname = 'widget_forget_senders'"
    )

    lines = sorted(alarms(db)["job_missing", None].splitlines())

    failing, missing, disabled = lines
    assert "widget_forget_senders failed" in failing and "ERROR: no" in failing  # noqa: PT018 (one fact)
    for line in (missing, disabled):
        db.execute(line.partition(": ")[2].partition(";")[0].encode())
    db.execute("insert into cron.job_run_details (jobid, status) select jobid, 'succeeded' from cron.job")
    assert alarms(db) == {}


@pytest.mark.pg_cron
def test_a_job_that_something_else_runs(db: Connection) -> None:
    """The message names the setting that says so."""
    db.execute("select cron.unschedule('widget_complete_stale_sessions')")
    message = alarms(db)["job_missing", None]

    db.execute(message.partition("pg_cron runs it: ")[2].encode())

    assert alarms(db) == {}


def test_rights_that_are_too_wide(db: Connection) -> None:
    """As after a restore; the message names the statement that mends it."""
    db.execute("grant execute on function public.complete_stale_sessions(interval) to anon")

    message = alarms(db)["rights_too_wide", None]

    assert "execute on function public.complete_stale_sessions(interval) for anon" in message
    db.execute(message.partition(": ")[2].encode())
    assert alarms(db) == {}


def test_triggers_that_an_import_left_disabled(db: Connection) -> None:
    """Events are stored and no call follows; the message names the two statements that bring the calls back."""
    db.execute("alter table public.widget_analytics disable trigger user")
    widget_id = new_widget(db)
    record(db, widget_id, "s", "call_start", hours_ago(2), call_id="c")
    record(db, widget_id, "s", "call_end", hours_ago(1), call_id="c")
    assert calls_of(db, widget_id) == []

    message = alarms(db)["trigger_disabled", None]

    assert "triggers of public.widget_analytics are disabled, such as a_ledger_is_kept" in message
    enable, _, rebuild = message.partition(": ")[2].partition("; then ")
    db.execute(enable.encode())
    assert db.execute(rebuild.encode()).fetchall() == [{"rebuild_calls": 1}]
    assert [round(call["duration_seconds"]) for call in calls_of(db, widget_id)] == [3600]
    assert "trigger_disabled" not in {alarm for alarm, _ in alarms(db)}


def test_the_companys_backend_sees_them_all(db: Connection) -> None:
    """service_role has no right on jobs or on others' rights, and is told of them; an owner is refused."""
    db.execute("grant execute on all functions in schema public to authenticated")
    db.execute("set local role service_role")
    found = {row["alarm"] for row in db.execute("select * from public.widget_alarms()").fetchall()}
    db.execute("set local role authenticated")

    assert found == {"rights_too_wide"}
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="only the company"):
        db.execute("select * from public.widget_alarms()")
