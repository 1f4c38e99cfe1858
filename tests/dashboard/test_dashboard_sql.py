"""The sums and lists behind the usage page: by another way the same as the bill, and each owner's own."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.conftest import Connect, NewOwner, NewWidget
from tests.dashboard.conftest import days_ago, play_call
from tests.support import Connection, record, session_name

START, END = days_ago(70, 0), days_ago(-2, 0)


@pytest.fixture
def owner_id(db: Connection, new_owner: NewOwner, new_widget: NewWidget) -> UUID:
    """Somebody with two widgets, with calls of every kind in two months; one widget has a plan."""
    user_id = new_owner()
    voice, chat = new_widget(user_id, name="Voice"), new_widget(user_id, name="Chat")
    db.execute(
        """
        insert into widget_plans (widget_id, valid_from, name, minimum_seconds, increment_seconds, included_seconds,
          price_per_minute, currency)
        values (%s, date_trunc('month', now()) - interval '6 months', 'Pro', 30, 6, 60, 0.10, 'EUR')
        """,
        [voice],
    )
    for day in (1, 1, 2, 5, 31, 45, 62):
        play_call(db, voice, days_ago(day), 100.25 + day)
        play_call(db, chat, days_ago(day), 10)
    play_call(db, chat, days_ago(3), 50, end="call_error")
    play_call(db, chat, days_ago(3, 10), 1800, source="inferred")
    play_call(db, voice, days_ago(3, 11), 77, source="provider")
    record(db, chat, session_name(), "call_start", days_ago(0, 0))
    # In one instant: an order by time alone would lose some of them between two pages.
    for _ in range(5):
        play_call(db, voice, days_ago(4), 60)
    return user_id


@pytest.fixture
def ask(connect: Connect, owner_id: UUID) -> Callable[..., list[dict[str, Any]]]:
    connection = connect("authenticated", user_id=owner_id)
    return lambda sql, *values: connection.execute(sql, values).fetchall()


def test_days_add_up_to_the_bill(ask: Any) -> None:
    """Each column of widget_daily_usage(), summed up, is that of widget_billing_usage()."""
    days = ask("select * from widget_daily_usage(%s, %s)", START, END)

    bill = ask("select * from widget_billing_usage(%s, %s)", START, END)
    for column in set(days[0]) - {"day"}:
        assert sum(day[column] for day in days) == sum(row[column] for row in bill), column
    assert len(days) == len({day["day"] for day in days}) >= 8


def test_days_of_one_widget_are_its_own(ask: Any) -> None:
    """The same, for a widget alone."""
    for row in ask("select * from widget_billing_usage(%s, %s)", START, END):
        days = ask("select * from widget_daily_usage(%s, %s, %s)", START, END, row["widget_id"])

        assert sum(day["billable_seconds"] for day in days) == row["billable_seconds"]
        assert sum(day["calls"] for day in days) == row["calls"]


def test_a_day_is_a_day_of_the_books(db: Connection, ask: Any) -> None:
    """Where bills are made in Vienna, a call at 22:30 in UTC belongs to the next summer day."""
    with db.transaction(force_rollback=True):
        db.execute("update widget_internal.settings set billing_time_zone = 'Europe/Vienna'")
        widget = db.execute("select id from widgets limit 1").fetchone()
        assert widget is not None
        record(db, widget["id"], session_name(), "call_start", datetime(2020, 7, 1, 22, 30, tzinfo=UTC))

        days = db.execute(
            "select day::text, calls from widget_daily_usage('2020-07-01', '2020-07-04', %s)", [widget["id"]]
        ).fetchall()

    assert days == [{"day": "2020-07-02", "calls": 1}]


def test_months_are_those_of_the_bill(ask: Any) -> None:
    """Calls, seconds and amounts of both months as widget_billing_usage() has them; to date is a part of that."""
    before, now = ask("select * from widget_month_to_date()")

    for month in (before, now):
        bill = ask("select * from widget_billing_usage(%s, %s)", month["period_start"], month["period_end"])
        assert month["calls"] == sum(row["calls"] for row in bill)
        assert month["billable_seconds"] == sum(row["billable_seconds"] for row in bill)
        amounts = {row["currency"]: row["amount"] for row in bill if row["currency"]}
        assert {currency: Decimal(str(amount)) for currency, amount in month["amounts"].items()} == amounts
        to_date = ask("select * from widget_billing_usage(%s, %s)", month["period_start"], month["to_date_end"])
        assert month["calls_to_date"] == sum(row["calls"] for row in to_date)
        assert month["billable_seconds_to_date"] == sum(row["billable_seconds"] for row in to_date)
    assert before["period_end"] == now["period_start"] <= datetime.now(UTC) < now["period_end"]


def test_plans_are_those_of_the_bill_and_the_forecast_goes_on_as_until_now(db: Connection, owner_id: UUID) -> None:
    """Seconds and amounts of this month as widget_billing_usage() has them, and scaled to the whole month."""
    with db.transaction(force_rollback=True):
        db.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps({"sub": str(owner_id)})])
        db.execute("set local role authenticated")
        plans = db.execute("select * from widget_plan_usage()").fetchall()
        [month] = db.execute(
            """
            select p.period_start, p.period_end, now() as now
            from widget_billing_period(to_char(now() at time zone 'UTC', 'YYYY-MM')) p
            """
        ).fetchall()
        bill = db.execute(
            "select * from widget_billing_usage(%s, %s)", [month["period_start"], month["period_end"]]
        ).fetchall()

    passed = month["now"] - month["period_start"]
    scale = (month["period_end"] - month["period_start"]) / passed
    amounts = {row["widget_id"]: (row["billable_seconds"], row["amount"]) for row in bill}
    assert {row["plan"] for row in plans} <= {"Pro", None}
    assert "Pro" in {row["plan"] for row in plans}
    for row in plans:
        seconds, amount = amounts.get(row["widget_id"], (0, Decimal("0.00") if row["plan"] else None))
        assert (row["billable_seconds"], row["amount"]) == (seconds, amount)
        if passed < timedelta(days=1):
            assert row["forecast_seconds"] is None
            assert row["forecast_amount"] is None
        elif row["plan"] is None:
            assert row["forecast_amount"] is None
        else:
            assert abs(float(row["forecast_seconds"]) - float(seconds) * scale) <= 1
            charged = max(row["forecast_seconds"] - row["included_seconds"], Decimal(0))
            assert row["forecast_amount"] == round(charged * row["price_per_minute"] / 60 + Decimal("1e-9"), 2)


def test_archived_calls_are_listed_and_billed(db: Connection, ask: Any) -> None:
    """Their calls stay; what the archive took are the events of their stories."""
    [call] = ask("select * from widget_billing_calls(%s, %s) order by started_at limit 1", START, END)
    before = ask("select * from widget_daily_usage(%s, %s)", START, END)
    with db.transaction():
        db.execute(
            "update widget_internal.call_states set archived_at = now() where session_id = %s", [call["session_id"]]
        )
        db.execute("delete from public.widget_analytics where session_id = %s", [call["session_id"]])

    [story] = ask("select widget_call_story(%s, %s, 'c') as story", call["widget_id"], call["session_id"])
    after = ask("select * from widget_daily_usage(%s, %s)", START, END)
    listed = ask("select * from widget_call_list(%s, %s)", START, END)
    # Where calls are archived, other tests cannot count health anew.
    db.execute("update widget_internal.call_states set archived_at = null where session_id = %s", [call["session_id"]])

    assert after == before
    assert call["session_id"] in {row["session_id"] for row in listed}
    assert (story["story"]["events"], story["story"]["ended_by"]) == ([], None)
    assert story["story"]["duration_seconds"] == float(call["duration_seconds"])


@pytest.mark.parametrize("only", [None, "failed", "open", "assumed", "provider"])
def test_pages_of_calls_make_the_whole_list(ask: Any, only: str | None) -> None:
    """Page after page, nothing is lost or twice, each row is that of widget_billing_calls(), the latest first."""
    listed: list[dict[str, Any]] = []
    cursor = None
    while page := ask("select * from widget_call_list(%s, %s, null, %s, %s, 3)", START, END, only, cursor):
        cursor = page[-1]["cursor"]
        listed += page

    bill = ask("select * from widget_billing_calls(%s, %s)", START, END)
    expected = [row for row in bill if only in (None, row["outcome"], row["evidence"])]
    got = [{name: value for name, value in row.items() if name != "cursor"} for row in listed]
    assert expected
    assert sorted(got, key=str) == sorted(expected, key=str)
    assert [row["started_at"] for row in got] == sorted((row["started_at"] for row in got), reverse=True)


def test_closed_months_are_listed_as_they_were_billed(
    db: Connection, connect: Connect, new_owner: NewOwner, new_widget: NewWidget
) -> None:
    """Days, list and story have what was charged; what came after the closing waits for the next statement."""
    owner_id = new_owner()
    widget = new_widget(owner_id)
    with db.transaction(force_rollback=True):
        at = days_ago(40)
        billed, changed = (play_call(db, widget, at + timedelta(minutes=n), 60) for n in range(2))
        months = db.execute("select to_char(month, 'YYYY-MM') as month from widget_months_to_close()").fetchall()
        for month in months:
            db.execute("select close_widget_billing_period(%s)", [month["month"]])
        late = play_call(db, widget, at + timedelta(minutes=2), 60)
        # Its start, too, is another one now.
        record(db, widget, changed, "call_start", at, call_id="c", source="provider")
        record(db, widget, changed, "call_end", at + timedelta(minutes=9), call_id="c", source="provider")
        db.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps({"sub": str(owner_id)})])
        db.execute("set local role authenticated")

        listed = db.execute("select * from widget_call_list(%s, %s, page_size => 1)", [START, END]).fetchall()
        listed += db.execute(
            "select * from widget_call_list(%s, %s, after_cursor => %s)", [START, END, listed[0]["cursor"]]
        ).fetchall()
        days = db.execute("select calls, billable_seconds from widget_daily_usage(%s, %s)", [START, END]).fetchall()
        statements = db.execute("select period, seconds, amount, currency from widget_statement_totals()").fetchall()
        of_month = db.execute(
            "select seconds, assumed_seconds from widget_statement_totals(only_widget => %s, only_period => %s)",
            [widget, f"{at:%Y-%m}"],
        ).fetchall()
        of_nobody = db.execute("select * from widget_statement_totals(only_widget => %s)", [uuid4()]).fetchall()
        stories = [
            db.execute("select widget_call_story(%s, %s, 'c') as story", [widget, session]).fetchall()[0]["story"]
            for session in (billed, changed, late)
        ]

    assert [(row["session_id"], row["billable_seconds"]) for row in listed] == [(changed, 60), (billed, 60)]
    assert days == [{"calls": 2, "billable_seconds": 120}]
    assert statements == [{"period": at.date().replace(day=1), "seconds": 120, "amount": None, "currency": None}]
    assert of_month == [{"seconds": 120, "assumed_seconds": 0}]
    assert of_nobody == []
    assert [story["billable_seconds"] for story in stories] == [60, 60, 0]
    assert "next statement" in stories[2]["rule"]


def test_the_story_of_a_call_that_went_on_after_its_end(db: Connection, ask: Any) -> None:
    """A page that came back from the cache: the last heartbeat was believed, and no end."""
    widget = ask("select id from widgets limit 1")[0]["id"]
    session = play_call(db, widget, days_ago(8), 40)
    last = record(db, widget, session, "call_heartbeat", days_ago(8) + timedelta(minutes=10), call_id="c")

    story = ask("select widget_call_story(%s, %s, 'c') as story", widget, session)[0]["story"]

    assert (story["evidence"], story["duration_seconds"], story["ended_by"]) == ("heartbeat", 600, str(last))


def test_the_story_of_a_call_without_a_name(db: Connection, ask: Any) -> None:
    """Its events are those up to its session's next start."""
    widget = ask("select id from widgets limit 1")[0]["id"]
    session, start = session_name(), days_ago(9)
    ids = [
        record(db, widget, session, event_type, start + timedelta(minutes=minute))
        for event_type, minute in (("call_start", 0), ("call_end", 1), ("call_start", 2), ("call_end", 3))
    ]

    first, second = (
        ask("select widget_call_story(%s, %s, %s) as story", widget, session, str(start_id))[0]["story"]
        for start_id in (ids[0], ids[2])
    )

    assert [event["id"] for event in first["events"]] == [str(event_id) for event_id in ids[:2]]
    assert [event["id"] for event in second["events"]] == [str(event_id) for event_id in ids[2:]]
    assert (first["ended_by"], second["ended_by"]) == (str(ids[1]), str(ids[3]))


