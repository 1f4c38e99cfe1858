"""Who is over quota is refused with 429, and nobody else is."""

import json
from collections.abc import Iterator
from uuid import UUID, uuid4

import httpx
import pytest

from local_stack.stack import Stack
from tests.conftest import Connect, NewWidget
from tests.support import Browser, Connection, event, events_of
from tests.torture.floods import Flood, flood

DAY = 86_400


@pytest.fixture
def browser(stack: Stack, http: httpx.Client) -> Browser:
    return Browser(http, stack.publishable_key)


@pytest.fixture
def quotas(db: Connection) -> Iterator[Connection]:
    """Quotas that a test may change: afterwards they are what they were."""
    yield db
    db.execute("delete from public.widget_quotas")
    db.execute(
        "update widget_internal.settings set events_per_widget_per_day = default,"
        " events_per_sender_per_minute = default, sender_address_hop = default"
    )


def allow(db: Connection, widget_id: UUID, events_per_day: int | None) -> None:
    db.execute(
        "insert into public.widget_quotas values (%s, %s) on conflict (widget_id) do update"
        " set events_per_day = excluded.events_per_day",
        [widget_id, events_per_day],
    )


def statuses_until_refused(browser: Browser, widget_id: UUID, attempts: int, address: str) -> list[int]:
    """Sends one event after the other from an address, at most so many, and stops when one is refused."""
    statuses: list[int] = []
    while len(statuses) < attempts and 429 not in statuses:
        answer = browser.post(
            "track_event", headers={"x-forwarded-for": address}, json=event(widget_id, "widget_open", "s")
        )
        statuses.append(answer.status_code)
    return statuses


def test_r8_over_its_daily_quota_a_widget_is_refused(
    quotas: Connection, browser: Browser, new_widget: NewWidget
) -> None:
    """The quota's events are stored; the next is a 429 that says when to come back; other widgets notice nothing."""
    widget_id, other_id = new_widget(), new_widget()
    allow(quotas, widget_id, 5)

    answers = [browser.track(widget_id, "widget_open", "s", event_id=str(uuid4())) for _ in range(7)]
    other = browser.track(other_id, "widget_open", "s")

    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert len(events_of(quotas, widget_id)) == 5
    assert other.json()["accepted"] == 1
    refusal = answers[-1].json()
    assert refusal["code"] == "53400"
    assert 0 < refusal["retry_after"] <= DAY
    assert answers[-1].headers["retry-after"] == str(refusal["retry_after"])


def test_r8_a_batch_over_quota_costs_no_other_widget(
    quotas: Connection, browser: Browser, new_widget: NewWidget
) -> None:
    """In a batch the other widget's events are stored; sent again, nothing is there twice."""
    widget_id, other_id = new_widget(), new_widget()
    allow(quotas, widget_id, 1)
    batch = [event(w, "widget_open", "s", event_id=str(uuid4())) for w in (other_id, widget_id, widget_id, other_id)]

    first = browser.track_many(batch)
    allow(quotas, widget_id, None)
    again = browser.track_many(batch)

    assert first.status_code == 429
    assert [first.json()[key] for key in ("accepted", "duplicates")] == [2, 0]
    assert [refused["index"] for refused in first.json()["rejected"]] == [1, 2]
    assert first.headers["retry-after"] == str(first.json()["retry_after"])
    assert again.status_code == 200
    assert [again.json()[key] for key in ("accepted", "duplicates", "rejected")] == [2, 2, []]
    assert [len(events_of(quotas, w)) for w in (widget_id, other_id)] == [2, 2]


@pytest.mark.parametrize(
    ("address", "another"), [("203.0.113.9", "203.0.113.10"), ("::ffff:203.0.113.11", "::ffff:203.0.113.12")]
)
def test_r8_a_sender_over_its_quota_is_refused(
    quotas: Connection, browser: Browser, new_widget: NewWidget, address: str, another: str
) -> None:
    """One address is held to so many events a minute, over all widgets; another address is not held up."""
    widget_id = new_widget()
    quotas.execute("update widget_internal.settings set events_per_sender_per_minute = 20")

    # At most two minutes' worth: the minute may turn over in between.
    statuses = statuses_until_refused(browser, widget_id, 41, address)
    other = browser.post("track_event", headers={"x-forwarded-for": another}, json=event(widget_id, "widget_open", "s"))

    assert statuses == [200] * (len(statuses) - 1) + [429]
    assert len(statuses) >= 21
    assert other.status_code == 200


