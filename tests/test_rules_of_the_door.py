"""Which events the door takes, what it answers to the others, and how they are counted."""

import json
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import httpx
import pytest

from local_stack.stack import Stack
from tests.conftest import Connect, NewWidget
from tests.support import AGENT, Browser, Connection, Row, event, events_of

REFUSAL = {
    "code": "42501",
    "message": "widget_id: this widget is unknown, not active, or not allowed on this page's domain",
    "details": None,
    "hint": None,
}


@pytest.fixture
def browser(stack: Stack, http: httpx.Client) -> Browser:
    return Browser(http, stack.publishable_key)


def refusals(db: Connection, widget_id: UUID) -> list[Row]:
    return db.execute(
        "select reason, detail, refusals from public.widget_refusals where widget_id = %s order by 1, 2", [widget_id]
    ).fetchall()


DOORS = [
    # allowed_domains, headers, stored?
    (["shop.example"], {"origin": "https://shop.example"}, True),
    (["shop.example"], {"origin": "http://shop.example:8080"}, True),
    (["shop.example"], {"origin": "https://SHOP.Example"}, True),
    (["Shop.EXAMPLE"], {"origin": "https://shop.example"}, True),
    (["shop.example"], {"origin": "https://shop.example."}, True),
    (["shop.example"], {"referer": "https://shop.example/a/page?x=https://evil.example"}, True),
    (["shop.example"], {"origin": "https://evil.example", "referer": "https://shop.example/"}, False),
    (["shop.example"], {"origin": "null", "referer": "https://shop.example/"}, False),
    (["shop.example"], {}, False),
    (["shop.example"], {"origin": "https://evil-shop.example"}, False),
    (["shop.example"], {"origin": "https://shop.example.evil.io"}, False),
    (["shop.example"], {"origin": "https://sub.shop.example"}, False),
    (["shop.example"], {"origin": "https://shop.example@evil.example"}, False),
    (["shop.example"], {"referer": "https://evil.example\\@shop.example/"}, False),
    (["shop.example"], {"origin": "https://evil.example, https://shop.example"}, False),
    (["shop.example"], {"origin": "file://shop.example"}, False),
    (["shop.example"], {"origin": "shop.example"}, False),
    (["*.shop.example"], {"origin": "https://a.shop.example"}, True),
    (["*.shop.example"], {"origin": "https://a.b.shop.example"}, True),
    (["*.shop.example"], {"origin": "https://shop.example"}, False),
    (["*.shop.example"], {"origin": "https://evilshop.example"}, False),
    (["*.shop.example"], {"origin": "https://.shop.example"}, False),
    (["shop_.example"], {"origin": "https://shopx.example"}, False),
    (["other.example", "shop.example"], {"origin": "https://shop.example"}, True),
    (["xn--mnchen-3ya.example"], {"origin": "https://xn--mnchen-3ya.example"}, True),
    (["[::1]"], {"origin": "http://[::1]:3000"}, True),
    (["127.0.0.1"], {"origin": "http://127.0.0.1:3000"}, True),
    (["*"], {"origin": "https://any.example"}, True),
    (["*"], {}, True),
    ([], {"origin": "https://shop.example"}, False),
]


@pytest.mark.parametrize(("allowed", "headers", "stored"), DOORS)
def test_r8_the_pages_host_decides(
    browser: Browser,
    db: Connection,
    new_widget: NewWidget,
    allowed: list[str],
    headers: dict[str, str],
    stored: bool,
) -> None:
    """Exact hosts, *.parent for hosts below it, * for any, none for none; Origin before Referer."""
    widget_id = new_widget(allowed_domains=tuple(allowed))
    page = Browser(browser.http, browser.key, origin=None)

    answer = page.post("track_event", headers, json=event(widget_id, "widget_load", "s"))

    assert (answer.status_code, len(events_of(db, widget_id))) == ((200, 1) if stored else (403, 0))


@pytest.mark.parametrize(
    "entry", ["https://shop.example", "shop.example/page", "shop.example:80", "a b", "", "münchen.de"]
)
def test_r8_allowed_domains_are_bare_hosts(new_widget: NewWidget, entry: str) -> None:
    """An entry that could never match is refused when it is set."""
    with pytest.raises(Exception, match="allowed_domains_are_bare_hosts"):
        new_widget(allowed_domains=(entry,))


def test_r8_unknown_inactive_and_not_allowed_answer_alike(browser: Browser, new_widget: NewWidget) -> None:
    """The three refusals are one 403, byte for byte, alone and in a batch: nobody can probe which widgets there are."""
    refused = [uuid4(), new_widget(is_active=False), new_widget(allowed_domains=("other.example",))]

    alone = [browser.track(widget_id, "widget_load", "s") for widget_id in refused]
    bad_input = [browser.track(widget_id, "nonsense", "s") for widget_id in refused]
    batch = browser.track_many([event(widget_id, "widget_load", "s") for widget_id in refused])

    assert {answer.status_code for answer in alone + bad_input} == {403}
    assert len({answer.content for answer in alone + bad_input}) == 1
    assert alone[0].json() == REFUSAL
    assert batch.json() == {
        "accepted": 0,
        "duplicates": 0,
        "rejected": [{"index": index, "reason": REFUSAL["message"]} for index in range(3)],
    }


