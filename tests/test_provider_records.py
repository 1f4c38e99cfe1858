"""A call provider's own records: kept once, matched with the calls that browsers reported, billed once."""

import random
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from local_stack.places import ROOT
from local_stack.stack import Stack
from tests.billing_support import add_plan
from tests.conftest import Connect, FreshDatabase, NewOwner, NewWidget
from tests.provider_support import (
    RECENT,
    SETTLED,
    a_name,
    alarms,
    at,
    lengths,
    match_records,
    name_agent,
    provider_call,
    tell,
)
from tests.support import Browser, Connection, Row, calls_of, differences, events_of, record


@pytest.fixture
def provider() -> str:
    """A name of the test's own: alarms and agents are found by it."""
    return a_name("p")[:12]


def browser_call(
    db: Connection, widget_id: UUID, call_id: str, session: str = "s", *, start: float, end: float
) -> None:
    record(db, widget_id, session, "call_start", at(start), call_id=call_id)
    record(db, widget_id, session, "call_end", at(end), call_id=call_id)


def test_a_record_bills_the_call_of_its_id(db: Connection, new_widget: NewWidget, provider: str) -> None:
    """The page passed the provider's id to callStart(): its record says when the call began and ended. Once."""
    widget_id, call_id = new_widget(), a_name()
    browser_call(db, widget_id, call_id, start=0, end=300)
    times = {"started_at": at(2), "ended_at": at(290)}
    cost = {"cost": Decimal("0.42"), "cost_currency": "USD"}

    answers = [tell(db, provider, call_id, **times | more) for more in ({}, cost, cost, {})]

    assert [answer.pop("record") for answer in answers] == ["stored", "changed", "duplicate", "duplicate"]
    assert answers == [{"matched": True, "widget_id": str(widget_id), "session_id": "s", "call_id": call_id}] * 4
    assert lengths(db, widget_id) == {"s": (288, "provider")}
    assert len(events_of(db, widget_id)) == 4
    assert differences(db, widget_id) == []


def test_a_call_is_found_that_comes_after_its_record(
    stack: Stack, http: httpx.Client, db: Connection, new_widget: NewWidget, provider: str
) -> None:
    """A browser that was offline for days sends its events at last: the job finds them, and no event waits for it."""
    widget_id, call_id = new_widget(), a_name()
    before = tell(db, provider, call_id, started_at=at(0), ended_at=at(90))
    browser = Browser(http, stack.publishable_key)
    two_days = 2 * 24 * 3600 * 1000

    browser.track(widget_id, "call_start", "s", call_id=call_id, age_ms=two_days)
    waiting = lengths(db, widget_id)
    ran = match_records(db)

    assert (before["matched"], waiting) == (False, {"s": (None, None)})
    assert ran["calls_matched"] >= 1
    assert lengths(db, widget_id) == {"s": (90, "provider")}
    assert provider_call(db, provider, call_id)["matched_by"] == "call_id"


def test_our_ids_in_the_metadata_are_hints(db: Connection, new_widget: NewWidget, provider: str) -> None:
    """They name a call that the door knows, or nothing: visitors write them."""
    widget_id = new_widget()
    browser_call(db, widget_id, "ours", start=0, end=300)
    times = {"started_at": at(0), "ended_at": at(60)}
    ours = {"widget_id": str(widget_id), "session_id": "s", "widget_call_id": "ours"}

    known = tell(db, provider, a_name(), **times | ours)
    strange = [
        tell(db, provider, a_name(), **times | ours | wrong)
        for wrong in (
            {"session_id": "other"},
            {"widget_call_id": "other"},
            {"widget_id": "44444444-4444-7444-8444-444444444444"},
            {"widget_id": "'; drop table x"},
            {"widget_id": "", "session_id": "", "widget_call_id": "x" * 5000},
        )
    ]

    assert known["matched"] is True
    assert [answer["matched"] for answer in strange] == [False] * 5
    assert lengths(db, widget_id) == {"s": (60, "provider")}


def test_metadata_takes_no_call_of_another_day_and_none_twice(
    db: Connection, new_widget: NewWidget, provider: str
) -> None:
    """Visitors write it: who pays could have an old call become today's, or many calls become one."""
    widget_id = new_widget()
    name_agent(db, provider, "asst-1", widget_id)
    browser_call(db, widget_id, "own", "today", start=0, end=300)
    browser_call(db, widget_id, "own", "old", start=-40 * 86400, end=-40 * 86400 + 7200)
    ours = {"agent": "asst-1", "widget_id": str(widget_id), "widget_call_id": "own"}

    answers = [
        tell(db, provider, a_name(), started_at=at(start), ended_at=at(start + 60), session_id=session, **ours)
        for start, session in ((0, "old"), (1, "today"), (3600, "today"))
    ]

    assert [answer["matched"] for answer in answers] == [False, True, False]
    assert lengths(db, widget_id) == {"old": (7200, "observed"), "today": (60, "provider")}


