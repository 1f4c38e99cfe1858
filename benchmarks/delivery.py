"""What share of a widget's events reaches the ledger when visitors leave as visitors do.

A real browser (`--engine chromium`, `firefox` or `webkit`), real gateway and database, on this
machine. Visitors load, open, call and then close the tab, reload,
follow a link or crash, some of them while the network or the server is down. The random seed fixes who does what.
Printed twice: when all have left, and after each has come back once, which is when a browser can deliver the rest.
"""

import argparse
import random
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from uuid import UUID

import psycopg

from benchmarks.measure import execute
from local_stack.browsers import ENGINES, Tab, launch
from local_stack.browsers import Visitor as BrowserVisitor
from local_stack.browsers.connection import Connection
from local_stack.demo_site import DemoSite
from local_stack.stack import Stack
from local_stack.unreliable_proxy import Answer, UnreliableProxy

ENDS = ("call_end", "call_error")
SESSIONS_A_VISITOR = 4

# How a visit goes, and how often.
VISITS = {
    "ends the call, closes the tab": 4,
    "fails the call, closes the tab": 2,
    "closes the tab in mid-call": 5,
    "reloads in mid-call": 3,
    "follows a link in mid-call": 3,
    "crashes in mid-call": 2,
    "is offline, ends the call, comes back, closes the tab": 3,
    "goes offline, closes the tab in mid-call": 3,
    "calls while the server is in trouble, closes the tab after it": 3,
    "closes the tab in mid-call while the server is in trouble": 3,
}
TROUBLES = (Answer(500), Answer(503), Answer(429, '{"retry_after": 2}'), None)

# (session, call or "", type): what should be in the ledger.
Expected = tuple[str, str, str]


@dataclass
class Report:
    """What should have arrived, and what did."""

    visits: Counter[str] = field(default_factory=Counter)
    expected: set[Expected] = field(default_factory=set)
    killed_calls: set[str] = field(default_factory=set)
    expected_at_leaving: set[Expected] = field(default_factory=set)
    arrived_at_leaving: set[Expected] = field(default_factory=set)
    arrived: set[Expected] = field(default_factory=set)
    seconds: float = 0

    def lost(self, *types: str) -> set[Expected]:
        return {event for event in self.expected - self.arrived if not types or event[2] in types}

    def __str__(self) -> str:
        lines = [f"{self.visits.total()} sessions in {self.seconds:.0f} s"]
        lines += [f"  {count:4}  {visit}" for visit, count in sorted(self.visits.items())]
        for name, expected, arrived in (
            ("when all had left", self.expected_at_leaving, self.arrived_at_leaving),
            ("after one more visit", self.expected, self.arrived),
        ):
            ends = {event for event in expected if event[2] in ENDS}
            lines += [
                f"{name}:",
                f"  events     {_share(arrived & expected, expected)}",
                f"  call ends  {_share(arrived & ends, ends)}",
            ]
        lines.append(f"killed in mid-call, so left to the cleanup: {len(self.killed_calls)} calls")
        lines += [f"  lost: {event}" for event in sorted(self.lost())]
        return "\n".join(lines)


def _share(arrived: set[Expected], expected: set[Expected]) -> str:
    return f"{len(arrived)} of {len(expected)} = {100 * len(arrived) / max(len(expected), 1):.2f} %"