def test_r8_a_demo_widget_is_answered_and_not_stored(browser: Browser, db: Connection, new_widget: NewWidget) -> None:
    """A demo widget's events are taken with success, on any page, and leave no row."""
    widget_id = new_widget(is_demo=True, allowed_domains=())

    alone = browser.track(widget_id, "call_start", "s")
    batch = browser.track_many([event(widget_id, "call_start", "s"), event(widget_id, "call_end", "s")])

    assert (alone.status_code, alone.json()["accepted"]) == (200, 1)
    assert (batch.status_code, batch.json()["accepted"]) == (200, 2)
    assert events_of(db, widget_id) == []


BAD_FIELDS = [
    ("event_type", "call_begin"),
    ("event_type", None),
    ("session_id", ""),
    ("session_id", "x" * 256),
    ("call_id", ""),
    ("call_id", "x" * 256),
    ("seq", 0),
    ("age_ms", 604_800_001),
    ("properties", [1]),
    ("properties", "text"),
    ("properties", {"x": "y" * 5000}),
]


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
def test_r8_bad_input_names_the_field(
    browser: Browser, db: Connection, new_widget: NewWidget, field: str, value: Any
) -> None:
    """Bad input is a 400 whose message names the field; in a batch the reason does, and the others are stored."""
    widget_id = new_widget()
    bad = event(widget_id, "call_start", "s") | {field: value}

    alone = browser.post("track_event", json=bad)
    batch = browser.track_many([bad, event(widget_id, "call_start", "s")])

    assert alone.status_code == 400
    assert (alone.json()["code"], alone.json()["message"].split(":")[0]) == ("22023", field)
    assert batch.json()["accepted"] == 1
    assert [(no["index"], no["reason"].split(":")[0]) for no in batch.json()["rejected"]] == [(0, field)]
    assert len(events_of(db, widget_id)) == 1
    assert refusals(db, widget_id) == [{"reason": "invalid_input", "detail": field, "refusals": 2}]


POISON: list[Any] = [
    None, 5, "x", [], {}, {"widget_id": None}, {"widget_id": "no-uuid"}, {"widget_id": 5},
]  # fmt: skip
POISON_FIELDS: list[Row] = [
    {"event_id": "x"}, {"event_id": 7}, {"seq": "x"}, {"seq": -1}, {"seq": 1.5}, {"seq": 10**12}, {"age_ms": "soon"},
    {"age_ms": 1e300}, {"session_id": {"a": 1}}, {"call_id": [1]}, {"page_url": True}, {"ageMs": 5},
]  # fmt: skip


def test_r8_one_bad_event_never_costs_another(browser: Browser, db: Connection, new_widget: NewWidget) -> None:
    """Whatever stands between good events, these are stored, and each bad one is rejected under its own index."""
    widget_id = new_widget()
    bad = POISON + [event(widget_id, "widget_load", "s") | fields for fields in POISON_FIELDS]
    batch = [each for one in bad for each in (event(widget_id, "widget_open", "s", age_ms=1.5, seq="7"), one)]

    answer = browser.track_many(batch)

    assert answer.status_code == 200
    assert answer.json()["accepted"] == len(bad)
    assert [no["index"] for no in answer.json()["rejected"]] == list(range(1, len(batch), 2))
    assert {row["event_type"] for row in events_of(db, widget_id)} == {"widget_open"}


@pytest.mark.parametrize(
    ("events", "status"),
    [({}, 400), ("text", 400), ("[" * 20_000, 400), (None, 400), (5, 400), ([{}] * 1001, 413), ([], 200)],
)
def test_r8_a_batch_is_an_array_of_at_most_1000(browser: Browser, events: Any, status: int) -> None:
    """What is no array, or too long a one, is refused as a whole, naming `events`; an empty one is a success."""
    answer = browser.track_many(events)

    assert answer.status_code == status
    if status != 200:
        assert answer.json()["message"].startswith("events: ")


