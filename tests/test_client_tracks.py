"""Events sent through the real API: stored once, refused with a reason, retried without harm."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import DictRow

from local_stack.stack import Stack
from local_stack.unreliable_proxy import Answer, UnreliableProxy, answering
from tests.client_support import LedgerCall, insert_calls
from tests.conftest import NewWidget
from widget_analytics import (
    Event,
    EventType,
    Refused,
    TooManyRequests,
    Tracked,
    Unreachable,
    WidgetAnalytics,
)

Connection = psycopg.Connection[DictRow]
SHOP = "https://shop.example"


@pytest.fixture
def client(stack: Stack) -> Iterator[WidgetAnalytics]:
    with WidgetAnalytics(url=stack.api_url, publishable_key=stack.publishable_key, origin=SHOP) as opened:
        yield opened


def stored(db: Connection, widget_id: UUID) -> list[dict[str, Any]]:
    return db.execute(
        "select * from public.widget_analytics where widget_id = %s order by timestamp, id", [widget_id]
    ).fetchall()


def test_an_event_is_stored_as_it_was_sent(client: WidgetAnalytics, db: Connection, new_widget: NewWidget) -> None:
    """Each field arrives, under the id that the client made; the age sets the time back."""
    widget_id = new_widget()
    event = Event(
        widget_id=widget_id,
        event_type=EventType.CALL_START,
        session_id="s",
        call_id="c",
        seq=3,
        age_ms=60_000,
        page_url=f"{SHOP}/cart?secret=1",
        properties={"round_trip_ms": 12},
    )

    tracked = client.track(event)

    assert tracked == Tracked(accepted=1, duplicates=0)
    (row,) = stored(db, widget_id)
    assert (row["id"], row["event_type"], row["session_id"], row["call_id"], row["seq"]) == (
        event.event_id,
        "call_start",
        "s",
        "c",
        3,
    )
    assert (row["page_url"], row["properties"], row["source"]) == (f"{SHOP}/cart", {"round_trip_ms": 12}, "browser")
    assert timedelta(seconds=60) <= row["received_at"] - row["timestamp"] < timedelta(seconds=120)


def test_the_same_event_again_is_a_success_and_changes_nothing(
    client: WidgetAnalytics, db: Connection, new_widget: NewWidget
) -> None:
    """An event object carries its id: sent three ways, it is one row."""
    widget_id = new_widget()
    event = Event(widget_id=widget_id, event_type="widget_load", session_id="s")

    answers = [client.track(event), client.track(event), client.track_many([event, event])]

    assert [(answer.accepted, answer.duplicates) for answer in answers] == [(1, 0), (0, 1), (0, 2)]
    assert len(stored(db, widget_id)) == 1


def test_event_ids_are_uuids_of_version_7_in_time_order() -> None:
    """They keep the ledger's index hot."""
    ids = [Event(widget_id="w", event_type="widget_load", session_id="s").event_id for _ in range(1_000)]

    assert {(one.version, one.variant) for one in ids} == {(7, "specified in RFC 4122")}
    assert len(set(ids)) == 1_000
    assert [one.int >> 80 for one in ids] == sorted(one.int >> 80 for one in ids)


def test_a_page_that_is_not_allowed_is_refused(stack: Stack, new_widget: NewWidget) -> None:
    """From another host, from none, and for an unknown widget: 403, whose reason names the widget."""
    widget_id = new_widget()
    for origin, widget in (("https://evil.example", widget_id), (None, widget_id), (SHOP, uuid4())):
        with (
            WidgetAnalytics(url=stack.api_url, publishable_key=stack.publishable_key, origin=origin) as client,
            pytest.raises(Refused) as refused,
        ):
            client.track(Event(widget_id=widget, event_type="widget_load", session_id="s"))
        assert (refused.value.status, refused.value.code) == (403, "42501")
        assert refused.value.reason.startswith("widget_id:")


def test_a_bad_field_is_named(client: WidgetAnalytics, new_widget: NewWidget) -> None:
    """Bad input is a 400 whose reason begins with the field."""
    with pytest.raises(Refused) as refused:
        client.track(Event(widget_id=new_widget(), event_type="call_ended", session_id="s"))

    assert (refused.value.status, refused.value.code) == (400, "22023")
    assert refused.value.reason.startswith("event_type:")


