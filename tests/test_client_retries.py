"""What may pass is tried again, whatever its status; what is about the request is not."""

import json
import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import DictRow

from local_stack.stack import Stack
from local_stack.unreliable_proxy import Answer, Seen, UnreliableProxy
from tests.client_support import LedgerCall, environment, insert_calls, run
from tests.conftest import NewWidget
from tests.test_client_reads import day_of
from widget_analytics import Event, Period, Refused, Unreachable, WidgetAnalytics, WidgetAnalyticsError, WrongKey

Connection = psycopg.Connection[DictRow]
SHOP = "https://shop.example"


def told(code: str, message: str) -> str:
    return json.dumps({"code": code, "details": None, "hint": None, "message": message})


# What PostgREST says where a pooled connection had died, on a standby, through a pooler, and by a clock that is behind.
PASSING = [
    Answer(400, told("", "")),
    Answer(400, ""),
    Answer(400, "<html>Bad Request</html>"),
    Answer(400, told("0A000", "cannot set transaction read-write mode during recovery")),
    Answer(400, told("42P05", 'prepared statement "0" already exists')),
    Answer(400, told("26000", 'prepared statement "0" does not exist')),
    Answer(401, told("PGRST303", "JWT issued at future")),
    Answer(401, told("PGRST303", "JWT not yet valid")),
]
FINAL = [
    (Answer(400, told("22023", "seq: must be positive")), Refused),
    (Answer(400, told("PGRST102", "Empty or invalid json")), Refused),
    (Answer(400, told("P0001", "no")), Refused),
    (Answer(401, told("PGRST303", "JWT expired")), WrongKey),
    (Answer(401, told("PGRST301", "No suitable key or wrong key type")), WrongKey),
]


@pytest.mark.counts_answers
@pytest.mark.parametrize("answer", PASSING, ids=lambda answer: f"{answer.status} {answer.body[:20]}")
def test_what_is_not_about_the_event_is_tried_again(
    stack: Stack, db: Connection, new_widget: NewWidget, answer: Answer
) -> None:
    """The event is stored, once."""
    widget_id = new_widget()
    event = Event(widget_id=widget_id, event_type="call_start", session_id="s", call_id="c")
    with (
        UnreliableProxy(stack.api_url) as network,
        WidgetAnalytics(url=network.url, publishable_key=stack.publishable_key, origin=SHOP) as client,
    ):
        network.next_faults = [lambda _: answer]

        tracked = client.track(event)

        assert (tracked.accepted, len(network.seen)) == (1, 2)
    stored = db.execute("select count(*) from public.widget_analytics where widget_id = %s", [widget_id]).fetchone()
    assert stored == {"count": 1}


@pytest.mark.parametrize("answer", PASSING, ids=lambda answer: f"{answer.status} {answer.body[:20]}")
def test_an_export_outlives_it(
    stack: Stack, db: Connection, new_widget: NewWidget, tmp_path: Path, answer: Answer
) -> None:
    """The file is whole."""
    widget_id = new_widget()
    day = day_of(widget_id)
    insert_calls(db, widget_id, [LedgerCall(started_at=day.start, session_id="s", call_id="c")])
    arguments = ("--from", day.start.isoformat(), "--to", day.end.isoformat(), "--widget", str(widget_id))
    with UnreliableProxy(stack.api_url) as network:
        network.next_faults = [lambda _: answer]
        env = environment(stack, SUPABASE_URL=network.url)

        done = run(env, tmp_path, "export", "--detail", "calls", *arguments)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(widget_id)) == 1


@pytest.mark.parametrize(("answer", "kind"), FINAL, ids=lambda value: getattr(value, "body", "")[:20])
def test_what_is_about_the_request_is_final(stack: Stack, answer: Answer, kind: type[WidgetAnalyticsError]) -> None:
    """It is told at once."""
    with (
        UnreliableProxy(stack.api_url) as network,
        WidgetAnalytics(url=network.url, secret_key=stack.secret_key) as client,
    ):
        network.next_faults = [lambda _: answer]

        with pytest.raises(kind):
            client.track(Event(widget_id=uuid4(), event_type="widget_load", session_id="s"))

        assert len(network.seen) == 1


