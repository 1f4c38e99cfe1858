"""Nothing acknowledged is lost, and nothing counts twice, whatever breaks; scripts/torture does the same at length."""

import os
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from playwright.sync_api import Browser, sync_playwright
from psycopg.rows import dict_row

from local_stack.chromium import launch
from local_stack.stack import Stack
from tests.support import event
from tests.torture.crashes import connect, crashes
from tests.torture.disks import full_disk, read_only, stored_of, track
from tests.torture.outages import TROUBLES, outage
from tests.torture.schedules import compare
from tests.torture.storms import killed_cleanups, storms
from tests.torture.traffic import new_widgets
from widget_analytics import Event, Unreachable, WidgetAnalytics

SEED = 7


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Of these tests' own, and as durable as a project's: it is killed and filled up."""
    with Stack() as running:
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


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk(stack: Stack) -> None:
    """A 5xx that names it, nothing of the batch, and the same batch taken as soon as there is room."""
    seen = full_disk(stack)

    assert (seen.status, seen.code) == (500, "53100")
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
