"""Closed months: what a statement holds, that nothing changes it, and how what comes late is billed."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import psycopg
import pytest

from tests.billing_books import add_plan, call, charges, close, correct, lines, new_widget, noon, pending
from tests.support import Connection, record

pytest_plugins = ["tests.billing_plugin"]


@pytest.fixture
def db(books_db: Connection) -> Connection:
    return books_db


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


def test_a_forgotten_month_that_is_closed_last_adjusts_what_was_billed_last(db: Connection, year: int) -> None:
    """A month may be closed after a later one: a call's next adjustment starts from the one that was closed last."""
    january, february, march, april = (date(year, month, 1) for month in range(1, 5))
    widget_id = new_widget(db)
    add_plan(db, widget_id, january)
    call(db, widget_id, noon(january), 60)
    close(db, january)
    correct(db, widget_id, 120)
    close(db, march)
    call(db, widget_id, noon(february), 60, session="forgotten")
    correct(db, widget_id, 180)
    close(db, february)
    correct(db, widget_id, 600)
    close(db, april)

    steps = {}
    for table in ("lines", "charges"):
        steps[table] = db.execute(
            f"select old_seconds, new_seconds from public.widget_statement_{table}"
            " where widget_id = %s and usage_period = %s order by new_seconds",
            [widget_id, january],
        ).fetchall()

    assert [tuple(step.values()) for step in steps["lines"]] == [(0, 60), (60, 120), (120, 180), (180, 600)]
    assert steps["charges"] == steps["lines"]
    assert pending(db, widget_id) == []


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
                "widget_internal.compared_calls",
                "public.widget_statement_charges",
                "public.widget_statement_lines",
                "public.widget_pending_adjustments()",
            ):
                seen = db.execute(f"select distinct widget_id from {relation}").fetchall()
                assert seen == [{"widget_id": widgets[owner_id]}], relation
            months = db.execute("select period from public.widget_billing_periods").fetchall()
            assert months == [{"period": march}]
