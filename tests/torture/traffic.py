"""Senders that note what they sent and what was acknowledged, and the books that a ledger is held against."""

import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import psycopg
from psycopg.rows import DictRow

from local_stack.stack import Stack

Connection = psycopg.Connection[DictRow]
PAGE = "https://shop.example"
STALE_AFTER = timedelta(minutes=30)


class NotAcknowledged(Exception):
    """The answer was lost, or says that the server failed: what became of the events is not known."""


@dataclass
class Books:
    """What all senders of a torture have sent, by event id, and which of it the server said that it has."""

    sent: dict[UUID, dict[str, Any]] = field(default_factory=dict)
    acknowledged: set[UUID] = field(default_factory=set)
    failures: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def in_doubt(self) -> list[dict[str, Any]]:
        return [event for event_id, event in self.sent.items() if event_id not in self.acknowledged]


class Sender:
    """One browser of many: it starts calls, keeps them alive, ends them, repeats itself, in batches and one by one."""

    def __init__(self, stack: Stack, books: Books, widget_ids: list[UUID], *, name: str, seed: int) -> None:
        self._dice = random.Random(seed)  # noqa: S311 a simulation, not a secret
        self._books = books
        self._widget_ids = widget_ids
        self._name = name
        self._calls: list[tuple[UUID, str, str]] = []
        self._sent: list[dict[str, Any]] = []
        self._http = httpx.Client(
            base_url=stack.api_url,
            headers={"apikey": stack.publishable_key, "origin": PAGE},
            timeout=10,
        )

    def close(self) -> None:
        self._http.close()

    def send_some(self) -> None:
        """The next events of this sender's life."""
        if self._dice.random() < 0.5:
            self.send([self._event()])
        else:
            self.send([self._event() for _ in range(self._dice.randint(2, 8))])

    def send(self, events: list[dict[str, Any]]) -> None:
        """Send them and note the answer.

        Raises:
            NotAcknowledged: there was none, or a 5xx.
        """
        with self._books.lock:
            for event in events:
                self._books.sent.setdefault(UUID(event["event_id"]), event)
        single = len(events) == 1
        function, body = ("track_event", events[0]) if single else ("track_events", {"events": events})
        try:
            answer = self._http.post(f"/rest/v1/rpc/{function}", json=body)
        except httpx.TransportError as error:
            self._fail(type(error).__name__)
            raise NotAcknowledged from error
        if answer.status_code >= 500:
            self._fail(f"HTTP {answer.status_code}")
            raise NotAcknowledged
        counts = answer.json()
        if answer.status_code != 200 or counts["rejected"] or counts["accepted"] + counts["duplicates"] != len(events):
            raise AssertionError(f"a 4xx or a rejection, on which a tracker drops its events: {answer.text}")
        with self._books.lock:
            self._books.acknowledged |= {UUID(event["event_id"]) for event in events}

    def _fail(self, how: str) -> None:
        with self._books.lock:
            self._books.failures[how] += 1

    def _event(self) -> dict[str, Any]:
        chance = self._dice.random()
        if self._sent and chance < 0.1:
            return self._dice.choice(self._sent)
        if not self._calls or chance < 0.4:
            # Some sessions are one sender's, some are many senders' at once.
            session = f"{self._name}-{len(self._calls) // 3}" if chance < 0.3 else f"shared-{self._dice.randint(1, 9)}"
            call = (self._dice.choice(self._widget_ids), session, f"{self._name}-call-{len(self._calls)}")
            self._calls.append(call)
            kind, minutes = "call_start", self._dice.uniform(0, 300)
        else:
            call = self._dice.choice(self._calls[-20:])
            kind = self._dice.choice(["call_heartbeat", "call_heartbeat", "call_end", "call_error"])
            minutes = self._dice.uniform(0, 60)
        widget_id, session_id, call_id = call
        event = {
            "widget_id": str(widget_id),
            "event_type": kind,
            "session_id": session_id,
            "call_id": call_id,
            "event_id": str(UUID(int=self._dice.getrandbits(128), version=4)),
            "age_ms": int(minutes * 60_000),
        }
        self._sent.append(event)
        return event