def test_a_session_alone_is_matched_by_time_when_no_event_can_come(
    db: Connection, new_widget: NewWidget, provider: str
) -> None:
    """Of the session's calls the one that started about then, each once; before that another could still turn up."""
    widget_id = new_widget()
    for start, days in ((0, RECENT), (0, SETTLED), (600, SETTLED)):
        record(db, widget_id, "s", "call_start", at(start, days), call_id=f"{days:%d}-{start}")
    ours = {"widget_id": str(widget_id), "session_id": "s"}

    answers = [
        tell(db, provider, a_name(), started_at=at(start, days), ended_at=at(start + 60, days), **ours)["call_id"]
        for start, days in ((1, RECENT), (601, SETTLED), (602, SETTLED), (700, SETTLED))
    ]

    settled = f"{SETTLED:%d}"
    assert answers == [None, f"{settled}-600", f"{settled}-0", None]


def test_a_hidden_call_is_billed_to_the_agents_widget(db: Connection, new_widget: NewWidget, provider: str) -> None:
    """An ad blocker hid it: seven days after its end it becomes a call of the widget that its agent serves."""
    widget_id, other_id = new_widget(), new_widget()
    name_agent(db, provider, "asst-1", widget_id)
    name_agent(db, provider, "*", other_id)
    settled, recent, unnamed = a_name(), a_name(), a_name()

    for call_id, start, agent in ((settled, SETTLED, "asst-1"), (recent, RECENT, "asst-1"), (unnamed, SETTLED, None)):
        tell(db, provider, call_id, started_at=at(0, start), ended_at=at(75, start), agent=agent)

    assert lengths(db, widget_id) == {f"{provider}:{settled}": (75, "provider")}
    assert lengths(db, other_id) == {f"{provider}:{unnamed}": (75, "provider")}
    assert provider_call(db, provider, recent)["next_look_at"] == at(75) + timedelta(days=7)
    assert provider_call(db, provider, settled)["matched_by"] == "agent"


def test_an_agents_calls_are_matched_in_its_widget_alone(db: Connection, new_widget: NewWidget, provider: str) -> None:
    """Where the company has said whose an agent is, a page elsewhere cannot take over the call."""
    widget_id, other_id, call_id = new_widget(), new_widget(), a_name()
    name_agent(db, provider, "asst-1", widget_id)
    browser_call(db, other_id, call_id, start=0, end=300)

    answer = tell(
        db, provider, call_id, started_at=at(0), ended_at=at(90), agent="asst-1",
        widget_id=str(other_id), session_id="s", widget_call_id=call_id,
    )  # fmt: skip

    assert answer["matched"] is False
    assert lengths(db, other_id) == {"s": (300, "observed")}


@pytest.mark.parametrize("agents", ["unknown", "erased", "moved"])
def test_an_event_of_another_widget_voids_no_call(
    db: Connection, new_widget: NewWidget, provider: str, agents: str
) -> None:
    """Whoever pays for one widget could tell another's door of its calls, earlier than they were."""
    widget_id, other_id, call_id = new_widget(), new_widget(), a_name()
    if agents != "unknown":
        name_agent(db, provider, "asst-1", widget_id)
    browser_call(db, widget_id, call_id, start=0, end=300)
    tell(db, provider, call_id, started_at=at(2), ended_at=at(290), agent="asst-1")
    if agents == "erased":
        db.execute("select public.erase_widget_session(%s, 's')", [widget_id])
    elif agents == "moved":
        db.execute("update public.widget_provider_agents set widget_id = %s where provider = %s", [other_id, provider])

    browser_call(db, other_id, call_id, start=-60, end=300)
    match_records(db)

    assert lengths(db, widget_id) == {"s": (288, "provider")}
    assert provider_call(db, provider, call_id)["widget_id"] == widget_id
    assert lengths(db, other_id) == {"s": (360, "observed") if agents == "erased" else (288, "provider")}