@pytest.mark.parametrize(
    ("hop", "template"),
    [
        (1, "198.51.100.{n}, 203.0.113.20"),
        (2, "198.51.100.{n}, 203.0.113.21, 10.0.0.{n}"),
        (1, "2001:db8:0:1::{n:x}"),
        (1, "203.0.113.22:{n}"),
        (1, "[2001:db8:0:2::{n:x}]:{n}"),
    ],
)
def test_r8_a_sender_cannot_pass_for_many(
    quotas: Connection, browser: Browser, new_widget: NewWidget, hop: int, template: str
) -> None:
    """Only the hop that the company's own proxy wrote counts, and of IPv6 only the network that a sender is given."""
    widget_id = new_widget()
    quotas.execute(
        "update widget_internal.settings set events_per_sender_per_minute = 20, sender_address_hop = %s", [hop]
    )

    statuses: list[int] = []
    for n in range(1, 42):
        statuses += statuses_until_refused(browser, widget_id, 1, template.format(n=n))

    assert 429 in statuses


def test_r8_the_companys_backend_is_no_sender(quotas: Connection, connect: Connect, new_widget: NewWidget) -> None:
    """A server that passes many visitors' events on with the secret key is held to no sender's quota."""
    widget_id = new_widget()
    quotas.execute("update widget_internal.settings set events_per_sender_per_minute = 2")
    headers = json.dumps({"origin": "https://shop.example", "x-forwarded-for": "203.0.113.30"})
    backend = connect("service_role", request__headers=headers)

    for _ in range(6):
        backend.execute("select public.track_event(%s, 'widget_open', 's')", [widget_id])

    assert len(events_of(quotas, widget_id)) == 6


def test_r8_no_address_is_stored(quotas: Connection, connect: Connect, new_widget: NewWidget) -> None:
    """A sender is counted under a keyed hash; the key changes with the day and is deleted."""
    quotas.execute("update widget_internal.settings set events_per_sender_per_minute = 50")
    headers = json.dumps({"origin": "https://shop.example", "x-forwarded-for": "203.0.113.77"})
    sender = connect("anon", request__headers=headers)
    sender.execute("select public.track_event(%s, 'widget_open', 's')", [new_widget()])

    tables = quotas.execute(
        "select format('%I.%I', schemaname, tablename) as name from pg_tables"
        " where schemaname in ('public', 'widget_internal')"
    ).fetchall()
    found = [
        row["name"]
        for row in tables
        if quotas.execute(f"select from {row['name']} t where t::text like '%203.0.113.77%'").fetchone() is not None
    ]
    quotas.execute("update widget_internal.sender_salts set day = day - 1")
    quotas.execute("select widget_internal.forget_senders()")
    salts = quotas.execute("select * from widget_internal.sender_salts").fetchall()

    assert found == []
    assert salts == []


def test_r8_over_quota_is_counted_where_the_editor_sees_it(
    quotas: Connection, browser: Browser, new_widget: NewWidget
) -> None:
    """widget_refusals tells about how many events were over quota, and whose it was."""
    widget_id = new_widget()
    allow(quotas, widget_id, 1)
    batch = [event(widget_id, "widget_open", "s") for _ in range(20)]

    for _ in range(3):
        browser.track_many(batch)

    assert quotas.execute(
        "select reason, detail, refusals from public.widget_refusals where widget_id = %s", [widget_id]
    ).fetchall() == [{"reason": "over_quota", "detail": "widget", "refusals": 60}]


def test_r8_a_large_quota_is_kept_by_sampling(quotas: Connection, new_widget: NewWidget) -> None:
    """Counted by samples, what is stored stays within a large quota and comes near it."""
    widget_id = new_widget()
    quota = 100_000
    allow(quotas, widget_id, quota)

    stored = quotas.execute(
        """
        select count(*) as events
        from generate_series(1, %s) event
        where widget_internal.over_quota(%s, 1) is null
        """,
        [quota * 2, widget_id],
    ).fetchone()

    assert stored is not None
    assert quota * 0.88 < stored["events"] <= quota


def test_r8_counts_that_no_quota_needs_are_deleted(quotas: Connection, new_widget: NewWidget) -> None:
    """Past days' and minutes' counts go; today's stay, or the quota would begin anew."""
    widget_id = new_widget()
    quotas.execute(
        """
        insert into widget_internal.event_counts
        select distinct %s::uuid, moment, 1
        from unnest(array[
          date_trunc('day', now(), 'UTC'), date_trunc('day', now(), 'UTC') - interval '1 day',
          date_trunc('minute', now()) - interval '2 hours 1 minute', date_trunc('minute', now())
        ]) moment
        """,
        [widget_id],
    )

    quotas.execute("select widget_internal.forget_senders()")

    left = quotas.execute(
        "select count(*) as n, bool_or(window_start = date_trunc('day', now(), 'UTC')) as today"
        " from widget_internal.event_counts where subject = %s",
        [widget_id],
    ).fetchone()
    assert left is not None
    assert (left["n"] <= 3, left["today"]) == (True, True)


def test_r8_a_flood_of_one_widget_is_no_other_widgets_matter(stack: Stack) -> None:
    """Flooded tenfold over HTTP, a widget stores no more than its quota, and its neighbours' events are all taken."""
    result = Flood(list(flood(stack, rounds=1, seconds=3, quota=30, seed=7)), quota=30)

    result.check()
    assert result.flooded.statuses == {200: result.stored, 429: 60 - result.stored}
