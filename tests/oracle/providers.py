"""Browser events and providers' records of the same calls, told in any order: always the bill that the model knows."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st
from psycopg import Connection

from tests.oracle.histories import NOW, event_uuid
from tests.oracle.model import Event, Ledger
from tests.oracle.play import Database, Disagreement

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
# What is billed of a call, by its session and id.
Bill = dict[tuple[str, str], tuple[datetime, float | None, str]]


@dataclass(frozen=True)
class Leg:
    """Seconds after the call's own moment. `apart`: its start and its end come as two records of one name."""

    start: int | None
    end: int | None
    failed: bool = False
    apart: bool = False
    # Told once more, so many seconds longer.
    again: int | None = None


@dataclass(frozen=True)
class Seen:
    """What one session saw of it: the page passes the provider's id, or the provider's metadata names this call."""

    start: int | None
    heartbeat: int | None
    end: int | None
    by: str = "id"  # or "metadata", or "nothing": then it is another call for all that anybody knows


@dataclass(frozen=True)
class Carried:
    """A call that the provider carried, so many hours ago."""

    hours_ago: int
    legs: tuple[Leg, ...]
    seen: tuple[Seen, ...]
    # Records that come when no event of a browser can come any more, as a repair pull brings them.
    is_pulled: bool = False


@dataclass(frozen=True)
class Scenario:
    carried: tuple[Carried, ...]
    is_mapped: bool
    order: int
    jobs: tuple[int, ...]


_legs = st.builds(
    Leg,
    st.sampled_from([0, 0, 0, 1, 100, 300, None]),
    st.sampled_from([300, 301, 400, 900, None]),
    st.sampled_from([False, False, False, True]),
    st.booleans(),
    st.sampled_from([None, None, 0, 1, 60]),
).filter(lambda leg: leg.start is not None or leg.end is not None)
_seen = st.builds(
    Seen,
    st.sampled_from([0, 1, -2, 3, 150, 299, 500, None]),
    st.sampled_from([None, 200, 350, 600]),
    st.sampled_from([None, 250, 302, 700]),
    st.sampled_from(["id", "id", "id", "metadata", "nothing"]),
)
_carried = st.builds(
    Carried,
    st.integers(1, 6).map(lambda times: times * 25),
    st.lists(_legs, min_size=1, max_size=3).map(tuple),
    st.lists(_seen, max_size=3).map(tuple),
    st.sampled_from([False, False, False, True]),
)
scenarios = st.builds(
    Scenario,
    st.lists(_carried, min_size=1, max_size=3, unique_by=lambda carried: carried.hours_ago).map(tuple),
    st.booleans(),
    st.integers(1, 1_000_000),
    st.lists(st.integers(0, 20), max_size=3).map(tuple),
)


@dataclass(frozen=True)
class Told:
    """One thing that comes in: a browser's event, or else a record."""

    is_late: bool
    event: Event | None = None
    record: dict[str, Any] | None = None


def call_name(carried: Carried) -> str:
    return f"call-{carried.hours_ago}"


def sessions(carried: Carried) -> list[tuple[str, str, Seen]]:
    """Session, call id, what it saw. Metadata names one call at most: the first that it could."""
    named = next((seen for seen in carried.seen if seen.by == "metadata"), None)
    found = []
    for number, seen in enumerate(carried.seen):
        by = "nothing" if seen.by == "metadata" and seen is not named else seen.by
        own_id = call_name(carried) if by == "id" else f"own-{carried.hours_ago}-{number}"
        found.append((f"{carried.hours_ago}-{number}", own_id, replace(seen, by=by)))
    return found


def told(scenario: Scenario, now: datetime) -> list[Told]:
    """All that comes in, in the order in which it happened."""
    happened: list[tuple[datetime, Told]] = []
    for carried in scenario.carried:
        moment = now - timedelta(hours=carried.hours_ago)
        for session_id, call_id, seen in sessions(carried):
            for kind, after in (("call_start", seen.start), ("call_heartbeat", seen.heartbeat), ("call_end", seen.end)):
                if after is not None:
                    at = moment + after * SECOND
                    event = Event(event_uuid(0), session_id, kind, at, now, call_id)
                    happened.append((at, Told(is_late=False, event=event)))
        for number, leg in enumerate(carried.legs):
            times = times_of(leg, moment)
            # A record is told when its leg is over.
            at = max(t for t in times.values() if t is not None)
            for record in records(carried, number, leg, times):
                happened.append((at, Told(is_late=carried.is_pulled, record=record)))
    return [one for _, one in sorted(happened, key=lambda pair: pair[0])]


