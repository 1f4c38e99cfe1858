"""Closed months: what a statement holds, that nothing changes it, and how what comes late is billed.

On a database of its own, as a closed month stays closed. Each test has a year of its own, the next one an earlier
one, so that none leaves earlier months open to the others.
"""

import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from local_stack.stack import Stack
from tests.support import Connection, Row, record

_years = itertools.count(2019, -1)

Open = Callable[[], Connection]


@pytest.fixture(scope="module")
def books() -> Iterator[Stack]:
    """A database with closed months."""
    with Stack(durable=False, jobs=False, gateway=False) as stack:
        yield stack


@pytest.fixture
def open_db(books: Stack) -> Iterator[Open]:
    opened: list[Connection] = []

    def open_one() -> Connection:
        opened.append(psycopg.connect(books.database_url, autocommit=True, row_factory=dict_row))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture
def db(open_db: Open) -> Connection:
    return open_db()


@pytest.fixture
def year() -> int:
    return next(_years)


def new_widget(db: Connection, owner_id: UUID | None = None) -> UUID:
    if owner_id is not None:
        db.execute("insert into auth.users (id, email) values (%s, %s)", [owner_id, f"{owner_id}@owner.example"])
    row = db.execute("insert into public.widgets (owner_id) values (%s) returning id", [owner_id]).fetchone()
    assert row is not None
    widget_id: UUID = row["id"]
    return widget_id


def add_plan(db: Connection, widget_id: UUID, valid_from: date, **terms: Any) -> None:
    plan = {"name": "Pro", "price_per_minute": Decimal("0.10"), "currency": "EUR"} | terms
    db.execute(
        f"insert into public.widget_plans (widget_id, valid_from, {', '.join(plan)})"
        f" values (%s, %s{', %s' * len(plan)})",
        [widget_id, valid_from, *plan.values()],
    )


def call(db: Connection, widget_id: UUID, at: datetime, seconds: float, session: str = "s") -> None:
    record(db, widget_id, session, "call_start", at, call_id="c")
    record(db, widget_id, session, "call_end", at + timedelta(seconds=seconds), call_id="c")


def correct(db: Connection, widget_id: UUID, seconds: float, session: str = "s") -> None:
    db.execute(
        "select public.correct_widget_call(%s, %s, 'c', %s::numeric, 'agreed', 'bob')", [widget_id, session, seconds]
    )


def close(db: Connection, month: date | str) -> Row:
    row = db.execute("select * from public.close_widget_billing_period(%s)", [str(month)]).fetchone()
    assert row is not None
    return row


def lines(db: Connection, month: date) -> list[Row]:
    return db.execute(
        "select * from public.widget_statement_lines where period = %s"
        " order by usage_period, widget_id, session_id, call_id",
        [month],
    ).fetchall()


def charges(db: Connection, month: date) -> list[Row]:
    return db.execute(
        "select * from public.widget_statement_charges where period = %s order by widget_id, usage_period", [month]
    ).fetchall()


def pending(db: Connection, widget_id: UUID) -> list[Row]:
    return db.execute("select * from public.widget_pending_adjustments() where widget_id = %s", [widget_id]).fetchall()


def noon(month: date) -> datetime:
    return datetime(month.year, month.month, 10, 12, tzinfo=UTC)


def test_a_statement_holds_the_months_calls_and_their_price(db: Connection, year: int) -> None:
    """A closed month has a line a call, the price a widget, who and when; open calls stand on it with 0 s."""
    march, april = date(year, 3, 1), date(year, 4, 1)
    widget_id = new_widget(db)
    add_plan(db, widget_id, march, increment_seconds=6, minimum_seconds=30, included_seconds=60)
    call(db, widget_id, noon(march), 241)
    call(db, widget_id, noon(march), 10, session="short")
    record(db, widget_id, "open", "call_start", noon(march), call_id="c")
    call(db, widget_id, datetime(year, 4, 1, tzinfo=UTC), 1000, session="next month")

    answer = close(db, march)

    assert (answer["answer"], answer["calls"], answer["adjustments"]) == ("closed now", 3, 0)
    assert answer["closed_by"] == "postgres"
    assert datetime.now(UTC) - answer["closed_at"] < timedelta(minutes=1)
    assert {line["session_id"]: line["new_seconds"] for line in lines(db, march)} == {"s": 246, "short": 30, "open": 0}
    (charge,) = charges(db, march)
    assert (charge["new_seconds"], charge["new_amount"], charge["difference_amount"]) == (
        276,
        Decimal("0.36"),
        Decimal("0.36"),
    )
    assert (charge["plan_valid_from"], charge["included_seconds"], charge["currency"]) == (march, 60, "EUR")
    assert close(db, april)["calls"] == 1