@pytest.mark.parametrize("size", [0, 1001, None])
def test_a_page_has_a_size(ask: Any, size: int | None) -> None:
    """What asks for more, or for nothing, is told which parameter to change."""
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="page_size"):
        ask("select * from widget_call_list(%s, %s, page_size => %s)", START, END, size)


def test_the_story_of_a_call_names_the_event_that_was_believed(db: Connection, ask: Any, owner_id: UUID) -> None:
    """The provider's end outranks the browser's, and the bill beside it is the call's own."""
    widget = ask("select id from widgets order by name")[1]["id"]
    session = play_call(db, widget, days_ago(6), 40)
    believed = record(
        db, widget, session, "call_end", days_ago(6) + timedelta(seconds=30), call_id="c", source="provider"
    )
    record(db, widget, session, "call_start", days_ago(6) + timedelta(hours=1), call_id="another")

    story = ask("select widget_call_story(%s, %s, 'c') as story", widget, session)[0]["story"]

    [bill] = ask(
        "select to_jsonb(b) as row from widget_billing_calls(%s, %s) b where session_id = %s and call_id = 'c'",
        START,
        END,
        session,
    )
    assert bill["row"].items() <= story.items()
    assert story["ended_by"] == str(believed)
    assert (story["is_capped"], story["last_heartbeat_at"]) == (False, None)
    assert [event["event_type"] for event in story["events"]] == [
        "widget_load", "widget_open", "call_start", "call_end", "call_end",
    ]  # fmt: skip