def times_of(leg: Leg, moment: datetime) -> dict[str, datetime | None]:
    start = None if leg.start is None else moment + leg.start * SECOND
    end = None if leg.end is None else moment + leg.end * SECOND
    return {"started_at": start, "ended_at": end}


def records(carried: Carried, number: int, leg: Leg, times: dict[str, datetime | None]) -> Iterable[dict[str, Any]]:
    ours = next((s for s in sessions(carried) if s[2].by == "metadata"), None)
    base = {
        "record_id": f"{call_name(carried)}-{number}",
        "call_id": call_name(carried),
        "outcome": "failed" if leg.failed else "completed",
        "session_id": ours and ours[0],
        "widget_call_id": ours and ours[1],
        "agent": "asst",
    }
    if leg.apart:
        for what, at in times.items():
            if at is not None:
                yield base | {what: at}
    else:
        yield base | times
    if leg.again is not None:
        end = times["ended_at"]
        yield base | times | {"ended_at": end and end + leg.again * SECOND, "cost": 1, "cost_currency": "USD"}


def expected(scenario: Scenario, now: datetime) -> Bill:
    """From the rules in words, and the model of calls: who holds the record, and what the others cost."""
    everything = told(scenario, now)
    ledger = Ledger()
    numbers = iter(range(1_000_000))

    def add(event: Event) -> None:
        ledger.add(replace(event, id=event_uuid(next(numbers))))

    for one in everything:
        if one.event is not None:
            add(one.event)
    for carried in scenario.carried:
        said = [one.record for one in everything if one.record and one.record["call_id"] == call_name(carried)]
        starts = [r["started_at"] for r in said if r.get("started_at")]
        ends = [(r["outcome"] == "completed", r["ended_at"]) for r in said if r.get("ended_at")]
        start, (completed, end) = min(starts, default=None), max(ends, default=(True, None))
        candidates = [
            (first_told(seen), session_id, call_id, seen)
            for session_id, call_id, seen in sessions(carried)
            if seen.by != "nothing" and first_told(seen) is not None
        ]
        moment = now - timedelta(hours=carried.hours_ago)
        if start is None:
            # An end alone needs a start before it.
            candidates = [c for c in candidates if is_before(c[3], moment, end)]
        candidates.sort(key=lambda c: c[:3])
        if not candidates:
            unknown = [s for s in sessions(carried) if s[2].by == "nothing" and is_near(s[2], moment, start)]
            if start and end and scenario.is_mapped and not unknown:
                session_id = f"vapi:{call_name(carried)}"
                candidates = [(0, session_id, call_name(carried), Seen(None, None, None))]
        end_type = "call_end" if completed else "call_error"
        for place, (_, session_id, call_id, _seen) in enumerate(candidates):
            event = Event(event_uuid(0), session_id, "call_start", now, now, call_id, source="provider")
            if place == 0 and start is not None:
                add(replace(event, timestamp=start))
            if end is not None:
                # The others end before they start, and so have no seconds.
                add(
                    replace(event, event_type=end_type, timestamp=end)
                    if place == 0
                    else replace(event, event_type="call_end", timestamp=moment - DAY)
                )
    return {
        (call.session_id, call.call_id): (
            call.started_at,
            None if call.duration_seconds is None else float(call.duration_seconds),
            call.outcome,
        )
        for call in ledger.calls()
    }


def first_told(seen: Seen) -> int | None:
    if seen.start is not None:
        return seen.start
    return min((after for after in (seen.heartbeat, seen.end) if after is not None), default=None)


def is_before(seen: Seen, moment: datetime, end: datetime | None) -> bool:
    return seen.start is not None and end is not None and moment + seen.start * SECOND <= end


def is_near(seen: Seen, moment: datetime, start: datetime | None) -> bool:
    """A call of the same minute that has seconds, as the browser tells it: it may be the provider's."""
    if start is None or seen.start is None or abs(moment + seen.start * SECOND - start) > timedelta(minutes=1):
        return False
    event = Event(event_uuid(1), "s", "call_start", moment + seen.start * SECOND, moment, "c")
    ledger = Ledger()
    ledger.add(event)
    for number, (kind, after) in enumerate((("call_heartbeat", seen.heartbeat), ("call_end", seen.end))):
        if after is not None:
            at = moment + after * SECOND
            ledger.add(replace(event, id=event_uuid(number + 2), event_type=kind, timestamp=at))
    (call,) = ledger.calls()
    return call.duration_seconds is not None and call.duration_seconds > 0


