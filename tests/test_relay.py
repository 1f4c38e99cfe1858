"""The `events` function over the real gateway and database: what reaches the ledger, and whose quota it uses."""

from collections.abc import Iterator
from uuid import UUID

import httpx
import pytest

from local_stack.stack import Stack
from local_stack.unreliable_proxy import DEAD_CONNECTION, Answer, Seen, UnreliableProxy
from tests.conftest import NewWidget
from tests.support import Browser, Connection, event, events_of

RELAYS_OWN_ADDRESS = "192.0.2.200"


@pytest.fixture
def network(stack: Stack) -> Iterator[UnreliableProxy]:
    """What is between the relay and the gateway."""
    with UnreliableProxy(stack.api_url) as network:
        yield network


@pytest.fixture
def relay(stack: Stack, network: UnreliableProxy) -> Iterator[str]:
    with stack.function("events", {"SUPABASE_URL": network.url}) as url:
        yield url


@pytest.fixture
def quotas(db: Connection) -> Iterator[Connection]:
    """Quotas that a test may change: afterwards they are what they were."""
    yield db
    db.execute("update widget_internal.settings set events_per_sender_per_minute = default")


def send(relay: str, widget_id: UUID, **headers: str) -> httpx.Response:
    """One event, with headers as bytes."""
    sent = {"origin": "https://shop.example", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return httpx.post(
        relay,
        json=[event(widget_id, "widget_open", "s")],
        headers={name.encode(): value.encode("latin-1") for name, value in sent.items()},
        timeout=30,
    )


@pytest.mark.counts_answers
@pytest.mark.parametrize(
    ("agent", "stored"),
    [("caf\xe9", "caf\u00e9"), ("caf\xc3\xa9", "caf\u00e9"), ("x\xff\xfe", "x\u00ff\u00fe")],
)
def test_a_header_that_is_no_utf8_costs_no_event(
    relay: str, db: Connection, new_widget: NewWidget, agent: str, stored: str
) -> None:
    """PostgREST would answer 500 to it for ever; the relay reads it as Latin-1, and leaves UTF-8 alone."""
    widget_id = new_widget()

    answer = send(relay, widget_id, user_agent=agent, referer="https://shop.example/caf\xe9", x_forwarded_for="\xff")

    assert answer.json() == {"accepted": 1, "duplicates": 0, "rejected": []}
    assert [row["user_agent"] for row in events_of(db, widget_id)] == [stored]


@pytest.mark.counts_answers
def test_a_dead_connection_is_no_refusal(
    relay: str, network: UnreliableProxy, db: Connection, new_widget: NewWidget
) -> None:
    """PostgREST's empty 400 becomes a status at which senders keep their events; the next attempt is taken."""
    widget_id = new_widget()

    with network.fault(network.every(2, lambda _: DEAD_CONNECTION)):
        answers = [send(relay, widget_id) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 502, 200, 502]
    assert len(events_of(db, widget_id)) == 2


@pytest.mark.counts_answers
def test_a_refusal_stays_one(relay: str, new_widget: NewWidget) -> None:
    """What the database says of the events themselves comes back as it is: they would be refused again."""
    closed = send(relay, new_widget(allowed_domains=("other.example",)))
    malformed = httpx.post(relay, json={"events": 5}, timeout=30)
    too_many = httpx.post(relay, json=[{}] * 1001, timeout=30)

    assert (closed.status_code, len(closed.json()["rejected"])) == (200, 1)
    assert (malformed.status_code, malformed.json()["code"]) == (400, "22023")
    assert (too_many.status_code, too_many.json()["code"]) == (413, "54000")


@pytest.mark.counts_answers
def test_visitors_count_by_themselves(
    stack: Stack, relay: str, network: UnreliableProxy, quotas: Connection, new_widget: NewWidget
) -> None:
    """One visitor over quota stops nobody else, through the relay or directly, though a gateway adds the relay's own
    address; and what a direct sender says of a visitor is not believed."""
    widget_id = new_widget()
    quotas.execute("update widget_internal.settings set events_per_sender_per_minute = 20")

    def gateway(request: Seen) -> Answer:
        return network.pass_on(request._replace(headers={**request.headers, "x-forwarded-for": RELAYS_OWN_ADDRESS}))

    with network.fault(gateway):
        flood = [send(relay, widget_id, x_forwarded_for="10.0.0.1, 203.0.113.51").status_code for _ in range(42)]
        others = {send(relay, widget_id, x_forwarded_for=f"198.51.100.{n}").status_code for n in range(10, 30)}
    with httpx.Client(base_url=stack.api_url) as http:
        direct = Browser(http, stack.publishable_key)
        forged = [
            direct.post(
                "track_event",
                {"x-forwarded-for": "203.0.113.52", "x-widget-visitor": f"198.51.100.{n}"},
                json=event(widget_id, "widget_open", "s"),
            ).status_code
            for n in range(42)
        ]

    assert 429 in flood
    assert others == {200}
    assert 429 in forged