def test_a_call_over_the_limit_says_that_it_was_cut(db: Connection, ask: Any) -> None:
    """Four hours is all that a call can last."""
    widget = ask("select id from widgets limit 1")[0]["id"]
    session = play_call(db, widget, days_ago(7), 5 * 3600)

    story = ask("select widget_call_story(%s, %s, 'c') as story", widget, session)[0]["story"]

    assert (story["is_capped"], story["duration_seconds"]) == (True, 4 * 3600)


def test_traffic_places_and_refusals_add_up(db: Connection, ask: Any, owner_id: UUID) -> None:
    """Sums over widget_health, widget_pages and widget_refusals: of the owner's widgets alone."""
    widget = ask("select id from widgets limit 1")[0]["id"]
    for detail, times in (("shop-two.example", 3), ("evil.example", 1)):
        for _ in range(times):
            db.execute(
                "select widget_internal.count_refusals(array[(%s, 'domain_not_allowed', %s)::widget_internal.refusal])",
                [widget, detail],
            )
    db.execute("select refresh_widget_health()")

    [traffic] = ask("select * from widget_traffic(%s, %s)", START, END)
    pages = ask("select * from widget_busiest_places(%s, %s)", START, END)
    hosts = ask("select * from widget_busiest_places(%s, %s, by => 'host')", START, END)
    refusals = ask("select widget_id, reason, detail, refusals from widget_refusal_totals(%s, %s)", START, END)

    bill = ask("select * from widget_billing_calls(%s, %s)", START, END)
    assert traffic["calls_started"] == len(bill)
    assert traffic["calls_completed"] == sum(row["outcome"] == "completed" for row in bill)
    assert traffic["loads"] == traffic["opens"] == len(bill) - 1, "one call came without a load"
    assert traffic["completion_rate"] == round(Decimal(len(bill) - 2) / (len(bill) - 1), 6), "one is open, one assumed"
    assert traffic["delivery_rate"] == 1
    assert (pages[0]["place"], pages[0]["calls"]) == ("https://shop.example/cakes", len(bill) - 1)
    assert (hosts[0]["place"], hosts[0]["calls"]) == ("shop.example", len(bill) - 1)
    assert [(row["detail"], row["refusals"]) for row in refusals] == [("shop-two.example", 3), ("evil.example", 1)]


