"""The rules of calls in plain Python, written from the design's text alone: no code and no SQL of the product.

Clear rather than fast: whatever is asked is computed afresh from the events of the whole session.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

MAX_CALL_DURATION = timedelta(hours=4)
ASSUMED_CALL_DURATION = timedelta(minutes=30)
OUTLIVED_AFTER = timedelta(minutes=1)
MAX_AGE = timedelta(days=7)

# Weakest first.
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
    """The moment that a sender's age means; none where it is refused as too old."""
    age = timedelta(milliseconds=max(age_ms, 0))
    return None if age > MAX_AGE else now - age


def seconds(duration: timedelta) -> Decimal:
    return Decimal(duration // timedelta(microseconds=1)) / 1_000_000


@dataclass
class Ledger:
    """One widget's events."""

    events: dict[UUID, Event] = field(default_factory=dict)
    max_call_duration: timedelta = MAX_CALL_DURATION
    # The events that the archive took, by session and call.
    archived: "dict[tuple[str, str], CallEvents]" = field(default_factory=dict)

    def add(self, event: Event) -> bool:
        """The first of an id stays, for ever; says whether this one was it."""
        if event.id in self.events:
            return False
        self.events[event.id] = event
        return True

    def as_of(self, moment: datetime) -> "Ledger":
        return Ledger({e.id: e for e in self.events.values() if e.received_at <= moment}, self.max_call_duration)

    def calls(self) -> list[Call]:
        return [
            call
            for call_id, events, next_start in self._sorted()
            if (call := read_call(call_id, events, next_start, self.max_call_duration)) is not None
        ]

    def cleanup(self, now: datetime, stale_after: timedelta) -> CleanupRun:
        """Adds nothing by itself: the caller learns from the database under which ids the ends went in."""
        checked = 0
        ends = []
        for call_id, events, next_start in self._sorted():
            call = read_call(call_id, events, next_start, self.max_call_duration)
            if call is None or call.outcome != "open" or not call.started_at < now - stale_after:
                continue
            checked += 1
            heartbeat = last_heartbeat(events)
            if heartbeat is None:
                ends.append(InferredEnd(call.session_id, call_id, call.started_at + ASSUMED_CALL_DURATION))
            elif not heartbeat > now - stale_after:
                ends.append(InferredEnd(call.session_id, call_id, heartbeat))
        return CleanupRun(checked, len(ends), checked - len(ends), tuple(ends))

    def archive(self) -> None:
        """The call events of sessions leave of which every call is known and over; the calls stay as they are."""
        for session_id, by_call in sort_by_session_and_call(self.events.values()).items():
            calls = [(call_id, *self._of(session_id, call_id, *found)) for call_id, found in by_call.items()]
            read = [read_call(call_id, events, after, self.max_call_duration) for call_id, events, after in calls]
            is_known = bool(calls) or any(of_session == session_id for of_session, _ in self.archived)
            if not is_known or any(call is None or call.outcome == "open" for call in read):
                continue
            self.archived |= {(session_id, call_id): (events, after) for call_id, events, after in calls}
            gone = [
                e.id for e in self.events.values() if e.session_id == session_id and e.event_type.startswith("call_")
            ]
            for event_id in gone:
                del self.events[event_id]

    def _sorted(self) -> Iterator[tuple[str, list[Event], datetime | None]]:
        """The events of each call, those that the archive took included."""
        sessions = sort_by_session_and_call(self.events.values())
        for session_id, by_call in sessions.items():
            for call_id, found in by_call.items():
                yield (call_id, *self._of(session_id, call_id, *found))
        for (session_id, call_id), (events, next_start) in self.archived.items():
            if call_id not in sessions.get(session_id, {}):
                yield call_id, events, next_start

    def _of(
        self, session_id: str, call_id: str, events: list[Event], next_start: datetime | None
    ) -> tuple[list[Event], datetime | None]:
        """Once archived, only starts and ends join that outrank a browser's."""
        if (session_id, call_id) not in self.archived:
            return events, next_start
        taken, next_start = self.archived[session_id, call_id]
        trusted = [
            e for e in events if e.event_type != "call_heartbeat" and SOURCES.index(e.source) > SOURCES.index("browser")
        ]
        return taken + trusted, next_start


# A call's events, and when the session's next call without a name of its own started.
CallEvents = tuple[list[Event], datetime | None]


def sort_by_session_and_call(events: Iterable[Event]) -> dict[str, dict[str, CallEvents]]:
    sessions: dict[str, list[Event]] = {}
    for event in events:
        if event.event_type.startswith("call_"):
            sessions.setdefault(event.session_id, []).append(event)
    return {session_id: sort_by_call(of_session) for session_id, of_session in sessions.items()}


def sort_by_call(session: list[Event]) -> dict[str, CallEvents]:
    """Which call each event of one session belongs to. Some of these have no start, and make no call."""
    calls: dict[str, list[Event]] = {}
    next_starts: dict[str, datetime] = {}
    current: str | None = None
    for event in in_time_order(e for e in session if e.call_id is None):
        if event.event_type == "call_start":
            if current is not None:
                next_starts[current] = event.timestamp
            current = str(event.id)
        if current is not None:
            calls.setdefault(current, []).append(event)
    for event in session:
        if event.call_id is not None:
            calls.setdefault(event.call_id, []).append(event)
    return {call_id: (events, next_starts.get(call_id)) for call_id, events in calls.items()}


def in_time_order(events: Iterable[Event]) -> Iterator[Event]:
    """On equal times by the sender's own numbers, none counting as 0; then a start comes before what may belong to it;
    then the ids, so that any order of arrival gives the same calls."""
    return iter(sorted(events, key=lambda e: (e.timestamp, e.seq or 0, e.event_type != "call_start", e.id)))


def read_call(
    call_id: str, events: list[Event], next_start: datetime | None, max_call_duration: timedelta
) -> Call | None:
    """What is believed of a call's start and end, and what follows for its outcome and evidence."""
    starts = believed(e for e in events if e.event_type == "call_start")
    if not starts:
        return None
    session_id = events[0].session_id
    started_at = min(e.timestamp for e in starts)
    terminals = believed(e for e in events if e.event_type in TERMINAL)
    if not terminals:
        return Call(session_id, call_id, started_at, None, "open", None)

    end = max(terminals, key=lambda e: (TERMINAL.index(e.event_type), e.timestamp))
    heartbeat = last_heartbeat(events)
    is_outlived = end.source == "browser" and heartbeat is not None and heartbeat > end.timestamp + OUTLIVED_AFTER
    if end.source != "inferred" and not is_outlived:
        ended_at = end.timestamp
        outcome = "completed" if end.event_type == "call_end" else "failed"
        evidence = {"browser": "observed", "server": "observed"}.get(end.source, end.source)
    elif heartbeat is not None:
        ended_at, outcome, evidence = heartbeat, "completed", "heartbeat"
    else:
        ended_at, outcome, evidence = started_at + ASSUMED_CALL_DURATION, "completed", "assumed"
        if next_start is not None:
            ended_at = min(ended_at, next_start)
    ended_at = max(started_at, min(ended_at, started_at + max_call_duration))
    return Call(session_id, call_id, started_at, ended_at, outcome, evidence)


def believed(events: Iterable[Event]) -> list[Event]:
    """Those of the most trusted source that says anything; of operators only the latest decision."""
    told = list(events)
    if not told:
        return []
    source = max((e.source for e in told), key=SOURCES.index)
    of_source = [e for e in told if e.source == source]
    if source == "operator":
        decided_at = max(e.received_at for e in of_source)
        of_source = [e for e in of_source if e.received_at == decided_at]
    return of_source


def last_heartbeat(events: list[Event]) -> datetime | None:
    return max((e.timestamp for e in events if e.event_type == "call_heartbeat"), default=None)
