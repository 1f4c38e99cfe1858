"""Nothing acknowledged is lost, and nothing counts twice, whatever breaks; scripts/torture does the same at length."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest
from playwright.sync_api import Browser, sync_playwright
from psycopg.rows import dict_row

from local_stack.browsers.chromium import launch
from local_stack.stack import GATEWAY_LOGIN, Stack
from tests.support import event, events_of
from tests.torture.crashes import connect, crashes
from tests.torture.crowds import crowds
from tests.torture.disks import full_disk, read_only, stored_of, track
from tests.torture.outages import TROUBLES, outage
from tests.torture.schedules import compare
from tests.torture.storms import killed_cleanups, storms
from tests.torture.traffic import await_true, new_widgets
from widget_analytics import Event, Unreachable, WidgetAnalytics

SEED = 7


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Of these tests' own, and as durable as a project's: it is killed and filled up."""
    with Stack(jobs=False) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, launch(playwright) as running:
        yield running


def test_killed_under_load(stack: Stack) -> None:
    """Postgres gets `kill -9` under eight clients: what was acknowledged is there once, and all goes on within 30 s."""
    seen = list(crashes(stack, rounds=3, seed=SEED))

    assert all(crash.acknowledged >= 50 and crash.ready_after < 30 for crash in seen)
    assert sum(crash.in_doubt for crash in seen) > 0, "it was not killed under load"


def test_late_ends_against_cleanups(stack: Stack) -> None:
    """Eight cleanups at once and a storm of late ends: at most one inferred end a call, and the real one bills."""
    *_, seen = storms(stack, rounds=20, seed=SEED)

    assert 0 < seen.overtaken < seen.inferred


def test_a_crowd_makes_the_calls_that_one_writer_makes(stack: Stack) -> None:
    """Sixteen writers on the same few calls, named and unnamed, against cleanups and corrections: no deadlock, nothing
    lost, and the calls of one writer in order."""
    *_, seen = crowds(stack, rounds=2, seed=SEED)

    assert seen.sent_twice > 0
    assert seen.corrections > 0
    assert seen.inferred > 0


def test_a_killed_cleanup_leaves_nothing(stack: Stack) -> None:
    """All of its work or none of it; the next run does all."""
    assert len(list(killed_cleanups(stack, rounds=1))) == 1


def test_a_day_without_the_scheduler(stack: Stack) -> None:
    """One run at its end makes the calls, and the ledger, that runs on time would have made."""
    with psycopg.connect(stack.superuser_url, autocommit=True, row_factory=dict_row) as platform:
        seen = compare(platform, seed=SEED, calls=30, days=1)

    assert seen.inferred_on_time > seen.inferred_at_once > 0


@pytest.mark.parametrize("kind", TROUBLES)
def test_outages(stack: Stack, browser: Browser, kind: str) -> None:
    """Python clients deliver everything, once; through an outage of the database a page's tracker does as well."""
    seen = outage(stack, kind, seconds=2, seed=SEED, browser=browser if kind == "database gone" else None)

    assert seen.sent_again > 0, "there was no trouble"


def test_who_gets_no_connection_hears_so_in_time(stack: Stack) -> None:
    """While the database lets nobody in, a request is answered 504 after 10 seconds, and never run: it told its age."""
    with connect(stack) as db:
        (widget_id,) = new_widgets(db, 1)
        late, in_time = (event(widget_id, "call_start", "s", event_id=str(uuid4())) for _ in range(2))
        db.execute("select pg_terminate_backend(pid, 10000) from pg_stat_activity where usename = %s", [GATEWAY_LOGIN])

        os.kill(stack.database.pid, signal.SIGSTOP)
        try:
            answer = track(stack, [late])
        finally:
            os.kill(stack.database.pid, signal.SIGCONT)
        again = track(stack, [in_time])

        assert (answer.status_code, answer.json()["code"]) == (504, "PGRST003")
        assert again.json() == {"accepted": 1, "duplicates": 0, "rejected": []}
        assert [str(row["id"]) for row in events_of(db, widget_id)] == [in_time["event_id"]]


def test_a_connection_that_breaks_is_the_servers_fault(stack: Stack) -> None:
    """In the midst of a request: 503, nothing stored, and the next request finds a connection."""
    with connect(stack) as db, connect(stack) as holder:
        (widget_id,) = new_widgets(db, 1)
        told = event(widget_id, "call_start", "s", event_id=str(uuid4()))
        with ThreadPoolExecutor() as pool, holder.transaction():
            holder.execute("lock table public.widget_analytics in access exclusive mode")
            asked = pool.submit(track, stack, [told])
            waiting = "select pid from pg_stat_activity where usename = %s and wait_event_type = 'Lock'"
            await_true(
                lambda: db.execute(waiting, [GATEWAY_LOGIN]).fetchone() is not None, seconds=60, what="a waiting event"
            )
            db.execute(f"select pg_terminate_backend(pid, 10000) from ({waiting}) w".encode(), [GATEWAY_LOGIN])
            answer = asked.result()
        again = track(stack, [told])

        assert answer.status_code >= 500
        assert again.json() == {"accepted": 1, "duplicates": 0, "rejected": []}


def test_who_waits_for_a_killed_gateway_is_cut_off(stack: Stack) -> None:
    """Run after its restart, a request would be dated by that."""
    with connect(stack) as db:
        (widget_id,) = new_widgets(db, 1)
        late, in_time = (event(widget_id, "call_start", "s", event_id=str(uuid4())) for _ in range(2))
        stack.kill_gateway()
        with pytest.raises(httpx.ReadTimeout):
            track(stack, [late], timeout=0.5)
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(track, stack, [late])
            await_true(lambda: len(_waiting_for(stack)) >= 2, seconds=60, what="two who wait")
            stack.restart_gateway()
            cut_off = asked.exception()

        assert isinstance(cut_off, httpx.TransportError)
        assert track(stack, [in_time]).status_code == 200
        assert [str(row["id"]) for row in events_of(db, widget_id)] == [in_time["event_id"]]


def _waiting_for(stack: Stack) -> list[str]:
    """The connections to the gateway that nobody has accepted, or that have something for it to read."""
    port = f":{int(stack.api_url.rpartition(':')[2]):04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [
        line[4] for line in lines if line[1].endswith(port) and line[3] != "0A" and not line[4].endswith(":00000000")
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk(stack: Stack) -> None:
    """A 5xx that names it, nothing of the batch, and the same batch taken as soon as there is room."""
    seen = full_disk(stack)

    assert (seen.status, seen.code) == (503, "53100")
    assert seen.stored_before > 0


def test_a_read_only_database(stack: Stack) -> None:
    """The client says that it is the server's trouble, which passes; sent again afterwards the event is taken."""
    with connect(stack) as db:
        (widget_id,) = new_widgets(db, 1)
    told = Event(widget_id=widget_id, event_type="call_start", session_id="s", call_id="c")

    with WidgetAnalytics(
        url=stack.api_url, publishable_key=stack.publishable_key, origin="https://shop.example", attempts=1
    ) as client:
        with read_only(stack), pytest.raises(Unreachable, match="read-only"):
            client.track(told)
        client.track(told)

    with connect(stack) as db:
        assert stored_of(db, widget_id) == 1


def test_a_read_only_database_is_the_servers_fault(stack: Stack) -> None:
    """Over REST it is a 5xx: at a 4xx many senders drop what they have."""
    with connect(stack) as db:
        (widget_id,) = new_widgets(db, 1)

    with read_only(stack):
        answer = track(stack, [event(widget_id, "call_start", "s", event_id=str(uuid4()))])

    assert answer.status_code >= 500
