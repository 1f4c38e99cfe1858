"""Webhooks of call providers through the function and the gateway into the database, up to the bill."""

import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest

from local_stack.postgres_server import PostgresServer
from local_stack.stack import Stack
from local_stack.unreliable_proxy import DEAD_CONNECTION, UnreliableProxy, answering
from tests.conftest import NewWidget
from tests.provider_calls import bill, browser_tells, records_of, told_call
from tests.provider_payloads import (
    BODIES,
    PRIVATE,
    PUBLIC_URL,
    SECRETS,
    WHOLE_SECONDS,
    daily,
    deliver,
    livekit,
    query_of,
)
from tests.support import Connection, differences

EVERY_PROVIDER = pytest.mark.parametrize("name", sorted(BODIES))
SETTINGS = {f"{name.upper()}_WEBHOOK_SECRET": secret for name, secret in SECRETS.items()}


@pytest.fixture(scope="module")
def network(stack: Stack) -> Iterator[UnreliableProxy]:
    """What is between the function and the gateway."""
    with UnreliableProxy(stack.api_url) as network:
        yield network


@pytest.fixture(scope="module")
def receiver(stack: Stack, network: UnreliableProxy) -> Iterator[str]:
    """The function with every provider's secret."""
    settings = SETTINGS | {"SUPABASE_URL": network.url, "PROVIDERS_PUBLIC_URL": PUBLIC_URL}
    with stack.function("providers", settings) as url:
        yield url


@EVERY_PROVIDER
def test_a_webhook_decides_what_is_billed(receiver: str, db: Connection, new_widget: NewWidget, name: str) -> None:
    """The browser's end came a minute late; the provider's own times are billed, in whole seconds to a second."""
    widget_id, told = new_widget(), told_call(leg_id=f"leg-{uuid4()}" if name in ("livekit", "daily") else None)
    browser_tells(db, widget_id, told, "s")

    answer = deliver(receiver, name, BODIES[name](told))

    assert (answer.status_code, answer.json()) == (200, {"recorded": True})
    (stored,) = records_of(db, told)
    assert (stored["provider"], stored["record_id"], stored["agent"]) == (name, told.record_id, "agent-1")
    (billed,) = bill(db, widget_id)
    assert billed["evidence"] == "provider"
    assert abs(float(billed["billable_seconds"]) - 120.4) <= (1 if name in WHOLE_SECONDS else 0.001)
    assert abs((billed["started_at"] - told.started_at).total_seconds()) <= (1 if name in WHOLE_SECONDS else 0.001)
    assert differences(db, widget_id) == []


@EVERY_PROVIDER
def test_deliveries_in_any_order_and_number_give_one_bill(
    receiver: str, db: Connection, new_widget: NewWidget, name: str
) -> None:
    """Before the browser's events, after them, and over and over: one record, one call, the same seconds."""
    billed = []
    for steps in sorted(set(itertools.permutations(["webhook", "webhook", "browser"]))):
        widget_id, told = new_widget(), told_call()
        for step in steps:
            if step == "browser":
                browser_tells(db, widget_id, told, "s")
            else:
                assert deliver(receiver, name, BODIES[name](told)).json() == {"recorded": True}
        (call,) = bill(db, widget_id)
        assert len(records_of(db, told)) == 1
        billed.append((call["billable_seconds"], call["evidence"]))

    assert len(set(billed)) == 1
    assert billed[0][1] == "provider"


@EVERY_PROVIDER
def test_a_webhook_of_days_ago_still_counts(receiver: str, db: Connection, new_widget: NewWidget, name: str) -> None:
    """The provider took three days to deliver it; signed now, it is taken."""
    widget_id, told = new_widget(), told_call()
    told = replace(told, **{at: getattr(told, at) - timedelta(days=3) for at in ("started_at", "ended_at")})
    browser_tells(db, widget_id, told, "s")

    deliver(receiver, name, BODIES[name](told))

    (billed,) = bill(db, widget_id)
    assert (billed["evidence"], round(billed["billable_seconds"])) == ("provider", 120)


