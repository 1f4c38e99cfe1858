"""Two months of a company's widgets, written into the ledger: what the usage page of the demo shows.

Unlike the demo's day it does not come over HTTP, which takes no event older than a week. Days have the rhythm of
opening hours and weekends; calls end in every way that there is. The same seed makes the same months.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

SEED = 11
DAYS = 60
OWNERS = ("owner@bakery.example", "owner@clinic.example")
PASSWORD = "demo-password"  # noqa: S105 for made-up data on this machine alone
_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
_HEARTBEAT = timedelta(seconds=30)
_STALE_AFTER = timedelta(minutes=30)
_COLUMNS = (
    "id", "widget_id", "event_type", "session_id", "call_id", "seq", "source", "timestamp", "received_at",
    "page_url", "user_agent", "properties",
)  # fmt: skip
_COPY = f"copy public.widget_analytics ({', '.join(_COLUMNS)}) from stdin"

Event = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """A widget as a customer uses it: its pages, how busy a weekday is, when it is open, and what it costs."""

    widget_id: UUID
    pages: dict[str, int]
    sessions_a_day: int
    hours: range
    weekend: float
    length: float
    plan: str
    price: str
    included_seconds: int


PLACES = (
    Place(
        UUID("11111111-1111-7111-8111-111111111111"),
        {
            "https://bakery.example/order": 6,
            "https://bakery.example/": 4,
            "https://cafe.bakery.example/": 3,
            "https://bakery.example/wedding-cakes": 2,
            "https://cafe.bakery.example/tables": 1,
        },
        sessions_a_day=95,
        hours=range(6, 19),
        weekend=1.35,
        length=4.7,
        plan="Voice",
        price="0.09",
        included_seconds=30_000,
    ),
    Place(
        UUID("22222222-2222-7222-8222-222222222222"),
        {
            "https://shop.bakery.example/cakes": 5,
            "https://shop.bakery.example/": 3,
            "https://shop.bakery.example/cart": 2,
        },
        sessions_a_day=60,
        hours=range(8, 23),
        weekend=0.8,
        length=4.2,
        plan="Chat",
        price="0.04",
        included_seconds=12_000,
    ),
    Place(
        UUID("33333333-3333-7333-8333-333333333333"),
        {
            "https://clinic.example/appointments": 6,
            "https://clinic.example/": 3,
            "https://clinic.example/prescriptions": 2,
        },
        sessions_a_day=70,
        hours=range(7, 18),
        weekend=0.15,
        length=4.9,
        plan="Voice",
        price="0.11",
        included_seconds=60_000,
    ),
)

# Hosts whose events the door refused, by widget: forgotten ones, and somebody else's.
_REFUSED = {
    PLACES[0].widget_id: {"old.bakery-shop.example": 24, "bakery.staging.example": 9},
    PLACES[1].widget_id: {"blog.bakery.example": 14},
    PLACES[2].widget_id: {"clinic-copycat.example": 18},
}


def fill(database_url: str, *, until: datetime) -> str:
    """Write the months that end at `until`, with plans and passwords; says how much that was."""
    dice = random.Random(SEED)  # noqa: S311 a simulation, not a secret
    events = [event for place in PLACES for event in _play(dice, place, until)]
    events.sort(key=lambda event: event["timestamp"])
    with psycopg.connect(database_url) as connection:
        with connection.cursor().copy(_COPY) as copy:
            for event in events:
                copy.write_row([event.get(name) for name in _COLUMNS])
        _add_plans(connection, until)
        _add_refusals(connection, dice, until)
    set_passwords(database_url)
    calls = sum(event["event_type"] == "call_start" for event in events)
    return f"{DAYS} days, {len(events):,} events, {calls:,} calls"


def set_passwords(database_url: str, owners: tuple[str, ...] = OWNERS) -> None:
    """Let them sign in. Stored as the local gateway does it; a hosted project's owners get theirs from Auth."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            """
            update auth.users set email_confirmed_at = now(), encrypted_password =
              extensions.crypt(%s, extensions.gen_salt('bf', 6))
            where email = any (%s)
            """,
            [PASSWORD, list(owners)],
        )


def count(database_url: str) -> None:
    """Bring the counts of health up to now. Events that claim an earlier receipt need all of it anew."""
    with psycopg.connect(database_url) as connection:
        connection.execute("select widget_internal.rebuild_health()")


def _play(dice: random.Random, place: Place, until: datetime) -> Iterator[Event]:
    for days_ago in range(DAYS, 0, -1):
        day = (until - timedelta(days=days_ago - 1)).replace(hour=0, minute=0, second=0, microsecond=0)
        trend = 1 - 0.35 * days_ago / DAYS
        weekday = place.weekend if day.weekday() >= 5 else 1 + 0.12 * (day.weekday() == 0)
        for _ in range(round(place.sessions_a_day * trend * weekday * dice.uniform(0.85, 1.15))):
            hour = dice.triangular(place.hours.start, place.hours.stop, place.hours.start + len(place.hours) * 0.4)
            at = day + timedelta(hours=hour)
            # The longest call, and what follows it, is over before the day that the demo plays.
            if at < until - timedelta(hours=2):
                yield from _session(dice, place, at)


def _session(dice: random.Random, place: Place, at: datetime) -> Iterator[Event]:
    session_id = uuid7(dice, at)
    seq = 0

    def event(event_type: str, when: datetime, source: str = "browser", **columns: Any) -> Event:
        nonlocal seq
        if source == "browser":
            seq += 1
            columns["seq"] = seq
        if isinstance(columns.get("properties"), dict):
            columns["properties"] = json.dumps(columns["properties"])
        delay = timedelta(milliseconds=dice.uniform(40, 400))
        return {
            "id": uuid7(dice, when), "widget_id": place.widget_id, "event_type": event_type, "session_id": session_id,
            "source": source, "timestamp": when, "received_at": when + delay, **columns,
        }  # fmt: skip

    page = dice.choices(list(place.pages), list(place.pages.values()))[0]
    yield event("widget_load", at, page_url=page, user_agent=_AGENT)
    if dice.random() < 0.45:
        return
    at += timedelta(seconds=dice.uniform(2, 60))
    yield event("widget_open", at, properties={"rtt_ms": round(dice.lognormvariate(4.2, 0.4))})
    if dice.random() < 0.3:
        return
    at += timedelta(seconds=dice.uniform(1, 30))
    length = timedelta(seconds=round(min(dice.lognormvariate(place.length, 0.8), 5400), 3))
    yield from _call(dice, event, at, length, session_id)


def _call(dice: random.Random, event: Any, at: datetime, length: timedelta, session_id: str) -> Iterator[Event]:
    fate = dice.random()
    call = {"call_id": f"{session_id}-1"}
    yield event("call_start", at, **call)
    if fate < 0.012:  # a page whose script is blocked half-way: nothing more is heard of it
        yield event("call_end", at + _STALE_AFTER, "inferred", **call)
        return
    beats = int(length / _HEARTBEAT)
    for beat in range(beats + 1):
        yield event("call_heartbeat", at + beat * _HEARTBEAT, **call)
    if fate < 0.05:
        yield event("call_end", at + beats * _HEARTBEAT, "inferred", **call)
    elif fate < 0.08:
        yield event(
            "call_error", at + length, **call, properties={"code": dice.choice(["media-timeout", "no-microphone"])}
        )
    elif dice.random() < 0.99:  # otherwise the end is lost, and the gap in the numbers shows it
        yield event("call_end", at + length, **call)
    else:
        event("call_end", at + length, **call)
        yield event("widget_open", at + length + timedelta(minutes=1))
        yield event("call_end", at + beats * _HEARTBEAT, "inferred", **call)
    if 0.08 < fate < 0.15:
        record = {"record_id": f"rec-{session_id[-12:]}", "duration_seconds": length.total_seconds()}
        yield event("call_end", at + length, "provider", **call, properties=record)
    elif 0.15 < fate < 0.154:
        correction = {"corrected_by": "support", "reason": "caller was cut off", "duration_seconds": 0}
        yield event("call_end", at + length, "operator", **call, properties=correction)


def _add_plans(connection: psycopg.Connection[Any], until: datetime) -> None:
    for place in PLACES:
        connection.execute(
            """
            insert into public.widget_plans (widget_id, valid_from, name, included_seconds, price_per_minute, currency)
            values (%s, date_trunc('month', %s::date - %s), %s, %s, %s, 'EUR') on conflict do nothing
            """,
            [place.widget_id, until, DAYS, place.plan, place.included_seconds, place.price],
        )


def _add_refusals(connection: psycopg.Connection[Any], dice: random.Random, until: datetime) -> None:
    for widget_id, hosts in _REFUSED.items():
        for host, hours in hosts.items():
            for _ in range(hours):
                connection.execute(
                    """
                    insert into widget_internal.refusal_counts (hour, widget_id, reason, detail, shard, refusals)
                    values (date_trunc('hour', %s::timestamptz), %s, 'domain_not_allowed', %s, 0, %s)
                    on conflict do nothing
                    """,
                    [until - timedelta(days=dice.uniform(0, 25)), widget_id, host, dice.randint(1, 9)],
                )


def uuid7(dice: random.Random, at: datetime) -> str:
    milliseconds = int(at.timestamp() * 1000)
    return str(UUID(int=milliseconds << 80 | 0x7 << 76 | dice.getrandbits(12) << 64 | 0x2 << 62 | dice.getrandbits(62)))