class Visitor:
    """A browser profile: it keeps its storage from visit to visit."""

    def __init__(self, browser: BrowserVisitor, site: DemoSite, proxy: UnreliableProxy, report: Report) -> None:
        self.browser = browser
        self.connection = Connection(browser, proxy)
        self.site = site
        self.proxy = proxy
        self.report = report

    def visit(self, how: str, chance: random.Random) -> None:
        self.report.visits[how] += 1
        tab, session = self.load()
        if chance.random() < 0.5:
            tab.evaluate("() => { widgetUsage.open(); }")
            self.expect(session, "", "widget_open")
        with ExitStack() as trouble:
            if "trouble" in how:
                trouble.enter_context(self.proxy.instead(chance.choice(TROUBLES)))
            if "is offline" in how:
                self.connection.cut()
            call = tab.evaluate("() => (window.benchmarked = widgetUsage.callStart()).id")
            self.expect(session, call, "call_start")
            time.sleep(chance.uniform(0, 0.15))
            self.finish(tab, session, call, how)
            if "after it" in how or "comes back" in how:
                trouble.close()
                self.connection.restore()
            self.leave(tab, how)
        self.connection.restore()

    def load(self) -> tuple[Tab, str]:
        tab = self.browser.new_tab()
        tab.goto(self.site.address())
        session = tab.evaluate("widgetUsage.sessionId")
        self.expect(session, "", "widget_load")
        return tab, session

    def finish(self, tab: Tab, session: str, call: str, how: str) -> None:
        if "crashes" in how:
            self.report.killed_calls.add(call)
            tab.crash()
        elif "fails the call" in how:
            tab.evaluate("() => { benchmarked.error('no microphone'); }")
            self.expect(session, call, "call_error")
        else:
            if "ends the call" in how:
                tab.evaluate("() => { benchmarked.end(); }")
            self.expect(session, call, "call_end")

    def leave(self, tab: Tab, how: str) -> None:
        if "crashes" in how:
            return
        if "goes offline" in how:
            self.connection.cut()
        if "reloads" in how:
            tab.reload()
            self.expect(tab.evaluate("widgetUsage.sessionId"), "", "widget_load")
        if "follows a link" in how:
            tab.click("#leave")
            tab.wait_for_function("location.pathname === '/about'")
        tab.close()

    def come_back(self) -> None:
        tab, _ = self.load()
        tab.wait_for_function("Object.keys(localStorage).every(name => !name.startsWith('wu:'))")
        tab.close()

    def expect(self, session: str, call: str, event_type: str) -> None:
        self.report.expected.add((session, call, event_type))


def run(stack: Stack, *, sessions: int, seed: int, engine: str = "chromium") -> Report:
    """Play that many sessions against a running stack."""
    began = time.monotonic()
    chance = random.Random(seed)  # noqa: S311
    report = Report()
    # WebKit's driver forgets the visitor, storage and all, when a page's process is killed.
    visits = {how: weight for how, weight in VISITS.items() if engine != "webkit" or "crashes" not in how}
    names, weights = list(visits), list(visits.values())
    with ExitStack() as opened:
        db = opened.enter_context(psycopg.connect(stack.database_url, autocommit=True))
        [(widget_id,)] = execute(
            stack, "insert into public.widgets (allowed_domains) values ('{127.0.0.1}') returning id"
        )
        proxy = opened.enter_context(UnreliableProxy(stack.api_url))
        site = opened.enter_context(
            DemoSite(url=proxy.url, key=stack.publishable_key, widget_id=widget_id, heartbeat_seconds=3600)
        )
        browser = opened.enter_context(launch(engine))
        visitors = [
            Visitor(browser.new_visitor(), site, proxy, report) for _ in range(-(-sessions // SESSIONS_A_VISITOR))
        ]
        # Every way at least once, the rest by chance.
        ways = (names + chance.choices(names, weights, k=sessions))[:sessions]
        chance.shuffle(ways)
        for number, way in enumerate(ways):
            visitors[number // SESSIONS_A_VISITOR].visit(way, chance)
        report.expected_at_leaving = set(report.expected)
        report.arrived_at_leaving = _await_quiet(db, widget_id)
        for visitor in visitors:
            visitor.come_back()
        report.arrived = _await_quiet(db, widget_id)
    report.seconds = time.monotonic() - began
    return report


def _await_quiet(db: psycopg.Connection, widget_id: UUID) -> set[Expected]:
    """The ledger, once nothing has been added to it for a second."""
    found: set[Expected] = set()
    since = time.monotonic()
    while time.monotonic() - since < 1:
        rows = db.execute(
            "select session_id, coalesce(call_id, ''), event_type from widget_analytics where widget_id = %s",
            [widget_id],
        ).fetchall()
        arrived = {(row[0], row[1], row[2]) for row in rows}  # a leave may be two ends
        if len(arrived) > len(found):
            found = arrived
            since = time.monotonic()
        time.sleep(0.05)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    arguments = parser.parse_args()
    with Stack() as stack:
        report = run(stack, sessions=arguments.sessions, seed=arguments.seed, engine=arguments.engine)
    print(report)
    return 1 if report.lost(*ENDS) or len(report.lost()) > len(report.expected) / 1000 else 0


if __name__ == "__main__":
    sys.exit(main())
