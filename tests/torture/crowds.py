"""Sixteen writers on the same few calls, against cleanups and corrections: the calls that one writer makes."""

import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from local_stack.stack import Stack
from tests.torture.crashes import connect
from tests.torture.traffic import PAGE, Connection, check_kept_calls, new_widgets

WRITERS = 16
CLEANERS = 2
SESSIONS = 3
CALLS = 5
"""Of a session that name themselves; beside them each session has calls without a name."""
EVENTS = 240
_MINUTE = 60_000


@dataclass
class Crowd:
    """What all rounds held: without shared events and corrections, nothing was proved."""

    rounds: int = 0
    events: int = 0
    sent_twice: int = 0
    corrections: int = 0
    inferred: int = 0
    calls: int = 0


def crowds(stack: Stack, *, rounds: int, seed: int) -> Iterator[Crowd]:
    """In each round every event is sent by two of the writers, in batches, in an order of each writer's own.

    Raises:
        AssertionError: an event is lost, or a call is not what one writer makes of the same ledger, in order.
        psycopg.errors.DeadlockDetected: two transactions waited for each other.
    """
    seen = Crowd()
    with ExitStack() as opened:
        db = opened.enter_context(connect(stack))
        connections = [opened.enter_context(connect(stack)) for _ in range(WRITERS + CLEANERS)]
        pool = opened.enter_context(ThreadPoolExecutor(len(connections)))
        dice = random.Random(seed)  # noqa: S311 a simulation, not a secret
        for own in connections[:WRITERS]:
            own.execute("select set_config('request.headers', %s, false)", [json.dumps({"origin": PAGE})])
        for _ in range(rounds):
            (widget_id,) = new_widgets(db, 1)
            events = [_event(dice, widget_id) for _ in range(EVENTS)]
            shares: list[list[dict[str, Any]]] = [[] for _ in range(WRITERS)]
            for event in events:
                for share in dice.sample(shares, 2):
                    share.append(event)
            seen.sent_twice += sum(map(len, shares)) - len(events)
            gate, done = threading.Barrier(len(connections)), threading.Event()
            work = [
                pool.submit(_write, own, gate, share, random.Random(dice.random()), widget_id)  # noqa: S311
                for own, share in zip(connections, shares, strict=False)
            ]
            cleanups = [pool.submit(_clean, own, gate, done) for own in connections[WRITERS:]]
            try:
                seen.corrections += sum(writer.result() for writer in work)
            finally:
                done.set()
            for cleanup in cleanups:
                cleanup.result()
            seen.rounds += 1
            seen.events += len(events)
            _check(db, widget_id, events, seen)
            yield seen


def _event(dice: random.Random, widget_id: UUID) -> dict[str, Any]:
    session = f"s{dice.randrange(SESSIONS)}"
    kind = dice.choices(["call_start", "call_heartbeat", "call_end", "call_error"], [4, 4, 2, 1])[0]
    name = dice.choice([None, None, *(f"c{number}" for number in range(CALLS))])
    return {
        "event_id": str(UUID(int=dice.getrandbits(128), version=4)),
        "widget_id": str(widget_id),
        "session_id": session,
        "event_type": kind,
        # Coarse, so that events meet at the same moment.
        "age_ms": dice.randrange(0, 300) * _MINUTE,
    } | ({} if name is None else {"call_id": name})


def _write(
    own: Connection, gate: threading.Barrier, share: list[dict[str, Any]], dice: random.Random, widget_id: UUID
) -> int:
    """Say everything in batches of any size, and correct a call now and then; returns how many corrections took."""
    dice.shuffle(share)
    corrections = 0
    gate.wait()
    while share:
        batch = [share.pop() for _ in range(min(len(share), dice.randint(1, 12)))]
        answer = own.execute("select public.track_events(%s::text::jsonb) as answer", [json.dumps(batch)]).fetchone()
        assert answer is not None
        assert not answer["answer"]["rejected"], answer
        if dice.random() < 0.2:
            corrections += _correct(own, widget_id, dice)
    return corrections


def _correct(own: Connection, widget_id: UUID, dice: random.Random) -> int:
    """An operator's decision: a start and an end with one moment of receipt."""
    call = {"session": f"s{dice.randrange(SESSIONS)}", "call": f"c{dice.randrange(CALLS)}"}
    own.execute(
        """
        insert into public.widget_analytics (widget_id, session_id, call_id, event_type, source, "timestamp")
        select c.widget_id, c.session_id, c.call_id, e.event_type, 'operator', c.started_at + e.after
        from public.widget_calls c
        cross join (values
          ('call_start', interval '0'), ('call_end', make_interval(secs => %(seconds)s))
        ) e (event_type, after)
        where c.widget_id = %(widget)s and c.session_id = %(session)s and c.call_id = %(call)s
        """,
        {"widget": widget_id, "seconds": dice.randrange(0, 7200), **call},
    )
    return 1


def _clean(own: Connection, gate: threading.Barrier, done: threading.Event) -> None:
    gate.wait()
    while not done.is_set():
        own.execute("select public.complete_stale_sessions()")


_STATES = """
select session_id, call_id, start_claim, heartbeat_at, end_claim, matched_start_claim, matched_heartbeat_at,
  matched_end_claim, next_start_at, started_at, ended_at, outcome, evidence
from widget_internal.call_states where widget_id = %s order by session_id, call_id
"""


def _check(db: Connection, widget_id: UUID, events: list[dict[str, Any]], seen: Crowd) -> None:
    check_kept_calls(db)
    stored = db.execute(
        "select count(*) filter (where source = 'browser') as browser, count(*) filter (where source = 'inferred') as"
        " inferred from public.widget_analytics where widget_id = %s",
        [widget_id],
    ).fetchone()
    assert stored is not None
    assert stored["browser"] == len(events), "an event is lost, or there twice"
    seen.inferred += stored["inferred"]

    states = db.execute(_STATES, [widget_id]).fetchall()
    seen.calls += len(states)
    (in_order,) = new_widgets(db, 1)
    with db.transaction():
        for event in db.execute(
            "select id from public.widget_analytics where widget_id = %s order by received_at, id", [widget_id]
        ).fetchall():
            db.execute(
                """
                insert into public.widget_analytics
                select e.id, %s, e.event_type, e.session_id, e.page_url, e.user_agent, e."timestamp", e.call_id, e.seq,
                  e.source, e.received_at, e.properties
                from public.widget_analytics e where e.id = %s and e.widget_id = %s
                """,
                [in_order, event["id"], widget_id],
            )
    assert db.execute(_STATES, [in_order]).fetchall() == states
