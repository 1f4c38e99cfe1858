"""A closed month with adjustments, and pushes of it that can be interrupted anywhere."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row

from local_stack.stack import Stack
from tests.billing_systems import KEY, Hangup, Systems, asks_to_wait, billing_systems
from tests.client_support import LedgerCall, insert_calls
from tests.support import Connection
from widget_analytics._push.charges import with_customers
from widget_analytics._push.lago_target import LagoTarget
from widget_analytics._push.openmeter_target import OpenMeterTarget
from widget_analytics._push.outbox import Outbox
from widget_analytics._push.push import Pusher
from widget_analytics._push.stripe_target import StripeTarget
from widget_analytics._push.target import Passing, Target
from widget_analytics.client import WidgetAnalytics

FIRST, SECOND = date(2026, 8, 1), date(2026, 9, 1)
CUSTOMERS = {"K-1": 1, "K-2": 2}
_HOLD = timedelta(seconds=0.1)
_LAG = timedelta(seconds=0.1)
_SHOWS_WITHIN = 2 * _LAG


@dataclass(frozen=True)
class Books:
    """Two closed months of some widgets; in the first, calls were corrected after it was closed."""

    stack: Stack
    db: Connection
    client: WidgetAnalytics
    systems: Systems

    def environment(self, **more: str) -> dict[str, str]:
        """What the command needs to push to the systems that stand in."""
        return {
            "STRIPE_API_KEY": KEY,
            "STRIPE_API_URL": self.systems.url,
            "LAGO_API_KEY": KEY,
            "LAGO_API_URL": self.systems.url,
            "OPENMETER_API_KEY": KEY,
            "OPENMETER_URL": self.systems.url,
        } | more

    def forget_pushes(self) -> None:
        """Nothing was pushed yet, and no system has heard of anything."""
        self.db.execute("truncate public.widget_pushes")
        self.systems.forget()

    def charged(self, month: date, column: str) -> dict[str, Decimal]:
        """What a month charges each customer."""
        rows = self.db.execute(
            f"select customer, sum({column}) as sum from public.widget_charges_to_push where period = %s group by 1",
            [month],
        )
        return {row["customer"]: row["sum"] for row in rows}


@contextmanager
def closed_books() -> Iterator[Books]:
    with (
        Stack(durable=False, jobs=False) as stack,
        billing_systems() as systems,
        WidgetAnalytics(url=stack.api_url, secret_key=stack.secret_key) as client,
        psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as db,
    ):
        widgets = _sell(db)
        for month in (FIRST, SECOND):
            for number, widget_id in enumerate(widgets):
                insert_calls(db, widget_id, _calls(month, number))
        _close(db, FIRST)
        for widget_id in widgets[::2]:
            db.execute(
                "select public.correct_widget_call(%s, 's', %s, 7.25, 'agreed', 'ann')",
                [widget_id, f"{FIRST:%Y-%m}-1"],
            )
        _close(db, SECOND)
        yield Books(stack, db, client, systems)


def _sell(db: Connection) -> list[UUID]:
    widgets = []
    for customer, count in CUSTOMERS.items():
        for _ in range(count):
            widget_id = uuid4()
            db.execute("insert into public.widgets (id, name) values (%s, 'w')", [widget_id])
            db.execute(
                "insert into public.widget_customers (widget_id, reference) values (%s, %s)", [widget_id, customer]
            )
            db.execute(
                "insert into public.widget_plans (widget_id, valid_from, name, price_per_minute, currency)"
                " values (%s, %s, 'Pro', 0.333, 'EUR')",
                [widget_id, FIRST],
            )
            widgets.append(widget_id)
    return widgets


def _calls(month: date, number: int) -> Iterator[LedgerCall]:
    noon = datetime(month.year, month.month, 10, 12, tzinfo=UTC)
    for call in range(3):
        yield LedgerCall(
            started_at=noon + timedelta(hours=call),
            session_id="s",
            call_id=f"{month:%Y-%m}-{call}",
            lasts=timedelta(seconds=100 + 37.5 * call + number),
        )


def _close(db: Connection, month: date) -> None:
    db.execute("select public.close_widget_billing_period(%s)", [f"{month:%Y-%m}"])


def target_of(kind: str, systems: Systems, account: str | None = None) -> Target:
    """`kind`: items or meter of Stripe, lago, lago-clickhouse, openmeter."""
    systems.lago_on_clickhouse = kind == "lago-clickhouse"
    match kind:
        case "items" | "meter":
            meter = "widget_seconds" if kind == "meter" else None
            return StripeTarget(systems.key, meter=meter, account=account, url=systems.url, timeout=5)
        case "lago" | "lago-clickhouse":
            return LagoTarget(systems.key, code="widget_calls", account=account, url=systems.url)
        case _:
            return OpenMeterTarget(systems.key, event_type="widget_calls", account=account, url=systems.url, timeout=5)


class Killed(BaseException):
    """Ends a push as SIGKILL does: nothing of it runs afterwards."""


class Fragile:
    """Something whose every method may be the last that its push comes to, before it runs or after."""

    def __init__(self, of: Any, chance: random.Random, share: float) -> None:
        self._of, self._chance, self._share = of, chance, share

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self._maybe_die()
            answer = found(*arguments, **named)
            self._maybe_die()
            return answer

        return call

    def _maybe_die(self) -> None:
        if self._chance.random() < self._share:
            raise Killed


def trouble_of(chance: random.Random, share: float) -> Callable[[str], None]:
    """A system that asks to wait, fails, or takes an event and then says nothing."""

    def trouble(moment: str) -> None:
        drawn = chance.random()
        if drawn < share:
            raise Hangup if moment == "after" or drawn < share / 2 else asks_to_wait()

    return trouble


def push_once(
    books: Books, kind: str, month: date, wrap: Callable[[Any], Any] = lambda of: of, account: str | None = None
) -> Outbox:
    """One run of a push, as the command makes it."""
    target = target_of(kind, books.systems, account)
    outbox = Outbox(books.client._transport, target.name, target.account, month, hold=_HOLD)
    planned = target.plan(with_customers(outbox.charges(), None))
    pusher = Pusher(wrap(outbox), wrap(target), attempts=3, wait=lambda _: 0.01, shows_within=_SHOWS_WITHIN)
    pusher.push(planned)
    return outbox


def push_until_confirmed(books: Books, kind: str, month: date, account: str | None = None) -> None:
    """Runs until the system shows everything."""
    for _ in range(50):
        push_once(books, kind, month, account=account)
        if not books.db.execute("select from public.widget_pushes where state <> 'confirmed'").fetchall():
            return
        time.sleep(0.02)
    raise AssertionError(books.db.execute("select * from public.widget_pushes where state <> 'confirmed'").fetchall())


def push_to_the_end(books: Books, kind: str, month: date, seed: int) -> int:
    """Runs, some killed, some two at once, with days between some, until all is confirmed. Says how many."""
    chance = random.Random(seed)  # noqa: S311 (the same runs from the same seed)
    books.forget_pushes()
    books.systems.trouble = trouble_of(chance, 0.1)
    books.systems.lag = _LAG
    runs = 0
    while runs < 100:
        runs += 1
        share = 0.05 if runs < 8 else 0.0
        books.systems.blocked_customers = {customer for customer in CUSTOMERS if chance.random() < 0.2}
        if runs >= 12:
            books.systems.trouble = lambda _: None
            books.systems.blocked_customers = set()
        seeds = [chance.random() for _ in range(2 if chance.random() < 0.3 else 1)]
        threads = [threading.Thread(target=_run, args=(books, kind, month, each, share)) for each in seeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        states = books.db.execute("select state, count(*) from public.widget_pushes group by 1").fetchall()
        if {row["state"] for row in states} == {"confirmed"}:
            return runs
        if chance.random() < 0.3:
            pass_a_day(books)
    raise AssertionError(f"not done after {runs} runs: {states}")


def _run(books: Books, kind: str, month: date, seed: float, share: float) -> None:
    chance = random.Random(seed)  # noqa: S311
    with suppress(Killed, Passing):
        push_once(books, kind, month, lambda of: Fragile(of, chance, share))


def pass_a_day(books: Books) -> None:
    """The systems forget what they remember for a day; the outbox knows how long ago it sent."""
    books.systems.pass_time(timedelta(hours=25))
    books.db.execute(
        "update public.widget_pushes"
        " set first_sent_at = first_sent_at - interval '25 hours', sent_at = sent_at - interval '25 hours'"
    )


def expected(books: Books, kind: str, month: date) -> dict[str, Decimal]:
    """What each customer is to be billed: minor units of items, seconds of the others."""
    if kind == "items":
        return {customer: 100 * total for customer, total in books.charged(month, "difference_amount").items()}
    seconds = "round(new_seconds) - round(old_seconds)" if kind == "meter" else "new_seconds - old_seconds"
    return books.charged(month, seconds)