def new_widgets(db: Connection, count: int) -> list[UUID]:
    rows = db.execute(
        "insert into public.widgets (allowed_domains) select array['shop.example'] from generate_series(1, %s)"
        " returning id",
        [count],
    ).fetchall()
    return [row["id"] for row in rows]


def await_true(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.01)


def check_books(db: Connection, books: Books, *, all_sent: bool = False) -> None:
    """Every acknowledged event (or every one sent) is in the ledger, once and as it was sent, and nothing else is.

    Raises:
        AssertionError: one is missing, there twice, changed or not known; or a kept call is not what the ledger gives.
    """
    rows = db.execute(
        "select id, widget_id, event_type, session_id, call_id, source from public.widget_analytics"
        " where widget_id = any (%s)",
        [list({UUID(event["widget_id"]) for event in books.sent.values()})],
    ).fetchall()
    stored = {row["id"]: row for row in rows if row["source"] == "browser"}
    wanted = set(books.sent) if all_sent else books.acknowledged

    lost = wanted - stored.keys()
    assert not lost, f"{len(lost)} of {len(wanted)} events are lost, such as {books.sent[next(iter(lost))]}"
    assert len(stored) == sum(row["source"] == "browser" for row in rows), "an event is there twice"
    for event_id, row in stored.items():
        told = books.sent.get(event_id)
        assert told is not None, f"nobody sent {row}"
        kept = {name: str(row[name]) for name in ("widget_id", "event_type", "session_id", "call_id")}
        assert kept == {name: told[name] for name in kept}
    check_kept_calls(db)


def check_kept_calls(db: Connection) -> None:
    differences = db.execute("select * from widget_internal.widget_calls_differences()").fetchall()
    assert differences == [], f"widget_calls is not what the ledger gives: {json.dumps(differences[:3], default=str)}"


def clean_up_and_check(db: Connection) -> int:
    """Run the cleanup, and hold what it did against what its rule says, told here once more in Python.

    For calls that carry a call_id, which all of this traffic does. Returns how many calls it completed.

    Raises:
        AssertionError: it completed a call too many, one too few, or at another moment.
    """
    with db.transaction():
        before = _ledger(db)
        run = db.execute("select now() as at, * from public.complete_stale_sessions()").fetchone()
    assert run is not None
    due = due_ends(before, now=run["at"])
    inferred = {
        (row["widget_id"], row["session_id"], row["call_id"]): row["timestamp"]
        for row in _ledger(db)
        if row["source"] == "inferred" and row["id"] not in {known["id"] for known in before}
    }

    assert inferred == due
    assert run["calls_completed"] == len(due)
    check_kept_calls(db)
    return len(due)


def due_ends(ledger: Iterable[DictRow], *, now: datetime) -> dict[tuple[UUID, str, str], datetime]:
    """Which calls a cleanup should complete, and when they ended."""
    starts: dict[tuple[UUID, str, str], datetime] = {}
    last_heartbeats: dict[tuple[UUID, str, str], datetime] = {}
    over = set()
    for row in ledger:
        call = (row["widget_id"], row["session_id"], row["call_id"])
        if row["event_type"] == "call_start":
            starts[call] = min(row["timestamp"], starts.get(call, row["timestamp"]))
        elif row["event_type"] == "call_heartbeat":
            last_heartbeats[call] = max(row["timestamp"], last_heartbeats.get(call, row["timestamp"]))
        elif row["event_type"] in ("call_end", "call_error"):
            over.add(call)
    horizon = now - STALE_AFTER
    return {
        call: last_heartbeats.get(call, started_at + STALE_AFTER)
        for call, started_at in starts.items()
        if call not in over and started_at < horizon and last_heartbeats.get(call, started_at) <= horizon
    }


def _ledger(db: Connection) -> list[DictRow]:
    return db.execute("select * from public.widget_analytics").fetchall()