def test_many_events_are_split_and_rejections_keep_the_callers_numbers(
    client: WidgetAnalytics, db: Connection, new_widget: NewWidget
) -> None:
    """2,500 events take several calls; the bad ones among them are named by their place in the caller's list."""
    widget_id = new_widget()
    bad = {7: "nonsense", 1_007: "nonsense", 2_499: "nonsense"}
    events = [
        Event(widget_id=widget_id, event_type=bad.get(n, "widget_open"), session_id=f"s{n}") for n in range(2_500)
    ]

    tracked = client.track_many(iter(events))

    assert (tracked.accepted, tracked.duplicates) == (2_497, 0)
    assert [(one.index, one.reason.split(":")[0]) for one in tracked.rejected] == [
        (index, "event_type") for index in bad
    ]
    assert {row["id"] for row in stored(db, widget_id)} == {
        event.event_id for n, event in enumerate(events) if n not in bad
    }


def test_large_events_are_split_by_size(client: WidgetAnalytics, db: Connection, new_widget: NewWidget) -> None:
    """Bodies stay below 64 KiB; an event that alone is larger is rejected and costs no other."""
    widget_id = new_widget()
    large = [
        Event(widget_id=widget_id, event_type="widget_open", session_id=f"s{n}", properties={"é": "é" * 1_900})
        for n in range(40)
    ]
    too_large = Event(widget_id=widget_id, event_type="widget_open", session_id="x", properties={"x": "x" * 70_000})

    tracked = client.track_many([*large[:20], too_large, *large[20:]])

    assert (tracked.accepted, [one.index for one in tracked.rejected]) == (40, [20])
    assert len(stored(db, widget_id)) == 40


def test_no_events_are_no_requests(stack: Stack) -> None:
    """An empty list is a success, without asking anyone."""
    with (
        UnreliableProxy(stack.api_url) as network,
        WidgetAnalytics(url=network.url, secret_key=stack.secret_key) as client,
    ):
        assert client.track_many([]) == Tracked(accepted=0, duplicates=0)
        assert network.seen == []


@pytest.mark.counts_answers
def test_a_lost_answer_costs_nothing(stack: Stack, db: Connection, new_widget: NewWidget) -> None:
    """The database has the event, the client never heard so: the second try finds a duplicate."""
    widget_id = new_widget()
    with (
        UnreliableProxy(stack.api_url) as network,
        WidgetAnalytics(url=network.url, publishable_key=stack.publishable_key, origin=SHOP) as client,
    ):
        network.next_faults = [network.lose_answer]

        tracked = client.track_many([Event(widget_id=widget_id, event_type="call_start", session_id="s", call_id="c")])

        assert (tracked, len(network.seen)) == (Tracked(accepted=0, duplicates=1), 2)
    assert len(stored(db, widget_id)) == 1


@pytest.mark.counts_answers
def test_waiting_to_try_again_does_not_shift_the_event(stack: Stack, db: Connection, new_widget: NewWidget) -> None:
    """After a 503 and a 429 that asks for two seconds, the event's time is that of the first try."""
    widget_id = new_widget()
    now = db.execute("select clock_timestamp() as at").fetchone()
    assert now is not None
    with (
        UnreliableProxy(stack.api_url) as network,
        WidgetAnalytics(url=network.url, publishable_key=stack.publishable_key, origin=SHOP) as client,
    ):
        network.next_faults = [answering(503), answering(429, retry_after="2")]

        tracked = client.track(Event(widget_id=widget_id, event_type="widget_load", session_id="s"))

        assert (tracked.accepted, len(network.seen)) == (1, 3)
    (row,) = stored(db, widget_id)
    assert row["received_at"] - row["timestamp"] >= timedelta(seconds=2)
    assert row["timestamp"] > now["at"] - timedelta(seconds=0.1)


@pytest.mark.counts_answers
@pytest.mark.parametrize(
    ("status", "code"), [(405, "25006"), (500, "57014"), (500, "53100"), (503, "PGRST001"), (504, "PGRST003")]
)
def test_a_server_that_takes_no_writes_is_tried_again(
    stack: Stack, db: Connection, new_widget: NewWidget, status: int, code: str
) -> None:
    """Read-only, too slow, out of disk: none of it is about the event, whatever the status."""
    widget_id = new_widget()
    with (
        UnreliableProxy(stack.api_url) as network,
        WidgetAnalytics(url=network.url, publishable_key=stack.publishable_key, origin=SHOP) as client,
    ):
        network.next_faults = [lambda _: Answer(status, f'{{"code": "{code}", "message": "no"}}')]

        tracked = client.track(Event(widget_id=widget_id, event_type="widget_load", session_id="s"))

        assert (tracked.accepted, len(network.seen)) == (1, 2)
    assert len(stored(db, widget_id)) == 1


