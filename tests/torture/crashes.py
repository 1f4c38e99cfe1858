"""`kill -9` of the whole of Postgres under load: what was acknowledged is there, once, and all goes on."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg
from psycopg.rows import dict_row

from local_stack.stack import Stack
from tests.torture.traffic import (
    Books,
    Connection,
    NotAcknowledged,
    Sender,
    await_true,
    check_books,
    clean_up_and_check,
    new_widgets,
)

CLIENTS = 8
READY_WITHIN = 30.0


@dataclass(frozen=True)
class Crash:
    """What one of them met, and what it left."""

    acknowledged: int
    in_doubt: int
    """Events whose answer never came."""
    in_doubt_stored: int
    completed: int
    """Calls that the next cleanup completed."""
    ready_after: float
    """Seconds from the kill to the first event acknowledged again."""


def crashes(stack: Stack, *, rounds: int, seed: int) -> Iterator[Crash]:
    """Kill the stack's database so many times, each time in the midst of eight clients and a cleanup.

    Raises:
        AssertionError: a promise is broken.
    """
    dice = random.Random(seed)  # noqa: S311 a simulation, not a secret
    books = Books()
    with connect(stack) as db:
        # Only the cleanups below, so that each can be held against the rule.
        db.execute("select cron.unschedule(jobid) from cron.job")
        widget_ids = new_widgets(db, 3)
    for number in range(1, rounds + 1):
        known = len(books.acknowledged)
        with ExitStack() as opened:
            senders = [
                Sender(stack, books, widget_ids, name=f"r{number}-c{client}", seed=dice.getrandbits(64))
                for client in range(CLIENTS)
            ]
            for sender in senders:
                opened.callback(sender.close)
            killed_at = _kill_under_load(stack, senders, books, after=known + dice.randint(50, 400))
            stack.database.start()
            ready_after = _await_ready(senders[0]) - killed_at

            with connect(stack) as db:
                check_books(db, books)
                acknowledged, in_doubt = len(books.acknowledged) - known, books.in_doubt
                row = db.execute(
                    "select count(*) from public.widget_analytics where id = any (%s::uuid[])",
                    [[event["event_id"] for event in in_doubt]],
                ).fetchone()
                assert row is not None
                # As every sender does: what has no answer is sent again.
                for event in in_doubt:
                    senders[0].send([event])
                check_books(db, books, all_sent=True)
                completed = clean_up_and_check(db)
        assert ready_after < READY_WITHIN, f"ready again only after {ready_after:.1f} s"
        yield Crash(acknowledged, len(in_doubt), row["count"], completed, ready_after)


def connect(stack: Stack) -> Connection:
    return psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row)


def _kill_under_load(stack: Stack, senders: list[Sender], books: Books, *, after: int) -> float:
    """Kill it when so many events are acknowledged; returns when."""
    broken: list[BaseException] = []

    def send(sender: Sender) -> None:
        try:
            while True:
                sender.send_some()
        except NotAcknowledged:
            pass
        except BaseException as error:
            broken.append(error)

    def clean() -> None:
        try:
            with connect(stack) as db:
                while True:
                    db.execute("select public.complete_stale_sessions()")
        except psycopg.OperationalError:
            pass  # it was killed

    threads = [threading.Thread(target=send, args=[sender]) for sender in senders]
    threads.append(threading.Thread(target=clean))
    for thread in threads:
        thread.start()
    try:
        await_true(lambda: len(books.acknowledged) >= after or bool(broken), seconds=60, what=f"{after} events")
    finally:
        killed_at = time.monotonic()
        stack.database.kill()
        for thread in threads:
            thread.join()
    if broken:
        raise broken[0]
    return killed_at


def _await_ready(sender: Sender) -> float:
    """When the first event is acknowledged again."""

    def acknowledged() -> bool:
        try:
            sender.send_some()
        except NotAcknowledged:
            return False
        return True

    await_true(acknowledged, seconds=READY_WITHIN, what="an acknowledged event after the crash")
    return time.monotonic()
