"""The database gone, the gateway killed, connections cut: Python clients and a browser deliver all of it, once."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from playwright.sync_api import Browser

from local_stack.demo_site import DemoSite
from local_stack.stack import Stack
from local_stack.unreliable_proxy import Answer, Fault, Seen, UnreliableProxy, answering
from tests.torture.crashes import connect
from tests.torture.traffic import PAGE, Connection, await_true, check_kept_calls
from tests.tracker.ledger import Ledger
from widget_analytics import Event, TooManyRequests, Unreachable, WidgetAnalytics

CLIENTS = 4
_BATCH = 10
# A request tells its events' age as it leaves. What then waits, 10 seconds for a connection and 8 for its statement at
# most, is dated that much late; a proxy gives up before that.
_PATIENCE = 10.0
_LONGEST_WAIT = 30.0
# The browser waits longer after each failure, up to five minutes.
_BROWSER_SECONDS = 240.0
_CATCH_UP_SECONDS = 120.0


@dataclass(frozen=True)
class Outage:
    """What was delivered through one."""

    kind: str
    seconds: float
    events: int
    sent_again: int
    """Requests beyond one for each of the Python clients' batches."""
    caught_up_after: float
    """Seconds from the end of the trouble until the last of it was there."""


def outage(stack: Stack, kind: str, *, seconds: float, seed: int, browser: Browser | None = None) -> Outage:
    """Send while there is trouble of a kind, and look what is there afterwards.

    Raises:
        AssertionError: an event is missing, there twice, or dated by its delivery.
    """
    with ExitStack() as opened:
        proxy = opened.enter_context(UnreliableProxy(stack.api_url, patience=_PATIENCE))
        db = opened.enter_context(connect(stack))
        widget_id, browsers_widget = (
            db.execute(
                "insert into public.widgets (allowed_domains) values ('{shop.example,127.0.0.1}') returning id"
            ).fetchone()["id"]  # type: ignore[index]  # it always has a row
            for _ in range(2)
        )
        ledger = Ledger(db, browsers_widget)
        page = None
        if browser is not None:
            site = opened.enter_context(DemoSite(url=proxy.url, key=stack.publishable_key, widget_id=browsers_widget))
            page = opened.enter_context(browser.new_context()).new_page()
            page.goto(site.address())
            ledger.wait_for("widget_load")

        clients = _Clients(stack, proxy, widget_id, seed=seed)
        clients.start()
        opened.callback(clients.stop)
        await_true(lambda: clients.delivered >= _BATCH * CLIENTS, seconds=120, what="a first batch of each client")
        with TROUBLES[kind](stack, proxy, random.Random(seed)):  # noqa: S311 a simulation, not a secret
            began = time.monotonic()
            if page is not None:
                page.click("#start")
            time.sleep(seconds)  # the length of the outage, not a wait for anything
            if page is not None:
                page.click("#end")
        over = time.monotonic()
        clients.finish()

        with connect(stack) as db_after:
            if browser is not None:
                ledger.db = db_after
                ledger.wait_for("widget_load", "call_start", "call_end", seconds=_BROWSER_SECONDS)
            caught_up_after = time.monotonic() - over
            clients.check(db_after)
            if browser is not None:
                _check_browser(ledger, lasted=over - began)
            check_kept_calls(db_after)
        requests = sum("track_events" in request.path for request in proxy.seen)
        return Outage(kind, seconds, len(clients.events), requests - len(clients.events) // _BATCH, caught_up_after)


def _check_browser(ledger: Ledger, *, lasted: float) -> None:
    events = ledger.events()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1)), "an event is missing or there twice"
    [call] = ledger.calls()
    assert (call["outcome"], call["evidence"]) == ("completed", "observed")
    assert abs(float(call["duration_seconds"]) - lasted) < _LONGEST_WAIT, "the call is dated by its delivery"