@EVERY_PROVIDER
def test_a_call_that_no_page_reported_is_billed_by_its_agent(
    receiver: str, db: Connection, new_widget: NewWidget, name: str
) -> None:
    """An ad blocker hid it: eight days after its end no browser can report it, and the agent says whose it was."""
    widget_id, told = new_widget(), told_call(agent=f"agent-{uuid4()}")
    told = replace(told, **{at: getattr(told, at) - timedelta(days=8) for at in ("started_at", "ended_at")})
    db.execute("insert into public.widget_provider_agents values (%s, %s, %s)", [name, told.agent, widget_id])

    deliver(receiver, name, BODIES[name](told))

    (billed,) = bill(db, widget_id)
    assert (billed["evidence"], round(billed["billable_seconds"])) == ("provider", 120)


def test_a_second_event_of_the_same_end_adds_what_was_not_known(receiver: str, db: Connection) -> None:
    """Retell tells the end twice; the cost may be in either, and the order does not matter."""
    kept = []
    for events in (("call_ended", "call_analyzed"), ("call_analyzed", "call_ended")):
        told = told_call()
        for event in events:
            payload = json.loads(BODIES["retell"](told)) | {"event": event}
            if event == "call_ended":
                del payload["call"]["call_cost"]
            deliver(receiver, "retell", json.dumps(payload))
        (stored,) = records_of(db, told)
        kept.append((stored["cost"], stored["cost_currency"], stored["reason"]))

    assert kept == [(Decimal("0.0871"), "USD", "user_hangup")] * 2


def test_the_same_delivery_many_times_at_once_is_one_record(
    receiver: str, db: Connection, new_widget: NewWidget
) -> None:
    """Some providers send several within a second: each is answered 200."""
    widget_id, told = new_widget(), told_call()
    browser_tells(db, widget_id, told, "s")
    body = BODIES["retell"](told)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: deliver(receiver, "retell", body), range(24)))

    assert {answer.status_code for answer in answers} == {200}
    assert len(records_of(db, told)) == 1
    assert [billed["evidence"] for billed in bill(db, widget_id)] == ["provider"]


@EVERY_PROVIDER
def test_forged_replayed_and_cut_deliveries_store_nothing(
    receiver: str, db: Connection, new_widget: NewWidget, name: str
) -> None:
    """Another's signature, yesterday's delivery, a body that broke off: 401, and the browser's word stands."""
    widget_id, told = new_widget(), told_call()
    browser_tells(db, widget_id, told, "s")
    body = BODIES[name](told)
    longer = BODIES[name](replace(told, ended_at=told.ended_at + timedelta(hours=1)))

    statuses = [
        deliver(receiver, name, body, signed_as=longer).status_code,
        deliver(receiver, name, body[:-1], signed_as=body).status_code,
    ]
    if name != "twilio":  # whose signature has no time
        statuses.append(deliver(receiver, name, body, signed_at=datetime.now(UTC) - timedelta(days=1)).status_code)

    assert set(statuses) == {401}
    assert records_of(db, told) == []
    (billed,) = bill(db, widget_id)
    assert billed["evidence"] == "observed"


@pytest.mark.parametrize("name", ["elevenlabs", "livekit", "retell", "twilio", "ultravox", "vapi"])
def test_our_ids_name_the_call_where_the_page_named_its_own(
    receiver: str, db: Connection, new_widget: NewWidget, name: str
) -> None:
    """The page gave the call a name of its own and put widget, session and that name into the metadata."""
    widget_id = new_widget()
    told = told_call(widget_id=str(widget_id), session_id="s", widget_call_id="ours")
    browser_tells(db, widget_id, replace(told, call_id="ours"), "s")

    deliver(receiver, name, BODIES[name](told), query=query_of(name, told))

    (billed,) = bill(db, widget_id)
    assert (billed["call_id"], billed["evidence"]) == ("ours", "provider")


