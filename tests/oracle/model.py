"""R1 to R7 in plain Python, written from the design's text alone: it shares no code and no SQL with the product.

Clear rather than fast: whatever is asked is computed afresh from the events of the whole session.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

MAX_CALL_DURATION = timedelta(hours=4)
MAX_AGE = timedelta(days=7)

# R5, weakest first.
SOURCES = ("inferred", "browser", "server", "provider", "operator")
TERMINAL = ("call_error", "call_end")


@dataclass(frozen=True)
class Event:
    id: UUID
    session_id: str
    event_type: str
    timestamp: datetime
    received_at: datetime
    call_id: str | None = None
    seq: int | None = None
    source: str = "browser"
    # What a server, a provider or an operator may add to an end: how long the call was.
    stated: timedelta | None = None


@dataclass(frozen=True)
class Call:
    session_id: str
    call_id: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str
    evidence: str | None

    @property
    def duration_seconds(self) -> Decimal | None:
        return None if self.ended_at is None else seconds(self.ended_at - self.started_at)


@dataclass(frozen=True)
class InferredEnd:
    """What the cleanup adds to the ledger; its id and its receipt are the database's own."""

    session_id: str
    call_id: str
    timestamp: datetime


@dataclass(frozen=True)
class CleanupRun:
    calls_checked: int
    calls_completed: int
    calls_still_active: int
    ends: tuple[InferredEnd, ...]


def happened_at(now: datetime, age_ms: int) -> datetime | None:
    """R3: the moment that a sender's age means; none where it is refused as too old."""
    age = timedelta(milliseconds=max(age_ms, 0))
    return None if age > MAX_AGE else now - age


def seconds(duration: timedelta) -> Decimal:
    return Decimal(duration // timedelta(microseconds=1)) / 1_000_000


@dataclass
class Ledger:
    """One widget's events."""

    events: dict[UUID, Event] = field(default_factory=dict)
    max_call_duration: timedelta = MAX_CALL_DURATION

    def add(self, event: Event) -> bool:
        """R1: the first of an id stays, for ever; says whether this one was it."""
        if event.id in self.events:
            return False
        self.events[event.id] = event
        return True

    def as_of(self, moment: datetime) -> "Ledger":
        return Ledger({e.id: e for e in self.events.values() if e.received_at <= moment}, self.max_call_duration)

    def calls(self) -> list[Call]:
        return [
            call
            for by_call in sort_by_session_and_call(self.events.values()).values()
            for call_id, events in by_call.items()
            if (call := read_call(call_id, events, self.max_call_duration)) is not None
        ]

    def cleanup(self, now: datetime, stale_after: timedelta) -> CleanupRun:
        """R7. Adds nothing by itself: the caller learns from the database under which ids the ends went in."""
        checked = 0
        ends = []
        for by_call in sort_by_session_and_call(self.events.values()).values():
            for call_id, events in by_call.items():
                call = read_call(call_id, events, self.max_call_duration)
                if call is None or call.outcome != "open" or not call.started_at < now - stale_after:
                    continue
                checked += 1
                heartbeat = last_heartbeat(events)
                if heartbeat is None:
                    ends.append(InferredEnd(call.session_id, call_id, call.started_at + stale_after))
                elif not heartbeat > now - stale_after:
                    ends.append(InferredEnd(call.session_id, call_id, heartbeat))
        return CleanupRun(checked, len(ends), checked - len(ends), tuple(ends))


def sort_by_session_and_call(events: Iterable[Event]) -> dict[str, dict[str, list[Event]]]:
    sessions: dict[str, list[Event]] = {}
    for event in events:
        if event.event_type.startswith("call_"):
            sessions.setdefault(event.session_id, []).append(event)
    return {session_id: sort_by_call(of_session) for session_id, of_session in sessions.items()}


def sort_by_call(session: list[Event]) -> dict[str, list[Event]]:
    """R4: which call each event of one session belongs to. Some of these have no start, and make no call."""
    calls: dict[str, list[Event]] = {}
    current: str | None = None
    for event in in_time_order(e for e in session if e.call_id is None):
        if event.event_type == "call_start":
            current = str(event.id)
        if current is not None:
            calls.setdefault(current, []).append(event)
    for event in session:
        if event.call_id is not None:
            calls.setdefault(event.call_id, []).append(event)
    return calls


def in_time_order(events: Iterable[Event]) -> Iterator[Event]:
    """R4 says "in time order" and leaves ties open.

    Told from outside: at one instant the sender's own numbers decide, none counting as 0; then a start
    comes before what may belong to it; then the ids, so that any order of arrival gives the same calls.
    """
    return iter(sorted(events, key=lambda e: (e.timestamp, e.seq or 0, e.event_type != "call_start", e.id)))


def read_call(call_id: str, events: list[Event], max_call_duration: timedelta) -> Call | None:
    """R5 and R6."""
    starts = [e.timestamp for e in events if e.event_type == "call_start"]
    if not starts:
        return None
    session_id = events[0].session_id
    started_at = min(starts)
    terminals = [e for e in events if e.event_type in TERMINAL]
    if not terminals:
        return Call(session_id, call_id, started_at, None, "open", None)

    # Two equal ends at one instant may state two lengths; then the id decides, so that the order of arrival does not.
    end = max(
        terminals,
        key=lambda e: (SOURCES.index(e.source), TERMINAL.index(e.event_type), e.timestamp, -e.id.int),
    )
    ended_at = end.timestamp
    if end.stated is not None and end.source in ("server", "provider", "operator"):
        ended_at = started_at + end.stated
    evidence = {"browser": "observed", "server": "observed"}.get(end.source, end.source)
    if end.source == "inferred":
        heartbeat = last_heartbeat(events)
        evidence = "assumed" if heartbeat is None else "heartbeat"
        ended_at = ended_at if heartbeat is None else heartbeat
    ended_at = max(started_at, min(ended_at, started_at + max_call_duration))
    outcome = "completed" if end.event_type == "call_end" else "failed"
    return Call(session_id, call_id, started_at, ended_at, outcome, evidence)


def last_heartbeat(events: list[Event]) -> datetime | None:
    return max((e.timestamp for e in events if e.event_type == "call_heartbeat"), default=None)
