"""The ledger is idempotent, append-only, and dates events by their age."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from local_stack.stack import Stack
from tests.conftest import Connect, NewWidget
from tests.support import Browser, Connection, event, events_of, record, session_name


@pytest.fixture
def browser(stack: Stack, http: httpx.Client) -> Browser:
    return Browser(http, stack.publishable_key)


def test_r1_a_repeated_event_is_one_row(browser: Browser, db: Connection, new_widget: NewWidget) -> None:
    """The same event_id, alone and in batches, is stored once; each repeat is a success, and the first wins."""
    widget_id, event_id = new_widget(), str(uuid4())

    first = browser.track(widget_id, "widget_load", "first", event_id=event_id)
    again = browser.track(widget_id, "widget_open", "second", event_id=event_id)
    batch = browser.track_many([event(widget_id, "call_start", "third", event_id=event_id)] * 2)

    assert first.json() == {"accepted": 1, "duplicates": 0, "rejected": []}
    assert (again.status_code, again.json()) == (200, {"accepted": 0, "duplicates": 1, "rejected": []})
    assert batch.json() == {"accepted": 0, "duplicates": 2, "rejected": []}
    assert [(row["event_type"], row["session_id"]) for row in events_of(db, widget_id)] == [("widget_load", "first")]


def test_r1_holds_within_one_batch(browser: Browser, db: Connection, new_widget: NewWidget) -> None:
    """A batch that holds an event twice stores it once."""
    widget_id, event_id = new_widget(), str(uuid4())

    answer = browser.track_many([event(widget_id, "widget_load", "s", event_id=event_id)] * 3)

    assert answer.json() == {"accepted": 1, "duplicates": 2, "rejected": []}
    assert len(events_of(db, widget_id)) == 1


def test_r1_an_event_without_an_id_is_stored_once_beside_a_repeated_one(
    browser: Browser, db: Connection, new_widget: NewWidget
) -> None:
    """What is looked at a second time, as the batch holds a duplicate or a bad event, is not stored a second time."""
    widget_id, event_id = new_widget(), str(uuid4())
    browser.track(widget_id, "widget_load", "s", event_id=event_id)
    repeated, bad = event(widget_id, "widget_load", "s", event_id=event_id), event(widget_id, "nonsense", "s")

    answers = [browser.track_many([event(widget_id, "widget_open", "s"), other]).json() for other in (repeated, bad)]

    assert [(answer["accepted"], answer["duplicates"]) for answer in answers] == [(1, 1), (1, 0)]
    assert [row["event_type"] for row in events_of(db, widget_id)] == ["widget_load", "widget_open", "widget_open"]


def test_r1_no_widget_suppresses_another(browser: Browser, db: Connection, new_widget: NewWidget) -> None:
    """The same event_id for two widgets is two events."""
    widget_ids, event_id = (new_widget(), new_widget()), str(uuid4())

    answers = [browser.track(widget_id, "widget_load", "s", event_id=event_id) for widget_id in widget_ids]

    assert [answer.json()["accepted"] for answer in answers] == [1, 1]
    assert [len(events_of(db, widget_id)) for widget_id in widget_ids] == [1, 1]


def test_r1_sixteen_connections_at_once(stack: Stack, db: Connection, new_widget: NewWidget) -> None:
    """The same event from 16 connections at the same time is one row, and every sender hears a success."""
    widget_id, event_id = new_widget(), str(uuid4())

    def send(_: int) -> dict[str, object]:
        with httpx.Client(base_url=stack.api_url, timeout=30) as http:
            browser = Browser(http, stack.publishable_key)
            answer = browser.track(widget_id, "call_start", "s", event_id=event_id)
            assert answer.status_code == 200
            body: dict[str, object] = answer.json()
            return body

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(16)))

    assert sorted(str(answer["accepted"]) for answer in answers) == ["0"] * 15 + ["1"]
    assert [row["id"] for row in events_of(db, widget_id)] == [UUID(event_id)]


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
@pytest.mark.parametrize("verb", ["update", "delete", "truncate", "insert"])
def test_r2_no_api_role_changes_the_ledger(connect: Connect, role: str, verb: str) -> None:
    """Not even service_role updates, deletes or truncates the ledger, or inserts past the functions."""
    statements = {
        "update": "update public.widget_analytics set session_id = 'x'",
        "delete": "delete from public.widget_analytics",
        "truncate": "truncate public.widget_analytics",
        "insert": "insert into public.widget_analytics (widget_id, event_type, session_id)"
        " values (gen_random_uuid(), 'widget_load', 's')",
    }

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connect(role).execute(statements[verb].encode())


def test_r3_a_sender_says_only_how_long_ago(browser: Browser, db: Connection, new_widget: NewWidget) -> None:
    """timestamp is receipt less age_ms; a negative age counts as none; one over seven days is refused."""
    widget_id, week = new_widget(), 7 * 24 * 3600 * 1000
    ages = {"now": 0, "minute": 60_000, "future": -3_600_000, "week": week}

    for session_id, age_ms in ages.items():
        assert browser.track(widget_id, "widget_load", session_id, age_ms=age_ms).status_code == 200
    refused = browser.track(widget_id, "widget_load", "older", age_ms=week + 1)

    assert refused.status_code == 400
    assert refused.json()["message"].startswith("age_ms: ")
    assert {row["session_id"]: row["received_at"] - row["timestamp"] for row in events_of(db, widget_id)} == {
        session_id: timedelta(milliseconds=max(age_ms, 0)) for session_id, age_ms in ages.items()
    }


def test_r3_no_sender_can_name_a_clock_time(browser: Browser, db: Connection, new_widget: NewWidget) -> None:
    """An event that carries a timestamp of its own is refused, alone as in a batch."""
    widget_id = new_widget()

    alone = browser.track(widget_id, "call_start", "s", timestamp="2020-01-01T00:00:00Z")
    batch = browser.track_many([event(widget_id, "call_start", "s", timestamp="2020-01-01T00:00:00Z")])

    assert alone.status_code == 404
    assert batch.json()["rejected"] == [{"index": 0, "reason": "timestamp: is not a field of an event"}]
    assert events_of(db, widget_id) == []


def test_r3_the_sql_editor_keeps_its_timestamp(db: Connection, new_widget: NewWidget) -> None:
    """A row inserted by hand keeps the time that it is given, and says when it came in."""
    widget_id, at = new_widget(), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    record(db, widget_id, session_name(), "call_start", at)

    (row,) = events_of(db, widget_id)
    assert row["timestamp"] == at
    assert abs(row["received_at"] - datetime.now(UTC)) < timedelta(minutes=1)