@pytest.mark.parametrize("order", ["first, second, record", "record, second, first", "second, record, first"])
def test_a_call_seen_in_two_sessions_is_billed_once(
    db: Connection, new_widget: NewWidget, provider: str, order: str
) -> None:
    """A reload rejoined it: the session that started first has it, the other costs nothing whatever the minimum."""
    widget_id, call_id = new_widget(), a_name()
    add_plan(db, widget_id, minimum_seconds=60, valid_from="2024-05-01")
    for what in order.split(", "):
        match what:
            case "first":
                browser_call(db, widget_id, call_id, "first", start=0, end=100)
            case "second":
                browser_call(db, widget_id, call_id, "second", start=110, end=300)
            case _:
                tell(db, provider, call_id, started_at=at(1), ended_at=at(301))
        match_records(db)

    bill = db.execute(
        "select session_id, started_at, billable_seconds, amount from public.widget_billing_calls(%s, %s)"
        " where widget_id = %s order by session_id",
        [RECENT - timedelta(days=1), RECENT + timedelta(days=1), widget_id],
    ).fetchall()
    assert [tuple(row.values()) for row in bill] == [
        ("first", at(1), 300, Decimal("0.50")),
        ("second", at(110), 0, Decimal("0")),
    ]
    assert differences(db, widget_id) == []


def test_a_person_has_the_last_word(db: Connection, new_widget: NewWidget, provider: str) -> None:
    """What a person set stays, whichever session turns up later, and is not billed in the other once more."""
    widget_id, call_id = new_widget(), a_name()
    browser_call(db, widget_id, call_id, "second", start=110, end=300)
    tell(db, provider, call_id, started_at=at(1), ended_at=at(301))
    db.execute("select public.correct_widget_call(%s, 'second', %s, 200, 'agreed', 'ann')", [widget_id, call_id])

    browser_call(db, widget_id, call_id, "first", start=0, end=100)
    match_records(db)
    tell(db, provider, call_id, started_at=at(1), ended_at=at(400))

    assert lengths(db, widget_id) == {"second": (200, "operator"), "first": (0, "provider")}


def test_legs_come_as_starts_and_ends_apart(db: Connection, new_widget: NewWidget, provider: str) -> None:
    """A visitor's two legs in a room, each told as it joins and as it leaves, in any order: first start to last end."""
    widget_id, room = new_widget(), a_name("RM")
    record(db, widget_id, "s", "call_start", at(3), call_id=room)

    told = [
        tell(db, provider, leg, call_id=room, **{what: at(when)})["matched"]
        for leg, what, when in (
            ("leg-2" + room, "ended_at", 500),
            ("leg-2" + room, "started_at", 300),
            ("leg-1" + room, "ended_at", 290),
            ("leg-1" + room, "started_at", 5),
        )
    ]

    assert told == [True] * 4
    (call,) = calls_of(db, widget_id)
    assert (call["started_at"], call["ended_at"], call["evidence"]) == (at(5), at(500), "provider")


def test_an_end_waits_for_a_start_before_it(db: Connection, new_widget: NewWidget, provider: str) -> None:
    """A webhook lost the start: the end alone makes nothing; with a browser's start it ends that call."""
    widget_id, call_id = new_widget(), a_name()

    alone = tell(db, provider, call_id, ended_at=at(60))
    record(db, widget_id, "s", "call_end", at(70), call_id=call_id)
    match_records(db)
    waiting = provider_call(db, provider, call_id)
    record(db, widget_id, "s", "call_start", at(0), call_id=call_id)
    match_records(db)

    assert (alone["matched"], waiting["widget_id"]) == (False, None)
    assert lengths(db, widget_id) == {"s": (60, "provider")}


def test_a_record_only_lengthens_and_says_when_it_contradicts_itself(
    db: Connection, new_widget: NewWidget, provider: str
) -> None:
    """Told again within a second it is the same; further apart it is an alarm until a person has set the call."""
    widget_id, call_id = new_widget(), a_name()
    browser_call(db, widget_id, call_id, start=0, end=300)

    found = []
    for end in (200, 201, 190, 260):
        tell(db, provider, call_id, started_at=at(0), ended_at=at(end))
        found.append((lengths(db, widget_id)["s"][0], alarms(db, provider)))
    db.execute("select public.correct_widget_call(%s, 's', %s, 260, 'looked at', 'ann')", [widget_id, call_id])

    contradictory = [("records_contradictory", widget_id)]
    assert found == [(200, []), (201, []), (201, contradictory), (260, contradictory)]
    assert alarms(db, provider) == []


