"""Cleanups against late ends, against each other, and cut off in the middle."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg

from local_stack.stack import Stack
from tests.support import record
from tests.torture.crashes import connect
from tests.torture.traffic import Connection, await_true, check_kept_calls, new_widgets

CLEANERS = 8
ENDERS = 4
CALLS = 16
"""Of a round, in sessions of four; every fourth call never gets an end of its own."""
LASTED = timedelta(seconds=60)
_CHECK_AFTER = 100


@dataclass
class Storm:
    """What all rounds held: with no overtaken inference, nothing was proved."""

    rounds: int = 0
    calls: int = 0
    inferred: int = 0
    overtaken: int = 0
    """Calls with an inferred end that lost to their real one."""


def storms(stack: Stack, *, rounds: int, seed: int) -> Iterator[Storm]:
    """In each round eight cleanups run while the calls' own ends come in.

    Raises:
        AssertionError: a call has two inferred ends, or is not billed by its real one where it has one.
    """
    seen = Storm()
    with ExitStack() as opened:
        db = opened.enter_context(connect(stack))
        (widget_id,) = new_widgets(db, 1)
        gate = threading.Barrier(CLEANERS + ENDERS)
        connections = [opened.enter_context(connect(stack)) for _ in range(CLEANERS + ENDERS)]
        pool = opened.enter_context(ThreadPoolExecutor(len(connections)))
        dice = random.Random(seed)  # noqa: S311 a simulation, not a secret
        for number in range(1, rounds + 1):
            started_at = datetime.now(UTC) - timedelta(hours=2)
            _start_calls(db, widget_id, number, started_at)
            waits = [dice.uniform(0, 0.03) for _ in connections]
            work = []
            for place, (own, wait) in enumerate(zip(connections, waits, strict=True)):
                if place < CLEANERS:
                    work.append(pool.submit(_clean, own, gate, wait))
                else:
                    calls = range(place - CLEANERS, CALLS, ENDERS)
                    work.append(pool.submit(_end, own, gate, wait, widget_id, number, started_at, calls))
            for done in work:
                done.result()
            seen.rounds = number
            if number % _CHECK_AFTER == 0 or number == rounds:
                _check(db, widget_id, seen)
                check_kept_calls(db)
            yield seen


def _call(number: int, place: int) -> tuple[str, str]:
    return f"round-{number}-{place // 4}", f"call-{place}"


def _start_calls(db: Connection, widget_id: UUID, number: int, started_at: datetime) -> None:
    with db.transaction():
        for place in range(CALLS):
            session_id, call_id = _call(number, place)
            record(db, widget_id, session_id, "call_start", started_at, call_id=call_id)


def _clean(own: Connection, gate: threading.Barrier, wait: float) -> None:
    gate.wait()
    time.sleep(wait)  # part of the storm: who comes first is left to chance
    run = own.execute("select public.complete_stale_sessions()").fetchone()
    assert run is not None


def _end(
    own: Connection,
    gate: threading.Barrier,
    wait: float,
    widget_id: UUID,
    number: int,
    started_at: datetime,
    places: range,
) -> None:
    gate.wait()
    time.sleep(wait)
    for place in places:
        if place % 4 != 3:
            session_id, call_id = _call(number, place)
            record(own, widget_id, session_id, "call_end", started_at + LASTED, call_id=call_id)


def _check(db: Connection, widget_id: UUID, seen: Storm) -> None:
    calls = db.execute(
        """
        select c.evidence, c.duration_seconds,
          (select count(*) from public.widget_analytics e where e.widget_id = c.widget_id
            and e.session_id = c.session_id and e.call_id = c.call_id and e.source = 'inferred') as inferred,
          (select count(*) from public.widget_analytics e where e.widget_id = c.widget_id
            and e.session_id = c.session_id and e.call_id = c.call_id and e.event_type = 'call_end'
            and e.source = 'browser') as real
        from public.widget_calls c where c.widget_id = %s
        """,
        [widget_id],
    ).fetchall()
    assert len(calls) == seen.rounds * CALLS
    for call in calls:
        assert call["inferred"] <= 1, "a call has two inferred ends"
        if call["real"]:
            assert (call["evidence"], call["duration_seconds"]) == ("observed", 60), "the real end does not bill"
        else:
            assert (call["evidence"], call["duration_seconds"], call["inferred"]) == ("assumed", 1800, 1)
    seen.calls = len(calls)
    seen.inferred = sum(call["inferred"] for call in calls)
    seen.overtaken = sum(call["inferred"] and call["real"] for call in calls)


def killed_cleanups(stack: Stack, *, rounds: int, calls: int = 700) -> Iterator[None]:
    """In each round a cleanup of so many calls is ended in the midst of its work.

    It is held up by a lock on one of the calls: by then it has written the inferred ends, and not yet all calls.

    Raises:
        AssertionError: a part of its work stayed, or the next run does not do all of it, once.
    """
    with connect(stack) as db:
        for _ in range(rounds):
            (widget_id,) = new_widgets(db, 1)
            db.execute(
                """
                insert into public.widget_analytics (widget_id, session_id, event_type, call_id, "timestamp")
                select %s, 's' || n, 'call_start', 'c', now() - interval '2 hours' from generate_series(1, %s) n
                """,
                [widget_id, calls],
            )
            _kill_a_cleanup(stack, db, widget_id)
            assert _inferred(db, widget_id) == 0, "a part of a killed cleanup stayed"
            run = db.execute("select calls_completed from public.complete_stale_sessions()").fetchone()
            assert run is not None
            assert (run["calls_completed"], _inferred(db, widget_id)) == (calls, calls)
            check_kept_calls(db)
            yield


def _kill_a_cleanup(stack: Stack, db: Connection, widget_id: UUID) -> None:
    with connect(stack) as holder, connect(stack) as cleaner:
        errors: list[BaseException] = []

        def clean() -> None:
            try:
                cleaner.execute("select public.complete_stale_sessions()")
            except psycopg.OperationalError as error:
                errors.append(error)

        pid = cleaner.info.backend_pid
        thread = threading.Thread(target=clean)
        with holder.transaction():
            holder.execute(
                "select from widget_internal.call_states where widget_id = %s"
                " order by session_id desc limit 1 for update",
                [widget_id],
            )
            thread.start()
            await_true(_is_waiting(db, pid), seconds=60, what="a cleanup that waits for the held call")
            db.execute("select pg_terminate_backend(%s)", [pid])
            thread.join()
        assert errors, "the cleanup was not killed"


def _is_waiting(db: Connection, pid: int) -> Callable[[], bool]:
    return lambda: (
        db.execute(
            "select from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
            " and wait_event in ('transactionid', 'tuple')",
            [pid],
        ).fetchone()
        is not None
    )


def _inferred(db: Connection, widget_id: UUID) -> int:
    row = db.execute(
        "select count(*) from public.widget_analytics where widget_id = %s and source = 'inferred'", [widget_id]
    ).fetchone()
    assert row is not None
    return int(row["count"])