@pytest.mark.parametrize("body", ["<html>you are offline</html>", "", "[1, 2", '"ok"'])
def test_a_200_that_says_nothing_of_events_is_no_delivery(stack: Stack, body: str) -> None:
    """A page, nothing, half an answer or another one: an error, whose event can be sent again."""
    with (
        UnreliableProxy(stack.api_url) as network,
        WidgetAnalytics(url=network.url, secret_key=stack.secret_key) as client,
    ):
        network.next_faults = [lambda _: Answer(200, body)]

        with pytest.raises(WidgetAnalyticsError):
            client.track(Event(widget_id=uuid4(), event_type="widget_load", session_id="s"))


def test_a_server_that_stays_so_is_an_error(stack: Stack) -> None:
    """After as many attempts as were asked for."""
    with (
        UnreliableProxy(stack.api_url) as network,
        WidgetAnalytics(url=network.url, secret_key=stack.secret_key, attempts=2) as client,
        network.instead(Answer(400, told("", ""))),
    ):
        with pytest.raises(Unreachable):
            list(client.usage(Period.month("1981-01")))

        assert len(network.seen) == 2


def test_values_are_read_as_postgrest_writes_them(stack: Stack, db: Connection, new_widget: NewWidget) -> None:
    """Numbers as JSON numbers: the same usage, to the last digit."""
    widget_id = new_widget()
    day = day_of(widget_id)
    lasts = timedelta(hours=3, microseconds=1)
    insert_calls(db, widget_id, [LedgerCall(started_at=day.start + lasts, session_id="1.50", call_id="c", lasts=lasts)])
    with (
        UnreliableProxy(stack.api_url) as network,
        network.fault(lambda seen: as_postgrest(network, seen)),
        WidgetAnalytics(url=network.url, secret_key=stack.secret_key) as client,
    ):
        (usage,) = client.usage(day, widgets=[widget_id])

    with WidgetAnalytics(url=stack.api_url, secret_key=stack.secret_key) as client:
        assert list(client.usage(day, widgets=[widget_id])) == [usage]
    assert str(usage.billable_seconds) == "10800.000001"


def as_postgrest(network: UnreliableProxy, seen: Seen) -> Answer:
    answer = network.pass_on(seen)
    body = re.sub(r'(_seconds": ?)"([\d.]+)"', r"\1\2", answer.body)
    assert answer.body == "[]" or '_seconds":10800.000001' in body.replace(" ", "")
    return answer._replace(body=body)


def test_numbers_keep_more_digits_than_a_float_has(stack: Stack) -> None:
    """An amount is what the database wrote."""
    charge = (
        '[{"period":"2026-10-01","widget_id":"0195f2a0-0000-7000-8000-000000000001","usage_period":"2026-10-01",'
        '"plan_valid_from":null,"monthly_fee":null,"included_seconds":0,"price_per_minute":0.123456789012,"currency":"EUR",'
        '"old_seconds":0,"new_seconds":1234567890123456.000001,"difference_seconds":1234567890123456.000001,'
        '"old_amount":0,"new_amount":98765432109876543.21,"difference_amount":98765432109876543.21,"content_hash":"x"}]'
    )
    with (
        UnreliableProxy(stack.api_url) as network,
        WidgetAnalytics(url=network.url, secret_key=stack.secret_key) as client,
    ):
        network.next_faults = [lambda _: Answer(200, charge), lambda _: Answer(200, "[]"), lambda _: Answer(200, "[]")]

        (read,) = client.charges(Period.month("2026-10").start.date())

    assert read.new_seconds == Decimal("1234567890123456.000001")
    assert read.difference_amount == Decimal("98765432109876543.21")