def test_what_finds_no_call_is_an_alarm_after_seven_days(db: Connection, new_widget: NewWidget, provider: str) -> None:
    """Until somebody says whose the agent is; its calls are billed then, or are none of a widget's."""
    widget_id = new_widget()
    calls = [a_name() for _ in range(3)]
    for call_id, start, agent in zip(calls, (RECENT, SETTLED, SETTLED), ("new", "new", "phone"), strict=True):
        tell(db, provider, call_id, started_at=at(0, start), ended_at=at(75, start), agent=agent)

    unmatched = alarms(db, provider)
    name_agent(db, provider, "new", widget_id)
    name_agent(db, provider, "phone", None)
    match_records(db)

    assert unmatched == [("records_unmatched", None)] * 2
    assert alarms(db, provider) == []
    assert lengths(db, widget_id) == {f"{provider}:{calls[1]}": (75, "provider")}


def test_an_end_alone_is_an_alarm_even_of_a_known_agent(db: Connection, new_widget: NewWidget, provider: str) -> None:
    """It cannot be billed: the provider's list of calls has both times."""
    widget_id, call_id = new_widget(), a_name()
    name_agent(db, provider, "*", widget_id)
    tell(db, provider, call_id, ended_at=at(0, SETTLED))

    found = alarms(db, provider)
    pulled = tell(db, provider, call_id, started_at=at(-60, SETTLED), ended_at=at(0, SETTLED))

    assert found == [("records_unmatched", widget_id)]
    assert (pulled["record"], pulled["matched"]) == ("changed", True)
    assert alarms(db, provider) == []


def test_a_failed_call_that_a_later_leg_completed(db: Connection, new_widget: NewWidget, provider: str) -> None:
    """A call fails by its record; of several legs a completed one counts before a failed one."""
    widget_id, call_id = new_widget(), a_name()

    name_agent(db, provider, "*", widget_id)
    tell(
        db,
        provider,
        "a" + call_id,
        call_id=call_id,
        started_at=at(0, SETTLED),
        ended_at=at(9, SETTLED),
        outcome="failed",
    )
    failed = [(call["outcome"], call["duration_seconds"]) for call in calls_of(db, widget_id)]
    tell(db, provider, "b" + call_id, call_id=call_id, started_at=at(5, SETTLED), ended_at=at(7, SETTLED))

    assert failed == [("failed", 9)]
    assert [(call["outcome"], call["duration_seconds"]) for call in calls_of(db, widget_id)] == [("completed", 7)]


def test_what_providers_say_of_a_visitor_is_erased_with_the_session(
    db: Connection, new_widget: NewWidget, provider: str
) -> None:
    """Before the erasure and after it; ids, times and costs stay, and so does the bill."""
    widget_id, call_id, late = new_widget(), a_name(), a_name()
    for each in (call_id, late):
        record(db, widget_id, "jane", "call_start", at(0), call_id=each, page_url="https://shop.example/jane")
    told: Row = {
        "started_at": at(0), "ended_at": at(60), "reason": "Jane hung up", "agent": "Jane's room",
        "widget_id": str(widget_id), "session_id": "jane", "widget_call_id": "Jane's",
        "cost": 1, "cost_currency": "USD",
    }  # fmt: skip
    tell(db, provider, call_id, **told)
    (before,) = (call for call in calls_of(db, widget_id) if call["call_id"] == call_id)

    erased = db.execute("select public.erase_widget_session(%s, 'jane') as answer", [widget_id]).fetchone()
    tell(db, provider, call_id, **told)
    tell(db, provider, late, **told)

    assert erased is not None
    assert erased["answer"] == {"erased": 3}
    kept = db.execute("select * from public.widget_provider_records where provider = %s", [provider]).fetchall()
    calls = db.execute("select * from public.widget_provider_calls where provider = %s", [provider]).fetchall()
    assert len(kept) == len(calls) == 2
    assert "Jane" not in str(kept) + str(calls)
    assert {(row["said_session_id"], row["ended_at"], row["cost"]) for row in kept} == {(None, at(60), 1)}
    assert before in calls_of(db, widget_id)