def test_r8_forms_are_taken_without_a_preflight(
    stack: Stack, browser: Browser, db: Connection, new_widget: NewWidget
) -> None:
    """A form-encoded body with the key in the query, which a browser sends without asking first, stores its events."""
    widget_id = new_widget()
    headers = {"origin": "https://shop.example", "content-type": "application/x-www-form-urlencoded"}
    one = {"widget_id": str(widget_id), "event_type": "call_start", "session_id": "form", "properties": '{"a": 1}'}
    many = {"events": json.dumps([event(widget_id, "call_end", "form", age_ms=0, seq=2)])}

    for function, form in (("track_event", one), ("track_events", many)):
        url = f"/rest/v1/rpc/{function}?apikey={stack.publishable_key}"
        answer = browser.http.post(url, content=urlencode(form), headers=headers)
        assert (answer.status_code, answer.json()["accepted"]) == (200, 1), answer.text

    assert [(row["event_type"], row["properties"]) for row in events_of(db, widget_id)] == [
        ("call_start", {"a": 1}),
        ("call_end", None),
    ]


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("https://shop.example/p?token=1#frag", "https://shop.example/p"),
        ("https://shop.example#frag?x", "https://shop.example"),
        ("https://user:secret@shop.example/p@q", "https://shop.example/p@q"),
        ("about:srcdoc", "about:srcdoc"),
        ("https://shop.example/" + "p" * 9000, "https://shop.example/" + "p" * (2048 - 21)),
        (None, None),
    ],
)
def test_r8_what_is_stored_of_page_and_agent(
    browser: Browser, db: Connection, new_widget: NewWidget, sent: str | None, stored: str | None
) -> None:
    """page_url loses query, fragment, user and password; user_agent comes from the request."""
    widget_id = new_widget()

    browser.track(widget_id, "widget_load", "s", page_url=sent)

    (row,) = events_of(db, widget_id)
    assert (row["page_url"], row["user_agent"], row["source"]) == (stored, AGENT, "browser")


def test_r8_no_address_is_stored(browser: Browser, db: Connection, new_widget: NewWidget) -> None:
    """Nothing of the sender's network address is in its row."""
    widget_id = new_widget()

    browser.post("track_event", {"x-forwarded-for": "203.0.113.77"}, json=event(widget_id, "widget_load", "s"))

    stored = str(events_of(db, widget_id))
    assert "203.0.113.77" not in stored
    assert "127.0.0.1" not in stored


def test_r8_why_is_my_widget_not_tracking(browser: Browser, db: Connection, new_widget: NewWidget) -> None:
    """Each refusal is counted by widget, reason and hour, with the host to allow or the field to mend."""
    widget_id, unknown = new_widget(), uuid4()
    elsewhere = Browser(browser.http, browser.key, origin="https://www.shop.example:444")

    for _ in range(3):
        elsewhere.track(widget_id, "widget_load", "s")
    elsewhere.track_many([event(widget_id, "widget_load", "s")] * 2)
    browser.track(widget_id, "widget_load", "s", seq=0)
    browser.track(unknown, "widget_load", "s")
    db.execute("update public.widgets set is_active = false where id = %s", [widget_id])
    browser.track(widget_id, "widget_load", "s")

    assert refusals(db, widget_id) == [
        {"reason": "domain_not_allowed", "detail": "www.shop.example", "refusals": 5},
        {"reason": "invalid_input", "detail": "seq", "refusals": 1},
        {"reason": "widget_inactive", "detail": "", "refusals": 1},
    ]
    found = db.execute("select reason, hour from public.widget_refusals where detail = %s", [str(unknown)]).fetchone()
    hour = db.execute("select date_trunc('hour', now()) as hour").fetchone()
    assert hour is not None
    assert found == {"reason": "unknown_widget", "hour": hour["hour"]}


def test_r8_a_flood_of_hosts_does_not_fill_the_counts(browser: Browser, db: Connection, new_widget: NewWidget) -> None:
    """Past twenty hosts an hour a widget's refusals are counted together, and none is lost."""
    widget_id = new_widget()

    for number in range(50):
        Browser(browser.http, browser.key, f"https://host{number}.example").track(widget_id, "widget_load", "s")

    counted = refusals(db, widget_id)
    assert len(counted) == 21
    assert sum(row["refusals"] for row in counted) == 50
    assert max(counted, key=lambda row: row["refusals"])["detail"] == "(others)"


@pytest.mark.parametrize("field", ["widget_id", "event_type", "session_id"])
def test_r8_a_missing_field_is_a_400_that_names_it(browser: Browser, new_widget: NewWidget, field: str) -> None:
    """Not PostgREST's 404 for a function that it cannot find, on which a sender would keep and repeat the event."""
    sent = event(new_widget(), "widget_load", "s")
    del sent[field]

    answer = browser.post("track_event", json=sent)

    assert answer.status_code == 400
    assert answer.json()["message"].startswith(f"{field}: ")


def test_r8_properties_keep_their_nulls(browser: Browser, db: Connection, new_widget: NewWidget) -> None:
    """What is inside properties is stored as it was sent, alone and in a batch."""
    widget_id = new_widget()
    properties = {"a": None, "b": {"c": None}}

    browser.track(widget_id, "widget_load", "s", properties=properties)
    browser.track_many([event(widget_id, "widget_load", "s", properties=properties)])

    assert [row["properties"] for row in events_of(db, widget_id)] == [properties] * 2


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
def test_r8_every_api_role_may_send(connect: Connect, new_widget: NewWidget, role: str) -> None:
    """Signed-in visitors and the company's backend use the same door as anonymous ones."""
    widget_id = new_widget()
    sender = connect(role, request__headers='{"origin": "https://shop.example"}')

    row = sender.execute("select public.track_event(%s, 'widget_load', 's') as answer", [widget_id]).fetchone()

    assert row is not None
    assert row["answer"]["accepted"] == 1
