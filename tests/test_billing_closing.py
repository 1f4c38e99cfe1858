"""Closing a month: what is refused, that it is done once, and that no event falls between two statements."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import httpx
import psycopg
import pytest

from local_stack.stack import Stack
from tests.billing_books import Open, call, close, correct, lines, new_widget, noon, pending
from tests.support import Connection

pytest_plugins = ["tests.billing_plugin"]


@pytest.fixture
def db(books_db: Connection) -> Connection:
    return books_db


def test_closing_twice_changes_nothing_and_says_so(db: Connection, year: int) -> None:
    """The second closing answers with the first one's statement."""
    march = date(year, 3, 1)
    widget_id = new_widget(db)
    call(db, widget_id, noon(march), 100)
    first = close(db, march)
    call(db, widget_id, noon(march), 100, session="late")

    second = close(db, f"{march:%Y-%m}")

    assert second.pop("answer") == "was closed already; nothing was changed"
    assert first.pop("answer") == "closed now"
    assert first == second


def test_a_month_is_closed_in_time_with_thousands_of_late_calls(db: Connection, year: int) -> None:
    """Over REST a closing has eight seconds, also where each call of the month before has changed."""
    march, april = date(year, 3, 1), date(year, 4, 1)
    widget_id = new_widget(db)

    def events(event_type: str, seconds: int) -> None:
        db.execute(
            "insert into public.widget_analytics (widget_id, session_id, call_id, event_type, timestamp)"
            " select %s, 's' || n, 'c', %s, %s + (n * 200 + %s) * interval '1 second' from generate_series(1, 8000) n",
            [widget_id, event_type, noon(march), seconds],
        )

    events("call_start", 0)
    events("call_end", 60)
    close(db, march)
    events("call_end", 70)
    db.execute("analyze public.widget_analytics, widget_internal.call_states, public.widget_statement_lines")
    db.execute("set statement_timeout = '8s'")

    assert close(db, april)["adjustments"] == 8000


@pytest.mark.parametrize("text", ["", "2026", "2026-13", "2026-10-02", "infinity", "0000-01", "2026-10 ", None])
def test_what_is_no_month_is_refused(db: Connection, text: str | None) -> None:
    """A period without an end, or that is no month, is refused by name."""
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"^period: must be a month"):
        db.execute("select * from public.close_widget_billing_period(%s)", [text])


@pytest.mark.parametrize("days", [0, 40, 4000])
def test_a_month_that_is_not_over_is_refused(db: Connection, days: int) -> None:
    """The running month and those to come cannot be closed."""
    month = (datetime.now(UTC) + timedelta(days=days)).date().replace(day=1)

    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"^period: {month:%Y-%m} is not over before "):
        close(db, month)


def test_months_are_closed_in_order(db: Connection, year: int) -> None:
    """A month waits for the earlier ones that have calls; one without calls may be left out, and closed later."""
    january, march, april = (date(year, month, 1) for month in (1, 3, 4))
    widget_id = new_widget(db)
    call(db, widget_id, noon(march), 100)

    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"^period: {year}-03 has calls and is not closed"):
        close(db, april)
    assert close(db, march)["calls"] == 1
    call(db, widget_id, noon(january), 100, session="forgotten")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"^period: {year}-01 "):
        close(db, april)

    assert close(db, january)["calls"] == 1
    assert close(db, april)["answer"] == "closed now"
    assert pending(db, widget_id) == []


def test_only_read_committed_closes(db: Connection, year: int) -> None:
    """A transaction that cannot see what was committed meanwhile may not close a month."""
    with db.transaction():
        db.execute("set transaction isolation level repeatable read")
        with pytest.raises(psycopg.errors.FeatureNotSupported), db.transaction():
            close(db, date(year, 3, 1))


def test_who_closed_is_who_asked(db: Connection, year: int) -> None:
    """Over the API, the statement names the role and the user of the request."""
    with db.transaction():
        db.execute("""select set_config('request.jwt.claims', '{"role": "service_role", "sub": "finance"}', true)""")
        db.execute("set local role service_role")
        answer = close(db, date(year, 3, 1))

    assert answer["closed_by"] == "postgres service_role finance"


def test_two_closings_at_once(open_db: Open, year: int) -> None:
    """The second waits for the first, and then finds the month closed."""
    march = date(year, 3, 1)
    connections = [open_db() for _ in range(4)]
    call(connections[0], new_widget(connections[0]), noon(march), 100)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda connection: close(connection, march), connections))

    assert sorted(answer["answer"] for answer in answers) == [
        "closed now",
        *["was closed already; nothing was changed"] * 3,
    ]
    assert len({answer["content_hash"] for answer in answers}) == 1


def test_closing_while_a_transaction_writes(open_db: Open, year: int) -> None:
    """An uncommitted event makes the closing give up, not guess; one written afterwards is late, whenever it began."""
    march, april = date(year, 3, 1), date(year, 4, 1)
    db, writer, sleeper = open_db(), open_db(), open_db()
    widget_id = new_widget(db)

    with sleeper.transaction():
        sleeper.execute("select now()")
        with writer.transaction():
            call(writer, widget_id, noon(march), 100)
            with pytest.raises(psycopg.errors.LockNotAvailable, match="nothing was changed"):
                close(db, march)
        answer = close(db, march)
        call(sleeper, widget_id, noon(march), 50, session="late")

    assert answer["calls"] == 1
    assert [row["session_id"] for row in pending(db, widget_id)] == ["late"]
    as_of = db.execute(
        "select session_id from public.widget_billing_calls(%s, %s, %s)", [march, april, answer["as_of"]]
    ).fetchall()
    assert as_of == [{"session_id": "s"}]