def test_a_record_is_matched_before_its_month_is_closed_and_adjusted_after(fresh_database: FreshDatabase) -> None:
    """What waits is in the statement; what comes later, of calls with an archive's mark too, is an adjustment."""
    with psycopg.connect(fresh_database(scheduler=False).database_url, autocommit=True, row_factory=dict_row) as db:
        widget = db.execute("insert into public.widgets default values returning id").fetchone()
        assert widget is not None
        widget_id = widget["id"]
        march = RECENT.replace(year=2024, month=3, day=5)
        tell(db, "vapi", "one", started_at=march, ended_at=at(100, march))
        for call_id in ("one", "two"):
            record(db, widget_id, "s", "call_start", march, call_id=call_id)
            record(db, widget_id, "s", "call_end", at(300, march), call_id=call_id)

        db.execute("select public.close_widget_billing_period('2024-03')")
        lines = db.execute("select call_id, new_seconds from public.widget_statement_lines order by 1").fetchall()
        db.execute("update widget_internal.call_states set archived_at = now()")
        tell(db, "vapi", "two", started_at=march, ended_at=at(400, march))
        pending = db.execute(
            "select call_id, old_seconds, new_seconds from public.widget_pending_adjustments()"
        ).fetchall()

    assert [tuple(line.values()) for line in lines] == [("one", 100), ("two", 300)]
    assert [tuple(line.values()) for line in pending] == [("two", 300, 400)]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"provider": "Vapi"}, "provider"),
        ({"record_id": ""}, "record_id"),
        ({"call_id": "x" * 256}, "call_id"),
        ({"started_at": None, "ended_at": None}, "started_at"),
        ({"started_at": "infinity"}, "started_at"),
        ({"started_at": "0001-01-01T00:00:00Z"}, "started_at"),
        ({"ended_at": "1970-01-01T00:00:00Z"}, "ended_at"),
        ({"ended_at": "2999-01-01T00:00:00Z"}, "ended_at"),
        ({"started_at": "1970-01-01T00:00:00Z"}, "started_at"),
        ({"ended_at": at(-1).isoformat()}, "ended_at"),
        ({"outcome": "busy"}, "outcome"),
        ({"cost": "NaN", "cost_currency": "USD"}, "cost"),
        ({"cost": 1}, "cost_currency"),
    ],
)
def test_records_that_cannot_be(stack: Stack, http: httpx.Client, fields: Row, field: str) -> None:
    """A record that makes no sense is refused as 400, by the name of the field."""
    record = {"provider": "vapi", "record_id": a_name(), "started_at": at(0).isoformat(), "ended_at": at(9).isoformat()}

    answer = http.post(
        "/rest/v1/rpc/record_widget_provider_call", headers={"apikey": stack.secret_key}, json=record | fields
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "22023")
    assert answer.json()["message"].startswith(f"{field}: ")