class _Clients:
    """Scripts of a company's backend: each sends batch after batch, and after an error the same batch again."""

    def __init__(self, stack: Stack, proxy: UnreliableProxy, widget_id: UUID, *, seed: int) -> None:
        self._stack = stack
        self._proxy = proxy
        self._widget_id = widget_id
        self._seed = seed
        self._finishing = threading.Event()
        self._given_up = threading.Event()
        self._lock = threading.Lock()
        self._broken: list[BaseException] = []
        self.events: dict[UUID, tuple[Event, float]] = {}
        self.delivered = 0

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._run, args=[name]) for name in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Let each deliver what it has begun."""
        self._finishing.set()
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        for thread in self._threads:
            thread.join(max(0, deadline - time.monotonic()))
        late = any(thread.is_alive() for thread in self._threads)
        self.stop()
        if self._broken:
            raise self._broken[0]
        assert not late, f"not delivered {_CATCH_UP_SECONDS:g} s after the trouble"

    def stop(self) -> None:
        """Give up what is not delivered."""
        self._finishing.set()
        self._given_up.set()
        for thread in self._threads:
            thread.join()

    def check(self, db: Connection) -> None:
        rows = db.execute(
            'select id, "timestamp" from public.widget_analytics where widget_id = %s', [self._widget_id]
        ).fetchall()
        assert len(rows) == len({row["id"] for row in rows}), "an event is there twice"
        assert {row["id"] for row in rows} == self.events.keys(), "an event is lost, or nobody sent it"
        for row in rows:
            off = abs(row["timestamp"].timestamp() - self.events[row["id"]][1])
            assert off < _LONGEST_WAIT, f"an event is dated by its delivery, {timedelta(seconds=off)} off"

    def _run(self, name: int) -> None:
        try:
            # Few attempts and some patience: what the client gives up, this script begins again.
            with WidgetAnalytics(
                url=self._proxy.url,
                publishable_key=self._stack.publishable_key,
                origin=PAGE,
                timeout=15,
                attempts=2,
            ) as client:
                number = 0
                while not self._finishing.is_set():
                    self._deliver(client, self._batch(f"client-{name}", number))
                    number += 1
        except BaseException as error:
            self._broken.append(error)

    def _batch(self, session_id: str, number: int) -> list[Event]:
        kinds = ["call_start", *["call_heartbeat"] * (_BATCH - 2), "call_end"]
        batch = [
            Event(widget_id=self._widget_id, event_type=kind, session_id=session_id, call_id=f"call-{number}")
            for kind in kinds
        ]
        with self._lock:
            self.events |= {event.event_id: (event, time.time()) for event in batch}
        return batch

    def _deliver(self, client: WidgetAnalytics, batch: list[Event]) -> None:
        while not self._given_up.is_set():
            try:
                tracked = client.track_many(batch)
            except (Unreachable, TooManyRequests):
                continue
            assert tracked.rejected == ()
            with self._lock:
                self.delivered += len(batch)
            return


@contextmanager
def _database_gone(stack: Stack, proxy: UnreliableProxy, dice: random.Random) -> Iterator[None]:
    stack.database.kill()
    yield
    stack.database.start()


@contextmanager
def _gateway_killed(stack: Stack, proxy: UnreliableProxy, dice: random.Random) -> Iterator[None]:
    stack.kill_gateway()
    yield
    stack.restart_gateway()


@contextmanager
def _connections_cut(stack: Stack, proxy: UnreliableProxy, dice: random.Random) -> Iterator[None]:
    """Each request meets a fault of its own: dropped, delayed, cut on the way there or on the way back."""
    lock = threading.Lock()
    faults: list[Fault] = [
        lambda _: None,
        proxy.lose_answer,
        proxy.cut_answer,
        proxy.cut_request,
        proxy.after(0.3),
        answering(503),
        answering(429, retry_after="1"),
        proxy.pass_on,
    ]

    def fault(request: Seen) -> Answer | None:
        with lock:
            chosen = dice.choice(faults)
        return chosen(request)

    with proxy.fault(fault):
        yield


TROUBLES = {
    "database gone": _database_gone,
    "gateway killed": _gateway_killed,
    "connections cut": _connections_cut,
}