def test_what_is_added_after_a_closing_in_its_transaction_is_late(db: Connection, year: int) -> None:
    """Its receipt is after the closing, though the transaction had received something before."""
    march, april = date(year, 3, 1), date(year, 4, 1)
    widget_id = new_widget(db)
    call(db, widget_id, noon(march), 100)

    with db.transaction():
        correct(db, widget_id, 70)
        as_of = close(db, march)["as_of"]
        correct(db, widget_id, 80)

    (late,) = pending(db, widget_id)
    billed = db.execute(
        "select billable_seconds from public.widget_billing_calls(%s, %s, %s)", [march, april, as_of]
    ).fetchall()
    assert (late["old_seconds"], late["new_seconds"], len(late["event_ids"])) == (70, 80, 2)
    assert billed == [{"billable_seconds": 70}]


def test_closing_while_events_pour_in(open_db: Open, year: int) -> None:
    """Every call is on one statement: in the month where it was received by the closing, else as an adjustment."""
    march, april = date(year, 3, 1), date(year, 4, 1)
    db = open_db()
    widget_id = new_widget(db)
    stop = threading.Event()
    sent = [0, 0, 0]

    def pour(writer: int) -> None:
        connection = open_db()
        while not stop.is_set():
            call(connection, widget_id, noon(march), 10, session=f"{writer}-{sent[writer]}")
            sent[writer] += 1

    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(pour, writer) for writer in range(3)]
        try:
            while min(sent) < 30:
                stop.wait(0.01)
            first = close(db, march)
            at_closing = sum(sent)
            while sum(sent) < at_closing + 60:
                stop.wait(0.01)
        finally:
            stop.set()
        for result in writers:
            result.result()
    again = db.execute(
        "select session_id, outcome, billable_seconds from public.widget_billing_calls(%s, %s, %s) order by session_id",
        [march, april, first["as_of"]],
    ).fetchall()
    second = close(db, april)

    assert 90 <= first["calls"] < sum(sent)
    assert second["adjustments"] >= 60
    key = ("session_id", "outcome", "new_seconds")
    assert sorted(tuple(row.values()) for row in again) == sorted(tuple(x[k] for k in key) for x in lines(db, march))
    total = db.execute(
        "select sum(difference_seconds) as seconds from public.widget_statement_lines where widget_id = %s", [widget_id]
    ).fetchone()
    assert total == {"seconds": 10 * sum(sent)}
    assert all(len(line["event_ids"]) in (1, 2) for line in lines(db, april))
    assert pending(db, widget_id) == []


@pytest.mark.parametrize("period", ["2999-01", "soon"])
def test_what_cannot_be_closed_is_a_400(stack: Stack, http: httpx.Client, period: str) -> None:
    """Over REST, a closing that is refused says why."""
    answer = http.post(
        "/rest/v1/rpc/close_widget_billing_period", headers={"apikey": stack.secret_key}, json={"period": period}
    )

    assert answer.status_code == 400
    assert answer.json()["code"] == "22023"
    assert answer.json()["message"].startswith("period: ")


def test_a_closing_that_fails_holds_nobody_up(open_db: Open, year: int) -> None:
    """Whatever goes wrong while writers are held up, they go on at once, and the month is open."""
    march = date(year, 3, 1)
    db, other = open_db(), open_db()
    widget_id = new_widget(db)
    call(db, widget_id, noon(march), 100)

    with db.transaction(force_rollback=True):
        db.execute("drop function widget_internal.statement_lines(date, timestamptz)")
        with pytest.raises(psycopg.errors.UndefinedFunction), db.transaction():
            close(db, march)
    held = other.execute(
        "select * from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock'"
        " and (classid::bigint << 32 | objid::bigint) = widget_internal.receipts_key()"
    ).fetchall()
    assert held == []
    call(other, widget_id, noon(march), 50, session="next")
    assert close(db, march)["calls"] == 2


def test_months_are_closed_by_themselves_after_a_grace_period(db: Connection, year: int) -> None:
    """Off unless a grace period of a week at least is set; then the daily job closes what is due, in order."""
    march, may = date(year, 3, 1), date(year, 5, 1)
    widget_id = new_widget(db)
    for month in (march, may):
        call(db, widget_id, noon(month), 100, session=str(month))
    job = db.execute("select command from widget_internal.scheduled_jobs where name = 'widget_close_months'").fetchone()
    assert job is not None
    closed = "select array_agg(period order by period) as months from public.widget_billing_periods where period >= %s"

    with db.transaction(force_rollback=True):
        db.execute(job["command"])
        by_default = db.execute(closed, [march]).fetchone()
        db.execute("select public.schedule_widget_closing('8 days')")
        waiting = db.execute("select closes_at - period_end as after from public.widget_months_to_close()").fetchall()
        db.execute(job["command"])
        after = db.execute(closed, [march]).fetchone()

    assert by_default is not None
    assert after is not None
    assert march not in (by_default["months"] or [])
    assert {march, may} <= set(after["months"])
    assert {month["after"] for month in waiting} == {timedelta(days=8)}
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="after: must be at least 7 days"):
        db.execute("select public.schedule_widget_closing('6 days')")
