"""When a billing month begins and ends, and which calls are in it."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.billing_support import add_plan
from tests.conftest import FreshDatabase, NewWidget
from tests.support import Connection, record


@pytest.mark.parametrize(
    ("zone", "month", "start", "end"),
    [
        ("UTC", "2025-03", "2025-03-01T00:00:00+00:00", "2025-04-01T00:00:00+00:00"),
        ("Europe/Vienna", "2025-03", "2025-02-28T23:00:00+00:00", "2025-03-31T22:00:00+00:00"),
        ("America/New_York", "2025-11-01", "2025-11-01T04:00:00+00:00", "2025-12-01T05:00:00+00:00"),
        ("Asia/Kathmandu", "2025-12", "2025-11-30T18:15:00+00:00", "2025-12-31T18:15:00+00:00"),
        # Midnight comes twice: clocks are put back at 1:00, or a minute past midnight.
        ("America/Havana", "2020-11", "2020-11-01T04:00:00+00:00", "2020-12-01T05:00:00+00:00"),
        ("America/Havana", "2026-11", "2026-11-01T04:00:00+00:00", "2026-12-01T05:00:00+00:00"),
        ("America/St_Johns", "2009-11", "2009-11-01T02:30:00+00:00", "2009-12-01T03:30:00+00:00"),
        # Midnight does not come at all: clocks are put forward at it.
        ("America/Asuncion", "2017-10", "2017-10-01T04:00:00+00:00", "2017-11-01T03:00:00+00:00"),
    ],
)
def test_months_in_the_billing_time_zone(db: Connection, zone: str, month: str, start: str, end: str) -> None:
    """A month runs from the first instant of its 1st, an hour shorter or longer where the clocks change."""
    with db.transaction(force_rollback=True):
        db.execute("update widget_internal.settings set billing_time_zone = %s", [zone])
        row = db.execute("select * from public.widget_billing_period(%s)", [month]).fetchone()

    assert row is not None
    assert (row["period_start"].isoformat(), row["period_end"].isoformat(), row["time_zone"]) == (start, end, zone)


def test_a_call_belongs_to_the_month_in_which_it_started(db: Connection, new_widget: NewWidget) -> None:
    """Around midnight in the billing time zone, the plan of the month of the call's start holds."""
    widget_id = new_widget()
    add_plan(db, widget_id, valid_from="2024-05-01", name="May")
    record(db, widget_id, "s", "call_start", datetime(2024, 4, 30, 22, 30, tzinfo=UTC))
    record(db, widget_id, "s", "call_end", datetime(2024, 4, 30, 22, 31, tzinfo=UTC))
    query = "select rule from public.widget_billing_calls('2024-04-01', '2024-06-01') where widget_id = %s"

    utc = db.execute(query, [widget_id]).fetchall()
    with db.transaction(force_rollback=True):
        db.execute("update widget_internal.settings set billing_time_zone = 'Europe/Vienna'")
        vienna = db.execute(query, [widget_id]).fetchall()

    assert utc == [{"rule": "exact duration"}]
    assert vienna == [{"rule": 'exact duration (plan "May" from 2024-05)'}]


@pytest.mark.parametrize(
    ("zone", "month"),
    [
        ("America/Havana", "2020-11"),
        ("America/St_Johns", "2009-11"),
        ("America/Asuncion", "2017-10"),
        ("UTC", "2024-05"),
    ],
)
@pytest.mark.parametrize("session", ["UTC", "billing"])
def test_every_moment_is_in_one_month(db: Connection, zone: str, month: str, session: str) -> None:
    """Around a month's beginning, bounds and the month of a moment agree, in each session's time zone."""
    with db.transaction(force_rollback=True):
        db.execute("update widget_internal.settings set billing_time_zone = %s", [zone])
        db.execute("select set_config('timezone', %s, true)", [zone if session == "billing" else session])
        moments = db.execute(
            """
            select m.at, m.at >= b.period_start as is_begun, widget_internal.month_of(m.at) = %(month)s::date as is_in
            from public.widget_billing_period(left(%(month)s::text, 7)) b
            cross join lateral generate_series(
              b.period_start - interval '3 hours', b.period_start + interval '3 hours', interval '10 minutes'
            ) m (at)
            """,
            {"month": f"{month}-01"},
        ).fetchall()

    assert len(moments) == 37
    assert [row for row in moments if row["is_begun"] is not row["is_in"]] == []


def test_a_month_that_begins_twice_is_closed_like_any_other(fresh_database: FreshDatabase) -> None:
    """A call in the hour that the clocks show twice is in one month, and nothing is pending when both are closed."""
    stack = fresh_database()
    with psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as db:
        db.execute("update widget_internal.settings set billing_time_zone = 'America/Havana'")
        widget_id = db.execute("insert into public.widgets (name) values ('w') returning id").fetchone()["id"]  # type: ignore[index]
        for minute in (30, 90):
            start = datetime(2020, 11, 1, 4, tzinfo=UTC) + timedelta(minutes=minute)
            record(db, widget_id, f"s{minute}", "call_start", start, call_id="c")
            record(db, widget_id, f"s{minute}", "call_end", start + timedelta(minutes=1), call_id="c")

        closed = [
            db.execute("select calls from public.close_widget_billing_period(%s)", [month]).fetchone()
            for month in ("2020-10", "2020-11", "2020-12")
        ]
        pending = db.execute("select * from public.widget_pending_adjustments()").fetchall()
        waiting = db.execute("select * from public.widget_months_to_close()").fetchall()

    assert closed == [{"calls": 0}, {"calls": 2}, {"calls": 0}]
    assert pending == waiting == []