STRANGERS = {
    "widget_daily_usage": "select * from widget_daily_usage('2000-01-01', '2100-01-01', %(widget)s)",
    "widget_month_to_date": "select * from widget_month_to_date(%(widget)s) where calls > 0",
    "widget_plan_usage": "select * from widget_plan_usage(%(widget)s)",
    "widget_call_list": "select * from widget_call_list('2000-01-01', '2100-01-01', %(widget)s)",
    "widget_call_story": "select * from widget_call_story(%(widget)s, %(session)s, 'c') s where s is not null",
    "widget_traffic": "select * from widget_traffic('2000-01-01', '2100-01-01', %(widget)s) where events_received > 0",
    "widget_busiest_places": "select * from widget_busiest_places('2000-01-01', '2100-01-01', %(widget)s)",
    "widget_refusal_totals": "select * from widget_refusal_totals('2000-01-01', '2100-01-01', %(widget)s)",
}


def test_days_of_another_zone_have_their_pages(db: Connection, ask: Any) -> None:
    """A day in Vienna, Tokyo or New York has the pages of the UTC day of that date, and of no other."""
    widget = ask("select id from widgets limit 1")[0]["id"]
    for day in (30, 1, 2):
        at = datetime(2020, 6 if day == 30 else 7, day, 12, tzinfo=UTC)
        record(db, widget, session_name(), "widget_load", at, page_url=f"https://shop.example/{day}")
    db.execute("select refresh_widget_health()")

    for zone in ("UTC", "Europe/Vienna", "Asia/Tokyo", "America/New_York"):
        places = ask(
            "select place from widget_busiest_places(timestamp '2020-07-01' at time zone %s,"
            " timestamp '2020-07-02' at time zone %s)",
            zone,
            zone,
        )

        assert [row["place"] for row in places] == ["https://shop.example/1"], zone