def test_a_statement_is_the_bill_as_of_its_closing(db: Connection, year: int) -> None:
    """`widget_billing_calls` as of the closing gives the statement again, whatever came later."""
    march = date(year, 3, 1)
    widget_id = new_widget(db)
    call(db, widget_id, noon(march), 241)
    as_of = close(db, march)["as_of"]
    correct(db, widget_id, 5)
    call(db, widget_id, noon(march), 10, session="late")

    again = db.execute(
        "select b.session_id, b.billable_seconds as new_seconds, b.rule from public.widget_billing_period(%s) p"
        " cross join public.widget_billing_calls(p.period_start, p.period_end, %s) b",
        [str(march), as_of],
    ).fetchall()

    assert again == [{k: line[k] for k in ("session_id", "new_seconds", "rule")} for line in lines(db, march)]


def test_late_arrivals_are_adjusted_in_the_next_month(db: Connection, year: int) -> None:
    """What comes late changes no closed statement: it is pending, then a line with old, new, difference and causes."""
    march, april, may = (date(year, month, 1) for month in (3, 4, 5))
    widget_id, other_id = new_widget(db), new_widget(db)
    add_plan(db, widget_id, march, included_seconds=200)
    call(db, widget_id, noon(march), 1800)
    call(db, widget_id, noon(march), 60, session="untouched")
    call(db, other_id, noon(march), 60)
    close(db, march)
    before = (lines(db, march), charges(db, march))

    end = record(db, widget_id, "s", "call_end", noon(march) + timedelta(seconds=300), call_id="c", source="provider")
    missed = record(db, widget_id, "missed", "call_start", noon(march))
    missed_end = record(db, widget_id, "missed", "call_end", noon(march) + timedelta(seconds=30))
    record(db, other_id, "s", "call_heartbeat", noon(march), call_id="c")
    waiting = pending(db, widget_id)
    answer = close(db, april)

    expected = {
        "s": (1800, 300, -1500, [end]),
        "missed": (0, 30, 30, [missed, missed_end]),
    }
    for rows in (waiting, lines(db, april)):
        assert {
            row["session_id"]: (row["old_seconds"], row["new_seconds"], row["difference_seconds"], row["event_ids"])
            for row in rows
        } == expected
        assert {row["usage_period"] for row in rows} == {march}
    assert (answer["calls"], answer["adjustments"]) == (0, 2)
    (charge,) = charges(db, april)
    # (1800 + 60 - 200) s were charged; (300 + 60 + 30 - 200) s should have been.
    assert (charge["old_seconds"], charge["new_seconds"]) == (1860, 390)
    assert (charge["old_amount"], charge["new_amount"]) == (Decimal("2.77"), Decimal("0.32"))
    assert charge["difference_amount"] == Decimal("-2.45")
    assert pending(db, widget_id) == []
    assert (lines(db, march), charges(db, march)) == before
    assert close(db, may)["adjustments"] == 0


def test_adjustments_of_adjustments_add_up(db: Connection, year: int) -> None:
    """Each adjustment is against what was billed last; all statements together are the bill as it is now."""
    months = [date(year, month, 1) for month in range(1, 7)]
    widget_id = new_widget(db)
    add_plan(db, widget_id, months[0], increment_seconds=7)
    call(db, widget_id, noon(months[0]), 100)
    close(db, months[0])

    for month, seconds in zip(months[1:], (50, 200, 200, 0, 33), strict=True):
        correct(db, widget_id, seconds)
        close(db, month)

    steps = db.execute(
        "select old_seconds, new_seconds from public.widget_statement_lines where widget_id = %s order by period",
        [widget_id],
    ).fetchall()
    total = db.execute(
        "select sum(difference_seconds) as seconds, sum(difference_amount) as amount"
        " from public.widget_statement_charges where widget_id = %s",
        [widget_id],
    ).fetchone()
    now = db.execute(
        "select billable_seconds as seconds, amount from public.widget_billing_usage(%s, %s) where widget_id = %s",
        [months[0], months[1], widget_id],
    ).fetchone()
    # The correction to 200 s, said twice, changed something once.
    assert [tuple(step.values()) for step in steps] == [(0, 105), (105, 56), (56, 203), (203, 0), (0, 35)]
    assert total == now == {"seconds": 35, "amount": Decimal("0.06")}