def test_an_owner_sees_no_provider(connect: Connect, new_owner: NewOwner) -> None:
    """What the company pays its provider is none of an owner's business."""
    owner = connect("authenticated", user_id=new_owner())

    for table in ("widget_provider_records", "widget_provider_calls", "widget_provider_agents"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            owner.execute(f"select * from public.{table}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        owner.execute("select * from public.widget_reconciliation(now() - interval '1 day', now())")


def test_both_sides_are_reconciled(db: Connection, new_widget: NewWidget, provider: str) -> None:
    """By provider and widget: what both know, what one of them knows alone, seconds apart, and what it costs."""
    widget_id = new_widget()
    name_agent(db, provider, "asst", widget_id)
    both, second, hidden, astray = (a_name() for _ in range(4))
    cost = {"cost": Decimal("0.25"), "cost_currency": "USD", "agent": "asst"}
    for call_id, session in ((both, "s"), (both, "reloaded"), (second, "s"), ("only the browser's", "s")):
        record(db, widget_id, session, "call_start", at(5 if session == "s" else 50, SETTLED), call_id=call_id)
        record(db, widget_id, session, "call_end", at(65, SETTLED), call_id=call_id)
    tell(db, provider, both, started_at=at(0, SETTLED), ended_at=at(60, SETTLED), **cost)
    tell(db, provider, second, started_at=at(0, SETTLED), ended_at=at(60, SETTLED), **cost | {"cost_currency": "EUR"})
    tell(db, provider, hidden, started_at=at(3600, SETTLED), ended_at=at(3630, SETTLED), **cost)
    tell(db, provider, astray, started_at=at(0, SETTLED), ended_at=at(20, SETTLED), agent="unknown")
    db.execute("select public.correct_widget_call(%s, 's', %s, 50, 'agreed', 'ann')", [widget_id, second])

    rows = db.execute(
        "select * from public.widget_reconciliation(%s, %s) where provider = %s",
        [SETTLED - timedelta(days=1), SETTLED + timedelta(days=1), provider],
    ).fetchall()

    known, unknown = rows
    assert known == {
        "provider": provider, "widget_id": widget_id, "matched_calls": 2, "our_seconds": 110, "provider_seconds": 120,
        "seconds_apart": -10, "provider_only_calls": 1, "provider_only_seconds": 30, "made_calls": 1,
        "browser_only_calls": 1, "browser_only_seconds": 60, "costs": ["EUR=0.25", "USD=0.50"],
    }  # fmt: skip
    assert (unknown["widget_id"], unknown["provider_only_calls"], unknown["made_calls"]) == (None, 1, 0)


def test_a_page_that_passes_no_id_is_not_billed_twice(db: Connection, new_widget: NewWidget, provider: str) -> None:
    """The agent's widget has a call of that minute that no record is known of: an alarm, not a second call."""
    widget_id, hidden, other = new_widget(), a_name(), a_name()
    name_agent(db, provider, "*", widget_id)
    for call_id, session in (("mine", "s"), (other, "t")):
        record(db, widget_id, session, "call_start", at(0, SETTLED), call_id=call_id)
        record(db, widget_id, session, "call_end", at(90, SETTLED), call_id=call_id)
    tell(db, provider, other, started_at=at(0, SETTLED), ended_at=at(80, SETTLED))

    tell(db, provider, hidden, started_at=at(2, SETTLED), ended_at=at(80, SETTLED))

    assert lengths(db, widget_id) == {"s": (90, "observed"), "t": (80, "provider")}
    assert alarms(db, provider) == [("records_unmatched", widget_id)]
    next_look_at = provider_call(db, provider, hidden)["next_look_at"]
    assert timedelta(hours=23) < next_look_at - datetime.now(UTC) <= timedelta(days=1)


def test_records_events_and_the_job_at_once(stack: Stack, db: Connection, new_widget: NewWidget, provider: str) -> None:
    """Ten writers tell of the same calls in two sessions while the job runs: none fails, each call is billed once."""
    widget_id, calls = new_widget(), [a_name() for _ in range(12)]

    def write(number: int) -> None:
        order = random.Random(number)  # noqa: S311 - nothing secret
        with psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as own:
            for call_id in order.sample(calls, len(calls)):
                match number % 5:
                    case 0:
                        match_records(own)
                    case 1:
                        batch = order.sample(calls, len(calls))
                        own.execute(
                            "insert into public.widget_analytics"
                            " (widget_id, session_id, call_id, event_type, timestamp)"
                            " select %s, 'second', c, 'call_start', %s from unnest(%s::text[]) c",
                            [widget_id, at(30), batch],
                        )
                    case 2:
                        browser_call(own, widget_id, call_id, "first", start=0, end=20)
                    case _:
                        tell(own, provider, call_id, started_at=at(1), ended_at=at(90 + number % 2))

    with ThreadPoolExecutor(10) as writers:
        list(writers.map(write, range(10)))
    match_records(db)

    of_call = [(call["session_id"], call["duration_seconds"]) for call in calls_of(db, widget_id)]
    assert Counter(of_call) == {("first", 90): len(calls), ("second", 0): len(calls)}
    assert differences(db, widget_id) == []


def test_a_record_is_kept_where_matching_fails(
    stack: Stack, db: Connection, new_widget: NewWidget, provider: str
) -> None:
    """Its provider may never send it again: the job matches it soon."""
    widget_id, call_id = new_widget(), a_name()
    browser_call(db, widget_id, call_id, start=0, end=300)

    with (
        psycopg.connect(stack.database_url) as blocker,
        psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as own,
    ):
        blocker.execute("lock table public.widget_analytics in exclusive mode")
        own.execute("set lock_timeout = '100ms'")
        answer = tell(own, provider, call_id, started_at=at(0), ended_at=at(90))
    match_records(db)

    assert (answer["record"], answer["matched"]) == ("stored", False)
    assert lengths(db, widget_id) == {"s": (90, "provider")}


def test_the_sql_of_the_docs_runs(db: Connection) -> None:
    """As it stands in docs/providers.md, for a widget of its id."""
    blocks = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "providers.md").read_text(), re.DOTALL)

    with db.transaction(force_rollback=True):
        db.execute("set local search_path = public")
        db.execute("insert into widgets (id) values ('0199a0c4-0000-7000-8000-000000000001')")
        for block in blocks:
            db.execute(block)
        row = db.execute("select count(*) as calls from widget_provider_calls where call_id = 'call-7'").fetchone()

    assert len(blocks) == 4
    assert row == {"calls": 1}
