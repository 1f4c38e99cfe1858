"""Forged headers: what a page's host may look like, byte by byte on the wire, and what a refusal gives away."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from statistics import median
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import UUID, uuid4

import pytest

from local_stack.stack import Stack
from tests.conftest import NewWidget
from tests.support import Connection, event, events_of

Headers = list[tuple[str, str | bytes]]


class Wire:
    """Sends headers exactly as given: repeated, empty, or of bytes that no client library would send."""

    def __init__(self, stack: Stack) -> None:
        self._key = stack.publishable_key
        address = urlsplit(stack.api_url)
        self.connection = HTTPConnection(str(address.hostname), address.port, timeout=30)

    def post(self, function: str, headers: Headers, body: bytes, kind: str = "application/json") -> tuple[Any, ...]:
        """Status, reason, headers but the date, body."""
        self.connection.putrequest("POST", f"/rest/v1/rpc/{function}", skip_accept_encoding=True)
        for name, value in [
            ("apikey", self._key),
            ("content-type", kind),
            ("content-length", str(len(body))),
            *headers,
        ]:
            self.connection.putheader(name, value)
        self.connection.endheaders(body)
        try:
            answer = self.connection.getresponse()
            said = answer.read()
        except ConnectionResetError:  # what is no HTTP is answered and cut off with its body unread
            self.connection.close()
            return 400, "cut off", [], b""
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() != "date"]
        return answer.status, answer.reason, kept, said

    def track(self, widget_id: UUID, headers: Headers, **fields: Any) -> tuple[Any, ...]:
        return self.post("track_event", headers, json.dumps(event(widget_id, "widget_load", "s", **fields)).encode())


@pytest.fixture(scope="module")
def wire(stack: Stack) -> Iterator[Wire]:
    wire = Wire(stack)
    with closing(wire.connection):
        yield wire


HONEST: list[tuple[str, str | bytes]] = [
    ("shop.example", "https://shop.example"),
    ("shop.example", "HTTPS://SHOP.EXAMPLE:443"),
    ("shop.example", "https://shop.example:"),
    ("shop.example.", "https://shop.example"),
    ("shop.example", "https://shop.example./"),
    ("*.shop.example", "https://WWW.SHOP.EXAMPLE:8443"),
    ("XN--Mnchen-3ya.example", "https://xn--mnchen-3ya.example"),
    ("[2001:db8::1]", "https://[2001:DB8::1]:8443"),
    ("192.0.2.7", "http://192.0.2.7:80"),
    ("localhost", "http://localhost:3000"),
]


@pytest.mark.parametrize(("allowed", "origin"), HONEST)
def test_the_same_host_written_another_way_is_let_in(
    wire: Wire, db: Connection, new_widget: NewWidget, allowed: str, origin: str
) -> None:
    """Scheme, port, case and a trailing dot are not the host."""
    widget_id = new_widget(allowed_domains=(allowed,))

    status, *_ = wire.track(widget_id, [("origin", origin)])

    assert (status, len(events_of(db, widget_id))) == (200, 1)


FORGED: list[Headers] = [
    [("origin", origin)]
    for origin in (
        *("https://evil-shop.example", "https://evilshop.example", "https://shop.example.evil.io"),
        *("https://shop.exampleevil.io", "https://xshop.example", "https://shop.exampl", "https://example"),
        *("https://shop.example@evil.io", "https://shop.example:80@evil.io", "https://shop.example:x"),
        *("https://shop.example%2eevil.io", "https://shop.example%00.evil.io", b"https://shop.example\x00.evil.io"),
        *("https://evil.io/shop.example", "https://evil.io?https://shop.example", "https://evil.io#@shop.example"),
        *("https://evil.io\\@shop.example", "https://evil.io\\.shop.example", "https://evil.io/@shop.example"),
        *("https://evil.io, https://shop.example", "https://shop.example, https://evil.io"),
        *("https://evil.io https://shop.example", "https://shop.example https://evil.io"),
        *("//shop.example", "https:shop.example", "https:/shop.example", "https:///shop.example", "shop.example"),
        *("file://shop.example", "ftp://shop.example", "blob:https://shop.example", "xhttps://shop.example"),
        *("null", "NULL", "", "https://", "*", "https://*", "https://*.example", "%", "https://%", "https://.*"),
        *(
            "https://shop.example..",
            "https://.shop.example",
            "https://shop..example",
            "https://sh\u00f6p.example".encode(),
        ),
        *("https://\uff53hop.example".encode(), "https://shop\u3002example".encode(), b"https://shop.\xffexample"),
        *(
            "https://xn--shop-.example",
            "https://[shop.example]",
            "https://[::ffff:192.0.2.7]",
            "https://[::1%25shop.example]",
        ),
        "https://" + "a" * 4000 + ".shop.example",
    )
]
FORGED += [
    [("origin", "https://evil.io"), ("origin", "https://shop.example")],
    [("origin", "https://shop.example"), ("origin", "https://evil.io")],
    [("origin", "https://shop.example"), ("origin", "https://shop.example")],
    [("origin", "null"), ("referer", "https://shop.example/")],
    [("origin", ""), ("referer", "https://shop.example/")],
    [("referer", "https://evil.io/?https://shop.example/"), ("x-forwarded-host", "shop.example")],
    [("referer", "https://shop.example@evil.io/")],
    [("referer", "shop.example")],
    [("x-origin", "https://shop.example"), ("forwarded", "host=shop.example")],
    [],
]


def test_no_forged_host_is_let_in(wire: Wire, db: Connection, new_widget: NewWidget) -> None:
    """Nothing that only looks like an allowed host, stands beside it, or is said twice, stores an event."""
    widget_id = new_widget(allowed_domains=("shop.example", "192.0.2.7", "[::1]"))

    # 400: a header that holds a NUL is no HTTP, and goes no further than the gateway; 500: one that is no UTF-8.
    let_in = [headers for headers in FORGED if wire.track(widget_id, headers)[0] not in (400, 403, 500)]

    assert let_in == []
    assert events_of(db, widget_id) == []


def test_addresses_of_version_6_are_compared_as_written(wire: Wire, new_widget: NewWidget) -> None:
    """A browser writes an address in one way; another spelling of it, or another address, is another host."""
    widget_id = new_widget(allowed_domains=("[::1]",))
    origins = (
        "http://[::1]",
        "http://[::1]:3000",
        "http://[0:0:0:0:0:0:0:1]",
        "http://[::2]",
        "http://::1",
        "http://[::1",
    )

    statuses = [wire.track(widget_id, [("origin", origin)])[0] for origin in origins]

    assert statuses == [200, 200, 403, 403, 403, 403]


@pytest.fixture
def refused(new_widget: NewWidget) -> dict[str, UUID]:
    return {
        "unknown": uuid4(),
        "inactive": new_widget(is_active=False),
        "inactive and elsewhere": new_widget(is_active=False, allowed_domains=("other.example",)),
        "elsewhere": new_widget(allowed_domains=("other.example",)),
        "nowhere": new_widget(allowed_domains=()),
    }


def test_refusals_are_alike_byte_for_byte(wire: Wire, refused: dict[str, UUID]) -> None:
    """Status, every header but the date, and body: alone, with bad input, in a batch, as JSON and as a form."""
    origin: Headers = [("origin", "https://shop.example")]
    form = "application/x-www-form-urlencoded"

    asks: list[Callable[[UUID], tuple[Any, ...]]] = [
        lambda each: wire.track(each, origin),
        lambda each: wire.track(each, origin, seq=0, call_id=""),
        lambda each: wire.post("track_event", origin, urlencode(event(each, "widget_load", "s")).encode(), form),
        lambda each: wire.post("track_events", origin, json.dumps({"events": [event(each, "call_end", "s")]}).encode()),
        lambda each: wire.post(
            "track_events", origin, urlencode({"events": json.dumps([event(each, "x", "")])}).encode(), form
        ),
    ]

    for ask in asks:
        answers = {name: ask(widget_id) for name, widget_id in refused.items()}

        assert len(set(map(str, answers.values()))) == 1, answers


def test_refusals_take_alike_long(wire: Wire, refused: dict[str, UUID]) -> None:
    """Asked in turns, no kind of refusal takes twice as long as another: time does not tell which widgets there are."""
    took: dict[str, list[float]] = {name: [] for name in refused}

    for _ in range(25):
        for name, widget_id in refused.items():
            began = time.perf_counter()
            wire.track(widget_id, [("origin", "https://shop.example")])
            took[name].append(time.perf_counter() - began)

    medians = {name: median(times) for name, times in took.items()}
    assert max(medians.values()) < 2 * min(medians.values()), medians