def test_a_call_that_moves_to_another_month_moves_on_the_bill(db: Connection, year: int) -> None:
    """An earlier start that turns up takes a call out of its month and into the one before, both closed."""
    march, april, may = (date(year, month, 1) for month in (3, 4, 5))
    widget_id = new_widget(db)
    midnight = datetime(year, 4, 1, tzinfo=UTC)
    call(db, widget_id, midnight + timedelta(seconds=10), 60)
    close(db, march)
    close(db, april)

    start = record(db, widget_id, "s", "call_start", midnight - timedelta(seconds=20), call_id="c")
    close(db, may)

    moved = [(x["usage_period"], x["old_seconds"], x["new_seconds"], x["event_ids"]) for x in lines(db, may)]
    assert moved == [(march, 0, 90, [start]), (april, 60, 0, [start])]
    assert lines(db, may)[1]["rule"] == "no longer a call of this month"
    assert pending(db, widget_id) == []


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


@pytest.mark.parametrize(
    "statement",
    [
        "update public.widget_statement_lines set new_seconds = 0",
        "delete from public.widget_statement_lines",
        "truncate public.widget_statement_lines",
        "update public.widget_statement_charges set new_amount = 0",
        "delete from public.widget_statement_charges",
        "update public.widget_billing_periods set closed_by = 'me'",
        "delete from public.widget_billing_periods",
        "truncate public.widget_billing_periods cascade",
        "insert into public.widget_statement_lines (period, widget_id, usage_period, session_id, call_id, started_at,"
        " old_seconds, new_seconds, rule) select period, gen_random_uuid(), period, 's', 'c', now(), 0, 1, 'x'"
        " from public.widget_billing_periods limit 1",
        "insert into public.widget_statement_charges (period, widget_id, usage_period, included_seconds, old_seconds,"
        " new_seconds) select period, gen_random_uuid(), period, 0, 0, 1 from public.widget_billing_periods limit 1",
    ],
)
def test_nothing_changes_a_closed_statement(db: Connection, year: int, statement: str) -> None:
    """Not even the tables' owner updates, deletes or adds to a statement; the API's roles have no right to."""
    march = date(year, 3, 1)
    call(db, new_widget(db), noon(march), 100)
    close(db, march)

    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="closed statements never change"):
        db.execute(statement.encode())
    for role in ("service_role", "authenticated", "anon"):
        db.execute(f"set role {role}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute(statement.encode())
        db.execute("reset role")


def test_plans_of_closed_months_stay(db: Connection, year: int) -> None:
    """A plan by which a closed month was billed cannot be changed, deleted or replaced; later months' plans can."""
    march, april, may = (date(year, month, 1) for month in (3, 4, 5))
    widget_id, idle_id = new_widget(db), new_widget(db)
    add_plan(db, widget_id, march)
    add_plan(db, widget_id, may, name="Next")
    call(db, widget_id, noon(march), 100)
    call(db, widget_id, noon(april), 100, session="april")
    close(db, march)
    close(db, april)

    for change in (
        "set price_per_minute = 5 where name = 'Pro'",
        "set valid_from = valid_from - interval '1 year' where name = 'Pro'",
        "set valid_from = valid_from - interval '1 month' where name = 'Next'",
        "set widget_id = (select id from public.widgets limit 1) where name = 'Pro'",
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"^valid_from: "):
            db.execute(f"update public.widget_plans {change} and widget_id = %s".encode(), [widget_id])
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"^valid_from: "):
        db.execute("delete from public.widget_plans where widget_id = %s and name = 'Pro'", [widget_id])
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"^valid_from: "):
        add_plan(db, widget_id, april, name="Between")
    db.execute(
        "update public.widget_plans set price_per_minute = 5 where widget_id = %s and name = 'Next'", [widget_id]
    )
    add_plan(db, widget_id, date(year, 1, 1), name="Before")
    add_plan(db, idle_id, march)

    assert pending(db, widget_id) == []


def test_the_billing_time_zone_stays(db: Connection, year: int) -> None:
    """Once a month has been closed, months are what they are; a time zone that nobody knows never is one."""
    close(db, date(year, 3, 1))

    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=r"^billing_time_zone: "):
        db.execute("update widget_internal.settings set billing_time_zone = 'Europe/Vienna'")
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        db.execute("update widget_internal.settings set billing_time_zone = 'Mars/Olympus'")


def test_a_changed_setting_is_an_adjustment_without_events(db: Connection, year: int) -> None:
    """A lower max_call_duration shows in closed months as an adjustment that no event caused."""
    march = date(year, 3, 1)
    widget_id = new_widget(db)
    call(db, widget_id, noon(march), 7200)
    close(db, march)

    with db.transaction(force_rollback=True):
        db.execute("update widget_internal.settings set max_call_duration = '1 hour'")
        waiting = pending(db, widget_id)

    assert [(row["old_seconds"], row["new_seconds"], row["event_ids"]) for row in waiting] == [(7200, 3600, [])]


def iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def number(value: Decimal | int | None) -> str | None:
    text = None if value is None else f"{Decimal(value):f}"
    return text.rstrip("0").rstrip(".") if text and "." in text else text


def sha256(rows: list[list[Any]]) -> str:
    return hashlib.sha256("\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()).hexdigest()


def test_the_hashes_can_be_computed_from_the_rows(db: Connection, year: int) -> None:
    """A charge's hash is that of its row and lines, a month's that of its charges, as docs/billing.md says."""
    march, april = date(year, 3, 1), date(year, 4, 1)
    widget_id = new_widget(db)
    add_plan(db, widget_id, march, name='"Größe" \\ 1', price_per_minute=Decimal("0.1250"))
    call(db, widget_id, noon(march), 61.5)
    call(db, widget_id, noon(march), 100, session='tab\t"\x01é\U0001f600')
    call(db, new_widget(db), noon(march), 0.25)
    record(db, widget_id, "open", "call_start", noon(march), call_id="c")
    close(db, march)
    correct(db, widget_id, 10)
    close(db, april)

    for month in (march, april):
        hashes = []
        for charge in charges(db, month):
            rows: list[list[Any]] = [[
                str(charge["period"]), str(charge["widget_id"]), str(charge["usage_period"]),
                charge["plan_valid_from"] and str(charge["plan_valid_from"]), number(charge["monthly_fee"]),
                str(charge["included_seconds"]), number(charge["price_per_minute"]), charge["currency"], number(charge["old_seconds"]),
                number(charge["new_seconds"]), number(charge["old_amount"]), number(charge["new_amount"]),
            ]]  # fmt: skip
            own = [line for line in lines(db, month) if line["widget_id"] == charge["widget_id"]]
            own.sort(key=lambda line: (line["session_id"].encode(), line["call_id"].encode()))
            rows += [
                [
                    line["session_id"], line["call_id"], iso(line["started_at"]), iso(line["ended_at"]),
                    line["outcome"], line["evidence"], number(line["duration_seconds"]), number(line["old_seconds"]),
                    number(line["new_seconds"]), line["rule"], [str(event_id) for event_id in line["event_ids"]],
                ]
                for line in own
            ]  # fmt: skip
            assert sha256(rows) == charge["content_hash"]
            hashes.append(charge["content_hash"])
        period = db.execute("select * from public.widget_billing_periods where period = %s", [month]).fetchone()
        assert period is not None
        head = [str(month), iso(period["period_start"]), iso(period["period_end"]), iso(period["as_of"])]
        content = "\n".join([json.dumps(head), *hashes])
        assert hashlib.sha256(content.encode()).hexdigest() == period["content_hash"]


def test_a_forged_statement_is_found(db: Connection, year: int) -> None:
    """Whoever switches the guards off and changes a line leaves a hash that does not fit."""
    march = date(year, 3, 1)
    widget_id = new_widget(db)
    call(db, widget_id, noon(march), 100)
    close(db, march)
    assert db.execute("select * from public.broken_widget_statements()").fetchall() == []

    with db.transaction(force_rollback=True):
        db.execute("alter table public.widget_statement_lines disable trigger user")
        db.execute("update public.widget_statement_lines set new_seconds = 1 where widget_id = %s", [widget_id])
        broken = db.execute("select * from public.broken_widget_statements()").fetchall()

    assert broken == [{"period": march, "widget_id": widget_id, "usage_period": march}]


def test_owners_see_their_own_statements(db: Connection, year: int) -> None:
    """An owner reads plans, charges, lines, months and pending adjustments of its own widgets, and no others."""
    march = date(year, 3, 1)
    owners = [uuid4(), uuid4()]
    for owner_id in owners:
        widget_id = new_widget(db, owner_id)
        add_plan(db, widget_id, march)
        call(db, widget_id, noon(march), 100)
    close(db, march)
    widgets = {
        row["owner_id"]: row["id"]
        for row in db.execute("select id, owner_id from public.widgets where owner_id is not null")
    }
    for owner_id in owners:
        correct(db, widgets[owner_id], 5)

    for owner_id in owners:
        with db.transaction():
            db.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps({"sub": str(owner_id)})])
            db.execute("set local role authenticated")
            for relation in (
                "public.widget_plans",
                "widget_internal.plans_in(current_date)",
                "public.widget_statement_charges",
                "public.widget_statement_lines",
                "public.widget_pending_adjustments()",
            ):
                seen = db.execute(f"select distinct widget_id from {relation}").fetchall()
                assert seen == [{"widget_id": widgets[owner_id]}], relation
            months = db.execute("select period from public.widget_billing_periods").fetchall()
            assert months == [{"period": march}]


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