def play(connection: Connection[Any], scenario: Scenario, *, in_order: bool) -> Bill:
    """Into a widget of its own; undone by the caller."""
    widget_id = uuid4()
    row = connection.execute("select now()").fetchone()
    assert row is not None
    now = row[0]
    connection.execute("insert into public.widgets (id) values (%s)", [widget_id])
    if scenario.is_mapped:
        connection.execute("insert into public.widget_provider_agents values ('vapi', 'asst', %s)", [widget_id])
    everything = told(scenario, now)
    if not in_order:
        random.Random(scenario.order).shuffle(everything)  # noqa: S311 - nothing secret
    for number, one in enumerate([one for one in everything if not one.is_late]):
        _take(connection, widget_id, one)
        if number in scenario.jobs and not in_order:
            _match(connection, days=0)
    _match(connection, days=0)
    _match(connection, days=8 + 7)
    for one in everything:
        if one.is_late:
            _take(connection, widget_id, one)
    # Once more a day later: another record may have taken the call that stood in a hidden one's way.
    _match(connection, days=8 + 8)
    _match(connection, days=8 + 10)
    found = connection.execute(
        "select session_id, call_id, started_at, duration_seconds, outcome from public.widget_calls"
        " where widget_id = %s",
        [widget_id],
    ).fetchall()
    wrong = connection.execute(
        "select count(*) from widget_internal.widget_calls_differences() where widget_id = %s", [widget_id]
    ).fetchone()
    assert wrong == (0,), "kept calls are not what the ledger gives"
    return {(s, c): (at, None if seconds is None else float(seconds), outcome) for s, c, at, seconds, outcome in found}


def _take(connection: Connection[Any], widget_id: UUID, one: Told) -> None:
    # Each as in a transaction of its own, with its own moment of receipt.
    connection.execute("select set_config('widget_internal.receipt_time', '', true)")
    if one.event is not None:
        e = one.event
        connection.execute(
            'insert into public.widget_analytics (widget_id, session_id, call_id, event_type, "timestamp")'
            " values (%s, %s, %s, %s, %s)",
            [widget_id, e.session_id, e.call_id, e.event_type, e.timestamp],
        )
    if one.record is not None:
        fields = one.record | ({"widget_id": str(widget_id)} if one.record["session_id"] else {})
        names = "".join(f", {name} => %({name})s" for name in fields)
        connection.execute(f"select public.record_widget_provider_call('vapi'{names})".encode(), fields)


def _match(connection: Connection[Any], *, days: int) -> None:
    connection.execute("select set_config('widget_internal.receipt_time', '', true)")
    connection.execute("select widget_internal.match_due_provider_calls('infinity', now() + %s)", [days * DAY])


def is_nothing(call: tuple[datetime, float | None, str]) -> bool:
    return call[1] == 0


def check(database: Database, scenario: Scenario) -> Bill:
    """Raises a Disagreement where the database bills otherwise than the model, in order or not."""
    bills = {}
    for way in ("in order", "shuffled"):
        with database.connection.transaction(force_rollback=True):
            row = database.connection.execute("select now()").fetchone()
            assert row is not None
            bills["the model", way] = expected(scenario, row[0])
            bills[way, way] = play(database.connection, scenario, in_order=way == "in order")
            model, found = (
                {key: call for key, call in bills[which, way].items() if not is_nothing(call)}
                for which in ("the model", way)
            )
        if model != found:
            raise Disagreement(
                "\n".join(f"{what}: {bill}" for what, bill in ((f"told {way}", found), ("the model", model)))
            )
    return bills["shuffled", "shuffled"]


def from_json(said: dict[str, Any]) -> Scenario:
    return Scenario(
        carried=tuple(
            Carried(
                c["hours_ago"],
                tuple(Leg(**leg) for leg in c["legs"]),
                tuple(Seen(**seen) for seen in c["seen"]),
                c["is_pulled"],
            )
            for c in said["carried"]
        ),
        is_mapped=said["is_mapped"],
        order=said["order"],
        jobs=tuple(said["jobs"]),
    )


def run(database: Database, *, count: int, seed: int, on_progress: Callable[[], object] = lambda: None) -> Counter[str]:
    """Raises a Disagreement on the smallest scenario found; else says what the scenarios held."""
    seen: Counter[str] = Counter()

    @with_seed(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(scenarios)
    def every_scenario(scenario: Scenario) -> None:
        try:
            bill = check(database, scenario)
        except Exception as error:
            error.add_note(f"Play it again with: scripts/oracle --replay '{json.dumps(asdict(scenario))}'")
            raise
        seen["histories"] += 1
        seen["browser events and records told"] += len(told(scenario, NOW))
        seen["calls billed once"] += sum(not is_nothing(call) for call in bill.values())
        seen["calls seen in another session, at no cost"] += sum(map(is_nothing, bill.values()))
        seen["calls that only the provider knows"] += sum(session.startswith("vapi:") for session, _ in bill)
        on_progress()

    every_scenario()
    return seen
