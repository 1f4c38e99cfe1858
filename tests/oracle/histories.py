"""What can happen to one widget's ledger, as data: Hypothesis makes it, the model and the database play it.

Every time is relative to `NOW`, which stands for the database's now(): a history is the same whenever it is played.
"""

import random
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID, uuid5

from hypothesis import strategies as st

from tests.oracle.model import Event
from tests.oracle.rating import Plan

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
UNNAMED_SOURCES = ("browser", "inferred")
_NAMESPACE = UUID("6f1f9f5e-0000-4000-8000-000000000000")


@dataclass(frozen=True)
class Insert:
    """By SQL as the table's owner: one statement for all, or one for each."""

    events: tuple[Event, ...]
    at_once: bool = False


@dataclass(frozen=True)
class Tracked:
    """What a browser says of an event."""

    id: UUID | None
    session_id: str
    event_type: str
    age_ms: int
    call_id: str | None = None
    seq: int | None = None


@dataclass(frozen=True)
class Track:
    """As the anonymous role: one track_events(), or a track_event() for each."""

    events: tuple[Tracked, ...]
    at_once: bool = False


@dataclass(frozen=True)
class Cleanup:
    stale_after: timedelta


@dataclass(frozen=True)
class Limit:
    """The setting max_call_duration is changed."""

    max_call_duration: timedelta


@dataclass(frozen=True)
class Archive:
    """The events of finished sessions leave; their calls stay."""


Step = Insert | Track | Cleanup | Limit | Archive


@dataclass(frozen=True)
class Bill:
    period_start: datetime
    period_end: datetime
    as_of: datetime | None


@dataclass(frozen=True)
class History:
    steps: tuple[Step, ...]
    bills: tuple[Bill, ...] = ()
    # Each: an order in which the finished ledger's events are told to another widget.
    shuffles: tuple[int, ...] = ()
    # Where months matter, NOW stands for this moment instead, which must be long past: every cleanup is far later.
    origin: datetime | None = None
    time_zone: str = "UTC"
    plans: tuple[Plan, ...] = ()

    @property
    def cleanup_time(self) -> datetime:
        return NOW if self.origin is None else NOW + timedelta(days=36500)


def event_uuid(number: int) -> UUID:
    """Ids whose order says nothing about the order in which they were made."""
    return uuid5(_NAMESPACE, str(number))


# To JSON and back: how a history travels to the database, and how a failing one is printed and played again.


def to_offset(moment: datetime) -> int:
    return (moment - NOW) // MICROSECOND


def from_offset(offset: int) -> datetime:
    return NOW + offset * MICROSECOND


def to_json(history: History) -> dict[str, Any]:
    return {
        "steps": [_step_to_json(step) for step in history.steps],
        "bills": [
            {
                "period_start": to_offset(bill.period_start),
                "period_end": to_offset(bill.period_end),
                "as_of": None if bill.as_of is None else to_offset(bill.as_of),
            }
            for bill in history.bills
        ],
        "shuffles": list(history.shuffles),
        "origin": history.origin and history.origin.isoformat(),
        "time_zone": history.time_zone,
        "plans": [vars(plan) | {"valid_from": plan.valid_from.isoformat()} for plan in history.plans],
    }


def from_json(history: dict[str, Any]) -> History:
    return History(
        steps=tuple(_step_from_json(step) for step in history["steps"]),
        bills=tuple(
            Bill(
                from_offset(bill["period_start"]),
                from_offset(bill["period_end"]),
                None if bill["as_of"] is None else from_offset(bill["as_of"]),
            )
            for bill in history["bills"]
        ),
        shuffles=tuple(history["shuffles"]),
        origin=history["origin"] and datetime.fromisoformat(history["origin"]),
        time_zone=history["time_zone"],
        plans=tuple(Plan(**plan | {"valid_from": date.fromisoformat(plan["valid_from"])}) for plan in history["plans"]),
    )


