"""Seven days in which the scheduler ran every half hour, and seven in which it did not run until their end."""

import random
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tests.torture.traffic import Connection, check_kept_calls, new_widgets

HALF_HOUR = 1800
_MARK = "the week begins"
_EVENTS = """
    insert into public.widget_analytics (widget_id, session_id, event_type, call_id, "timestamp")
    select %s, e.session_id, e.event_type, e.call_id, now() - e.seconds_ago * interval '1 second'
    from unnest(%s::text[], %s::text[], %s::text[], %s::integer[]) e (session_id, event_type, call_id, seconds_ago)
"""
# So that the week began exactly as long ago as it should have.
_GROW_OLDER = """
    with mark as (
      select now() - %(age)s * interval '1 second' - "timestamp" as difference
      from public.widget_analytics where widget_id = %(widget_id)s and session_id = %(mark)s
    ),
    calls as (
      update widget_internal.call_states set
        start_claim = case when start_claim is not null
          then start_claim[:3] || (start_claim[4] - (extract(epoch from difference) * 1000000)::bigint) end,
        end_claim = case when end_claim is not null
          then end_claim[:3] || (end_claim[4] + (extract(epoch from difference) * 1000000)::bigint) end,
        heartbeat_at = heartbeat_at + difference,
        first_event_at = first_event_at + difference, last_event_at = last_event_at + difference,
        started_at = started_at + difference, ended_at = ended_at + difference
      from mark where widget_id = %(widget_id)s
    )
    update public.widget_analytics set "timestamp" = "timestamp" + difference
    from mark where widget_id = %(widget_id)s
"""
_BEGIN = """(
    select m."timestamp" from public.widget_analytics m where m.widget_id = %(widget_id)s and m.session_id = %(mark)s
)"""


@dataclass(frozen=True)
class Told:
    """An event, by the seconds since the week began at which it happened and at which it came in."""

    session_id: str
    event_type: str
    call_id: str
    happened: int
    came_in: int


def a_week_of_calls(*, seed: int, calls: int, days: int) -> list[Told]:
    """Calls that end in time or late, that crash with and without heartbeats, and that come back after a silence."""
    dice = random.Random(seed)  # noqa: S311 a simulation, not a secret
    told = []
    for number in range(calls):
        start = dice.randrange((days * 24 - 4) * 3600)
        over = start + dice.randrange(60, 5400)
        session, call = f"session-{number // 3}", f"call-{number}"
        way = dice.choice(["ends", "ends late", "crashes", "crashes silently", "comes back"])
        told.append(Told(session, "call_start", call, start, start))
        if way != "crashes silently":
            told += [Told(session, "call_heartbeat", call, beat, beat) for beat in range(start + 300, over, 600)]
        if way == "ends":
            told.append(Told(session, "call_end", call, over, over))
        elif way == "ends late":
            told.append(Told(session, "call_end", call, over, over + dice.randrange(2400, 6000)))
        elif way == "comes back":
            told.append(Told(session, "call_heartbeat", call, over + 2700, over + 2700))
    return told


@dataclass(frozen=True)
class Compared:
    """What the two weeks held."""

    calls: int
    runs: int
    inferred_on_time: int
    inferred_at_once: int


def compare(db: Connection, *, seed: int, calls: int, days: int = 7) -> Compared:
    """Play the same week twice: with cleanups on time, and with one at its end.

    The passing of half an hour is that all that is there becomes half an hour older, for which the connection must be
    the superuser's. Both weeks' calls must be equal; so must their ledgers, but for the inferred ends of calls of which
    something came in after a run on time had given them up.

    Raises:
        AssertionError: they are not.
    """
    told = a_week_of_calls(seed=seed, calls=calls, days=days)
    on_time, at_once = new_widgets(db, 2)
    runs = _live_through(db, on_time, told, days=days)
    with db.transaction():
        _begin(db, at_once, age=days * 24 * 3600)
        _tell(db, at_once, told, now=days * 24 * 3600)
        db.execute("select public.complete_stale_sessions()")

    calls_on_time, calls_at_once = _calls(db, on_time), _calls(db, at_once)
    assert len(calls_on_time) == calls
    assert calls_on_time == calls_at_once, "the bill depends on when the cleanup ran"
    check_kept_calls(db)
    first, second = _inferred(db, on_time), _inferred(db, at_once)
    heard_of_again = {call for call in first if _is_heard_of_again([t for t in told if t.call_id == call[1]])}
    assert second.keys() <= first.keys(), "one run gave up a call that runs on time did not"
    assert first.keys() - second.keys() <= heard_of_again
    same = first.keys() - heard_of_again
    assert same, "nothing was compared"
    assert {call: first[call] for call in same} == {call: second[call] for call in same}
    return Compared(calls, runs, len(first), len(second))


def _is_heard_of_again(told: list[Told]) -> bool:
    """Whether something of a call came in after a run on time had to take it for over."""
    (start,) = (t.happened for t in told if t.event_type == "call_start")
    given_up = (start // HALF_HOUR + 2) * HALF_HOUR
    for event in sorted(told, key=lambda t: t.came_in):
        if event.came_in > given_up:
            return True
        if event.event_type == "call_heartbeat":
            given_up = max(given_up, (-(-event.happened // HALF_HOUR) + 1) * HALF_HOUR)
    return False


def _live_through(db: Connection, widget_id: UUID, told: list[Told], *, days: int) -> int:
    """Cleanups every half hour, each with what had come in by then; returns how many."""
    arrivals = sorted(told, key=lambda t: t.came_in)
    runs = days * 48
    _begin(db, widget_id, age=0)
    for run in range(1, runs + 1):
        now = run * HALF_HOUR
        with db.transaction():
            # Without the triggers: both tables grow older together, and stay equal.
            db.execute("set local session_replication_role = replica")
            db.execute(_GROW_OLDER, {"widget_id": widget_id, "age": now, "mark": _MARK})
            db.execute("set local session_replication_role = origin")
            _tell(db, widget_id, [t for t in arrivals if now - HALF_HOUR < t.came_in <= now], now=now)
            db.execute("select public.complete_stale_sessions()")
    return runs


def _begin(db: Connection, widget_id: UUID, *, age: int) -> None:
    _tell(db, widget_id, [Told(_MARK, "widget_load", "", 0, 0)], now=age)


def _tell(db: Connection, widget_id: UUID, told: list[Told], *, now: int) -> None:
    if told:
        columns = [[t.session_id for t in told], [t.event_type for t in told], [t.call_id or None for t in told]]
        db.execute(_EVENTS, [widget_id, *columns, [now - t.happened for t in told]])


def _calls(db: Connection, widget_id: UUID) -> list[dict[str, Any]]:
    return db.execute(
        f"""
        select session_id, call_id, started_at - {_BEGIN} as started, ended_at - {_BEGIN} as ended, outcome, evidence
        from public.widget_calls where widget_id = %(widget_id)s order by session_id, call_id
        """,
        {"widget_id": widget_id, "mark": _MARK},
    ).fetchall()


def _inferred(db: Connection, widget_id: UUID) -> dict[tuple[str, str], Any]:
    rows = db.execute(
        f"""
        select session_id, call_id, "timestamp" - {_BEGIN} as at
        from public.widget_analytics where widget_id = %(widget_id)s and source = 'inferred'
        """,
        {"widget_id": widget_id, "mark": _MARK},
    ).fetchall()
    ends = {(row["session_id"], row["call_id"]): row["at"] for row in rows}
    assert len(ends) == len(rows), "a call has two inferred ends"
    return ends