def test_a_page_beyond_the_fifty_of_its_day_is_ranked_by_itself(db: Connection, ask: Any) -> None:
    """There is no page (others): whoever is in the list is a page."""
    widget = ask("select id from widgets limit 1")[0]["id"]
    for n in range(52):
        at = datetime(2021, 3, 1, 12, tzinfo=UTC)
        record(db, widget, session_name(), "widget_load", at, page_url=f"https://shop.example/{n:02}")
    db.execute("select refresh_widget_health()")

    places = ask("select * from widget_busiest_places('2021-03-01', '2021-03-02', row_limit => 100)")

    assert [row["place"] for row in places] == [f"https://shop.example/{n:02}" for n in range(52)]


def test_a_stranger_sees_nothing(db: Connection, connect: Connect, new_owner: NewOwner, new_widget: NewWidget) -> None:
    """Each function, asked for somebody else's widget by name, has rows for its owner and none for a stranger."""
    owner_id, stranger_id = new_owner(), new_owner()
    widget = new_widget(owner_id)
    new_widget(stranger_id)
    session = play_call(db, widget, datetime.now(UTC) - timedelta(minutes=5), 40)
    db.execute(
        "select widget_internal.count_refusals(array[(%s, 'widget_inactive', '')::widget_internal.refusal])", [widget]
    )
    db.execute("select refresh_widget_health()")
    names = {"widget": widget, "session": session}

    seen = {}
    for user in (owner_id, stranger_id):
        connection = connect("authenticated", user_id=user)
        seen[user] = {name: len(connection.execute(sql, names).fetchall()) for name, sql in STRANGERS.items()}

    assert all(seen[owner_id].values()), json.dumps(seen[owner_id])
    assert not any(seen[stranger_id].values()), json.dumps(seen[stranger_id])