def _step_to_json(step: Step) -> dict[str, Any]:
    match step:
        case Insert():
            return {"do": "insert", "at_once": step.at_once, "events": [_event_to_json(e) for e in step.events]}
        case Track():
            return {
                "do": "track",
                "at_once": step.at_once,
                "events": [_tracked_to_json(e) for e in step.events],
            }
        case Cleanup():
            return {"do": "cleanup", "stale_after": step.stale_after // MICROSECOND}
        case Archive():
            return {"do": "archive"}
        case Limit():
            return {"do": "limit", "max_call_duration": step.max_call_duration // MICROSECOND}


def _step_from_json(step: dict[str, Any]) -> Step:
    match step["do"]:
        case "insert":
            return Insert(tuple(_event_from_json(e) for e in step["events"]), step["at_once"])
        case "track":
            return Track(tuple(_tracked_from_json(e) for e in step["events"]), step["at_once"])
        case "cleanup":
            return Cleanup(step["stale_after"] * MICROSECOND)
        case "archive":
            return Archive()
        case _:
            return Limit(step["max_call_duration"] * MICROSECOND)


def _tracked_to_json(event: Tracked) -> dict[str, Any]:
    said = dict(vars(event))
    id = said.pop("id")
    return {key: value for key, value in said.items() if value is not None} | ({"event_id": str(id)} if id else {})


def _tracked_from_json(event: dict[str, Any]) -> Tracked:
    event = dict(event)
    id = event.pop("event_id", None)
    return Tracked(id=id and UUID(id), **event)


def _event_to_json(event: Event) -> dict[str, Any]:
    return vars(event) | {
        "id": str(event.id),
        "timestamp": to_offset(event.timestamp),
        "received_at": to_offset(event.received_at),
    }


def _event_from_json(event: dict[str, Any]) -> Event:
    return Event(
        **event
        | {
            "id": UUID(event["id"]),
            "timestamp": from_offset(event["timestamp"]),
            "received_at": from_offset(event["received_at"]),
        }
    )


# Strategies. Few sessions, few names and a coarse clock, so that events often meet.

_MINUTE = timedelta(minutes=1)
_session_ids = st.sampled_from(["s", "s", "s", "t"])
_sources = st.sampled_from(["browser"] * 5 + ["server", "provider", "operator"] * 2 + ["inferred"])
_seqs = st.sampled_from([None, None, None, 1, 2, 3, 7])
_delays = st.sampled_from([timedelta(0)] * 4 + [timedelta(seconds=1), 10 * _MINUTE, 90 * _MINUTE, 300 * _MINUTE])
# Often about half an hour ago, where a cleanup may find a call alive.
_starts = st.sampled_from([*range(-50, 1, 10), *range(-50, 1, 10), *range(-50, 1, 10), *range(-420, 11, 30)]).map(
    lambda minutes: minutes * _MINUTE
)
_stale_after = st.sampled_from([30, 30, 30, 0, 1, 10, 60, 120, 1000]).map(lambda minutes: minutes * _MINUTE)
_limits = st.sampled_from([1, 10, 60, 240, 480]).map(lambda minutes: minutes * _MINUTE)
_cleanups = st.builds(Cleanup, _stale_after)
_interruptions = st.one_of(_cleanups, _cleanups, _cleanups, st.none(), st.builds(Limit, _limits))


@dataclass(frozen=True)
class _Sign:
    """An event of a call, so long after its start; `named` is whether it says which call it belongs to."""

    event_type: str
    after: timedelta
    named: bool
    source: str
    seq: int | None
    delay: timedelta


@dataclass(frozen=True)
class _CallPlan:
    """Where `name` is none, the call goes by the id of its start, and its signs name that or nothing."""

    session_id: str
    name: str | None
    start: timedelta
    signs: tuple[_Sign, ...]


def _signs(event_types: list[str], after: list[float]) -> st.SearchStrategy[_Sign]:
    return st.builds(
        _Sign,
        st.sampled_from(event_types),
        st.sampled_from(after).map(lambda minutes: minutes * _MINUTE),
        st.sampled_from([True, True, False]),
        _sources,
        _seqs,
        _delays,
    )


_AFTER = [1, 5, 10, 20, 30, 0.5, 40, 60, 0, -1, 240, 300]
_plans = st.builds(
    _CallPlan,
    _session_ids,
    st.sampled_from([None, None, "a", "b"]),
    _starts,
    st.tuples(
        # Most have a start, and it is the first sign.
        _signs(["call_start"] * 9 + ["widget_open"], [0]),
        # Half break off without an end.
        st.one_of(
            st.lists(_signs(["call_heartbeat"], _AFTER), max_size=3),
            st.lists(
                _signs(["call_heartbeat"] * 3 + ["call_end"] * 5 + ["call_error"] * 2 + ["call_start"], _AFTER),
                min_size=2,
                max_size=5,
            ),
        ),
    ).map(lambda signs: (signs[0], *signs[1])),
)


@st.composite
def _told(draw: st.DrawFn, *, ties: bool, spread: st.SearchStrategy[timedelta] | None = None) -> list[Event]:
    """Events in some order of arrival: calls, events astray, and some told twice, now and then with other contents."""
    told: list[Event] = []
    taken: set[datetime] = set()
    for plan in draw(st.lists(_plans, min_size=1, max_size=4)):
        name = plan.name or str(event_uuid(len(told)))
        apart = timedelta(0) if spread is None else draw(spread)
        for sign in plan.signs:
            timestamp = NOW + plan.start + apart + sign.after
            while not ties and timestamp in taken:
                timestamp += MICROSECOND
            taken.add(timestamp)
            is_opening = plan.name is None and sign is plan.signs[0]
            # The trusted name their call: only a browser leaves it unnamed.
            is_named = not is_opening and (sign.named or sign.source not in UNNAMED_SOURCES)
            told.append(
                Event(
                    id=event_uuid(len(told)),
                    session_id=plan.session_id,
                    event_type=sign.event_type,
                    timestamp=timestamp,
                    # Nothing was taken in after now; what will happen may have been.
                    received_at=min(timestamp + sign.delay, NOW),
                    call_id=name if is_named else None,
                    seq=sign.seq,
                    source="browser" if is_opening else sign.source,
                )
            )
    for which, other in draw(st.lists(st.tuples(st.integers(0, 19), st.none() | st.integers(0, 19)), max_size=3)):
        again = told[which % len(told)]
        told.append(again if other is None else replace(told[other % len(told)], id=again.id))
    # Left as told where the number is 0, towards which Hypothesis makes examples small.
    if shuffle := draw(st.integers(0, 1_000_000)):
        random.Random(shuffle).shuffle(told)  # noqa: S311 - nothing secret
    return told


@st.composite
def ledger_histories(draw: st.DrawFn, *, ties: bool = False) -> History:
    """Events of every source, by SQL, in any order of arrival, with cleanups in between.

    Without ties, no two events of a history happen at the same instant.
    """
    told = draw(_told(ties=ties))
    steps = tuple(
        step if isinstance(step, Cleanup | Limit) else Insert(step, draw(st.booleans()))
        for step in _interrupted(draw, told)
    )
    return History(steps, _bills(draw, told), (draw(st.integers(0, 1_000_000)),))


@st.composite
def archived_histories(draw: st.DrawFn) -> History:
    """Events, some of which come again, or for the first time, after the archive took those of their sessions."""
    told = draw(_told(ties=True))
    later = draw(_told(ties=True))
    again = [draw(st.sampled_from(told)) for _ in range(draw(st.integers(0, 4)))]
    # An id that is told anew has another event.
    fresh = [replace(event, id=event_uuid(1000 + number)) for number, event in enumerate(later)]
    steps: list[Step] = [Insert(tuple(told), draw(st.booleans()))]
    for batch in (again, fresh):
        steps += [Cleanup(draw(_stale_after)), Archive()]
        if batch:
            steps.append(Insert(tuple(batch), draw(st.booleans())))
    return History(tuple(steps), (Bill(*_EVER, None),))


@st.composite
def door_histories(draw: st.DrawFn) -> History:
    """Events as browsers send them, by the RPCs, with cleanups in between; those of the other sources by SQL."""
    steps: list[Step] = []
    for step in _interrupted(draw, draw(_told(ties=True))):
        if isinstance(step, Cleanup | Limit):
            steps.append(step)
            continue
        at_once = draw(st.booleans())
        for is_browser, events in groupby(step, lambda event: event.source == "browser"):
            if is_browser:
                steps.append(Track(tuple(_as_tracked(draw, event) for event in events), at_once))
            else:
                steps.append(Insert(tuple(replace(event, received_at=NOW) for event in events), at_once))
    return History(tuple(steps), (Bill(*_EVER, None), Bill(*_EVER, NOW), Bill(*_EVER, NOW - MICROSECOND)))


_turns_of_months = st.sampled_from(
    [
        ("UTC", datetime(2025, 4, 1, tzinfo=UTC)),
        # The clocks change within these months, so that each midnight has an offset of its own.
        ("Europe/Vienna", datetime(2025, 3, 31, 22, tzinfo=UTC)),
        ("America/New_York", datetime(2025, 11, 1, 4, tzinfo=UTC)),
        ("America/New_York", datetime(2025, 12, 1, 5, tzinfo=UTC)),
    ]
)
_months = st.sampled_from([0, 0, 0, -1, -2, 1])
# In a month before or after, or on the other side of midnight: here, or by UTC only.
_spreads = st.builds(
    lambda months, minutes: timedelta(days=30 * months, minutes=minutes), _months, st.sampled_from([0, 0, 70, 200])
)
_plans_of_widgets = st.builds(
    Plan,
    st.just(date.min),
    st.sampled_from([0, 0, 1, 6, 30, 60]),
    st.sampled_from([0, 10, 60, 90]),
    st.sampled_from([0, 60, 600, 100_000]),
    st.sampled_from(["0", "0.05", "0.123456", "0.0333", "12.5", "1"]),
    st.sampled_from(["EUR", "EUR", "EUR", "USD", "JPY", "KWD"]),
    st.booleans(),
    st.sampled_from(["full", "none"]),
)


@st.composite
def rated_histories(draw: st.DrawFn) -> History:
    """Calls on both sides of the turns of months, under plans that hold from one month or the other."""
    time_zone, turn = draw(_turns_of_months)
    told = draw(_told(ties=False, spread=_spreads))
    steps = tuple(
        step if isinstance(step, Cleanup | Limit) else Insert(step, at_once=True) for step in _interrupted(draw, told)
    )
    plans = {
        _month_after(turn, months): draw(_plans_of_widgets)
        for months in draw(st.lists(_months.map(lambda months: months - 1), min_size=1, max_size=3))
    }
    return History(
        steps,
        _bills(draw, told),
        origin=turn,
        time_zone=time_zone,
        plans=tuple(replace(plan, valid_from=valid_from) for valid_from, plan in plans.items()),
    )


def _month_after(turn: datetime, months: int) -> date:
    """The month that begins at the turn is the one of its day, by every zone above."""
    years, month = divmod(turn.year * 12 + (turn + timedelta(days=2)).month - 1 + months, 12)
    return date(years, month + 1, 1)


_odd_ages = st.sampled_from([None] * 40 + [-1, 7 * 86_400_000, 7 * 86_400_000 + 1])
_is_nameless = st.sampled_from([False] * 9 + [True])


def _as_tracked(draw: st.DrawFn, event: Event) -> Tracked:
    age_ms = draw(_odd_ages)
    return Tracked(
        # The database may make the id, where that decides nothing: an event that says which call it means.
        id=None if event.call_id is not None and draw(_is_nameless) else event.id,
        session_id=event.session_id,
        event_type=event.event_type,
        age_ms=(NOW - event.timestamp) // timedelta(milliseconds=1) if age_ms is None else age_ms,
        call_id=event.call_id,
        seq=event.seq,
    )


def _interrupted(draw: st.DrawFn, told: list[Event]) -> list[tuple[Event, ...] | Cleanup | Limit]:
    """In batches, with cleanups and changed settings between them and at the end."""
    cuts = draw(st.lists(st.tuples(st.integers(0, len(told)), _interruptions), min_size=1, max_size=5))
    steps: list[tuple[Event, ...] | Cleanup | Limit] = []
    done = 0
    for position, interruption in sorted(cuts, key=lambda cut: cut[0]):
        if position > done:
            steps.append(tuple(told[done:position]))
            done = position
        if interruption is not None:
            steps.append(interruption)
    if done < len(told):
        steps.append(tuple(told[done:]))
    return steps


_EVER = (NOW - timedelta(days=90), NOW + timedelta(days=90))


def _bills(draw: st.DrawFn, told: list[Event]) -> tuple[Bill, ...]:
    """As it stands and as of a moment next to a receipt, over all time and over a period with ends next to events."""
    number = st.integers(0, len(told) - 1)
    nearby = st.integers(-1, 1)
    bills = [Bill(*_EVER, None), Bill(*_EVER, NOW)]
    as_of = told[draw(number)].received_at + draw(nearby) * MICROSECOND
    bills.append(Bill(*_EVER, as_of))
    start, end = sorted(told[draw(number)].timestamp + draw(nearby) * MICROSECOND for _ in range(2))
    if start < end:
        bills += [Bill(start, end, as_of), Bill(start, end, None)]
    return tuple(bills)