@pytest.mark.parametrize(
    ("name", "body", "agents_leg"),
    [
        ("livekit", livekit, {"kind": "AGENT"}),
        ("livekit", livekit, {"attributes": {"widget_role": "staff"}}),
        ("daily", daily, {"owner": True}),
        ("daily", daily, {"user_id": "staff"}),
    ],
)
def test_a_call_in_legs_runs_from_the_visitors_first_to_the_last(
    receiver: str,
    db: Connection,
    new_widget: NewWidget,
    name: str,
    body: Callable[..., str],
    agents_leg: dict[str, object],
) -> None:
    """A reconnection is a leg of its own, and may be told first. The agent was in the room an hour longer."""
    widget_id, told = new_widget(), told_call()
    start = told.started_at.replace(microsecond=0)
    first = replace(told, leg_id=f"{told.call_id}-1", started_at=start, ended_at=start + timedelta(seconds=60))
    second = replace(
        told,
        leg_id=f"{told.call_id}-2",
        started_at=start + timedelta(seconds=65),
        ended_at=start + timedelta(seconds=180),
    )
    agent = replace(
        told,
        leg_id=f"{told.call_id}-agent",
        started_at=start - timedelta(minutes=30),
        ended_at=start + timedelta(minutes=30),
    )
    browser_tells(db, widget_id, told, "s")

    for delivery in (body(second), body(agent, **agents_leg), body(first)):
        assert deliver(receiver, name, delivery).status_code == 200

    assert [stored["record_id"] for stored in records_of(db, told)] == [first.record_id, second.record_id]
    (billed,) = bill(db, widget_id)
    assert billed["billable_seconds"] == 180


def test_an_outage_is_503_and_the_next_attempt_counts(
    receiver: str, network: UnreliableProxy, db: Connection, new_widget: NewWidget
) -> None:
    """No database, a dead connection, an answer that was lost: the provider tries again, and it is one record."""
    widget_id, told = new_widget(), told_call()
    browser_tells(db, widget_id, told, "s")
    body = BODIES["vapi"](told)
    network.next_faults = [answering(503), lambda _: DEAD_CONNECTION, network.lose_answer]

    statuses = [deliver(receiver, "vapi", body).status_code for _ in range(4)]

    # Deno's own fetch sends again what a broken connection took.
    assert statuses == [503, 503, 200, 200]
    assert len(records_of(db, told)) == 1
    assert [billed["evidence"] for billed in bill(db, widget_id)] == ["provider"]


def test_while_the_database_is_down_the_provider_is_told_to_try_again(server: PostgresServer | None) -> None:
    """Not the gateway but Postgres itself is gone."""
    with (
        Stack(durable=False, server=server, scheduler=False, jobs=False) as own,
        own.function("providers", SETTINGS | {"PROVIDERS_PUBLIC_URL": PUBLIC_URL}) as url,
    ):
        own.database.kill()
        down = [deliver(url, name, BODIES[name](told_call())).status_code for name in BODIES]
        own.database.start()
        own.restart_gateway()
        up = deliver(url, "vapi", BODIES["vapi"](told_call()))

    assert set(down) == {503}
    assert up.json() == {"recorded": True}


def test_what_will_never_fit_is_taken_off_the_providers_hands(receiver: str, db: Connection) -> None:
    """A call without an id, one that ends before it starts: 200, or the provider would switch the webhook off."""
    backwards = told_call()
    backwards = replace(backwards, ended_at=backwards.started_at - timedelta(minutes=1))
    nameless = json.loads(BODIES["vapi"](told_call()))
    del nameless["message"]["call"]["id"]

    answers = [
        deliver(receiver, "vapi", BODIES["vapi"](backwards)),
        deliver(receiver, "vapi", json.dumps(nameless)),
    ]

    assert [(answer.status_code, answer.json()["recorded"]) for answer in answers] == [(200, False)] * 2
    assert records_of(db, backwards) == []


@EVERY_PROVIDER
def test_a_provider_without_a_secret_is_refused(stack: Stack, name: str) -> None:
    """As the platform deploys the function, before anybody set a secret."""
    answer = deliver(f"{stack.api_url}/functions/v1/providers", name, BODIES[name](told_call()))

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


def test_no_body_is_logged(stack: Stack, receiver: str, network: UnreliableProxy, tmp_path: Path) -> None:
    """Whatever becomes of a delivery: taken, refused, unreadable, too large, or in an outage."""
    for name, make in BODIES.items():
        body = make(told_call())
        deliver(receiver, name, body)
        deliver(receiver, name, body[:-1], signed_as=body)
        deliver(receiver, name, PRIVATE)
        deliver(receiver, name, PRIVATE * 300_000)
        network.next_faults = [lambda _: DEAD_CONNECTION]
        deliver(receiver, name, body)

    log = (stack.logs / "function-providers.log").read_text()
    assert "not signed with VAPI_WEBHOOK_SECRET" in log
    assert "a signed body is no JSON" in log
    assert "a body has over" in log
    assert PRIVATE not in log