def test_sending_again_after_an_error_does_not_shift_the_event(
    stack: Stack, db: Connection, new_widget: NewWidget
) -> None:
    """The same event, sent again by its caller after an outage, is dated by when it was made."""
    widget_id = new_widget()
    with (
        UnreliableProxy(stack.api_url) as network,
        WidgetAnalytics(url=network.url, publishable_key=stack.publishable_key, origin=SHOP, attempts=1) as client,
    ):
        event = Event(widget_id=widget_id, event_type="call_end", session_id="s", call_id="c", age_ms=1_000)
        made_at = datetime.now(UTC)
        network.next_faults = [answering(503)]
        with pytest.raises(Unreachable):
            client.track(event)
        time.sleep(1.5)  # the outage

        client.track(event)

    (row,) = stored(db, widget_id)
    assert row["received_at"] - row["timestamp"] >= timedelta(seconds=2.5)
    assert row["timestamp"] > made_at - timedelta(seconds=1.1)


def test_a_long_wait_is_the_callers_to_decide(stack: Stack) -> None:
    """Told to come back in an hour, the client says so instead of sleeping."""
    with (
        UnreliableProxy(stack.api_url) as network,
        WidgetAnalytics(url=network.url, secret_key=stack.secret_key) as client,
    ):
        network.next_faults = [answering(429, retry_after="3600")]

        with pytest.raises(TooManyRequests) as refused:
            client.track(Event(widget_id=uuid4(), event_type="widget_load", session_id="s"))

        assert (refused.value.retry_after, len(network.seen)) == (3600, 1)


def test_the_client_gives_up_after_its_attempts(stack: Stack) -> None:
    """A gateway that stays unwell is an error that says so."""
    with (
        UnreliableProxy(stack.api_url) as network,
        WidgetAnalytics(url=network.url, secret_key=stack.secret_key, attempts=2) as client,
    ):
        network.next_faults = [answering(502)] * 3

        with pytest.raises(Unreachable, match="HTTP 502"):
            client.open_calls()

        assert len(network.seen) == 2


def test_what_is_refused_is_not_tried_again(stack: Stack, new_widget: NewWidget) -> None:
    """The database would say no again."""
    with (
        UnreliableProxy(stack.api_url) as network,
        WidgetAnalytics(url=network.url, secret_key=stack.secret_key) as client,
    ):
        with pytest.raises(Refused):
            client.track(Event(widget_id=new_widget(), event_type="nonsense", session_id="s"))

        assert len(network.seen) == 1


def test_stale_calls_are_completed(stack: Stack, db: Connection, new_widget: NewWidget) -> None:
    """The counts tell of the run; the run is on record; a call that is over is left alone the next time."""
    widget_id = new_widget()
    now = db.execute("select clock_timestamp() as at").fetchone()
    assert now is not None
    insert_calls(
        db,
        widget_id,
        [LedgerCall(started_at=now["at"] - timedelta(hours=1), session_id="s", call_id="c", lasts=None)],
    )

    with WidgetAnalytics(url=stack.api_url, secret_key=stack.secret_key) as client:
        before = client.open_calls()
        first = client.complete_stale_sessions()
        after = client.open_calls()
        again = client.complete_stale_sessions(timedelta(minutes=30))
        runs = client.cleanup_runs(limit=2)

    assert first.calls_completed >= 1
    assert first.calls_checked == first.calls_completed + first.calls_still_active
    assert before - after == first.calls_completed
    assert again.calls_completed == 0
    assert [run.calls_completed for run in runs] == [0, first.calls_completed]
    assert runs[0].error is None


def test_refusals_are_listed(stack: Stack, client: WidgetAnalytics, db: Connection, new_widget: NewWidget) -> None:
    """What the door refused can be asked for, by hour, past the row limit."""
    widget_id = new_widget()
    now = db.execute("select now() as at").fetchone()
    assert now is not None
    for _ in range(2):
        with pytest.raises(Refused):
            client.track(Event(widget_id=widget_id, event_type="nonsense", session_id="s"))

    with WidgetAnalytics(url=stack.api_url, secret_key=stack.secret_key, page_size=1) as reader:
        mine = [one for one in reader.refusals(since=now["at"]) if one.widget_id == widget_id]

    assert [(one.reason, one.detail) for one in mine] == [("invalid_input", "event_type")]
    assert sum(one.refusals for one in mine) == 2
