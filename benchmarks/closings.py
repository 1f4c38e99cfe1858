"""Which ends of calls arrive, for each way to leave a page in mid-call, in each browser.

Each time somebody with an empty storage opens the page, calls, and leaves for good: nobody comes back to deliver the
rest. Then the cleanup runs, so that a call without an end is as long as its bill would say.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

import psycopg

from benchmarks.measure import execute
from local_stack.browsers import ENGINES, Browser, Tab, Visitor, launch
from local_stack.demo_site import DemoSite
from local_stack.stack import Stack

# The browser goes on, and the visits share it.
STAYING = ("closed tab", "closed window", "removed frame", "followed link")
# The browser ends, and each visit starts one.
QUITTING = ("closed last window", "quit by menu", "quit by driver", "SIGTERM")
SECONDS_TO_ARRIVE = 3
HEADER = """| browser | left by | ends that arrived | with a second end | seconds off: median | at most |
|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Row:
    """One way to leave in one browser: of each visit how many ends arrived, and how far the call's length is off."""

    engine: str
    way: str
    ends: Sequence[int]
    seconds_off: Sequence[float]

    @property
    def arrived(self) -> int:
        return sum(count > 0 for count in self.ends)

    def __str__(self) -> str:
        visits = len(self.ends)
        repeated = sum(count > 1 for count in self.ends)
        return (
            f"| {self.engine} | {self.way} | {self.arrived} of {visits} | {repeated} of {visits} "
            f"| {median(self.seconds_off):.2f} | {max(self.seconds_off):.2f} |"
        )


class Closings:
    """Measures against a running stack."""

    def __init__(self, stack: Stack, *, seed: int = 1) -> None:
        self._stack = stack
        self._chance = random.Random(seed)  # noqa: S311

    def rows(self, engine: str, *, ways: Sequence[str], times: int) -> Iterator[Row]:
        with ExitStack() as opened:
            self._db = opened.enter_context(psycopg.connect(self._stack.database_url, autocommit=True))
            [(widget_id,)] = execute(
                self._stack,
                "insert into public.widgets (allowed_domains) values ('{127.0.0.1,localhost}') returning id",
            )
            self._site = opened.enter_context(
                DemoSite(url=self._stack.api_url, key=self._stack.publishable_key, widget_id=widget_id)
            )
            staying = [way for way in ways if way in STAYING]
            if staying:
                with launch(engine) as browser:
                    for way in staying:
                        yield self._row(engine, way, [self._visit(browser, way) for _ in range(times)])
            for way in ways:
                # What Chromium's and WebKit's menus do is out of their drivers' reach.
                if way in QUITTING and (engine == "firefox" or way != "quit by menu"):
                    yield self._row(engine, way, [self._visit_and_quit(engine, way) for _ in range(times)])

    def _visit(self, browser: Browser, way: str) -> tuple[str, float]:
        visitor = browser.new_visitor()
        try:
            return self._leave(browser, visitor, way)
        finally:
            visitor.close()

    def _visit_and_quit(self, engine: str, way: str) -> tuple[str, float]:
        with launch(engine, on_screen=True) as browser:
            return self._leave(browser, browser.new_visitor(), way)

    def _leave(self, browser: Browser, visitor: Visitor, way: str) -> tuple[str, float]:
        """The session, and how long its call was."""
        tab = visitor.new_tab()
        if way == "closed window":
            tab = visitor.new_window()
        is_framed = way == "removed frame"
        tab.goto(self._site.address("/embedding" if is_framed else "/"))
        if is_framed:
            tab.wait_for_function("Boolean(window.widgetUsage)", frame=True)
        session: str = tab.evaluate("widgetUsage.sessionId", frame=is_framed)
        tab.evaluate("void widgetUsage.callStart()", frame=is_framed)
        began = time.monotonic()
        time.sleep(self._chance.uniform(0.5, 2))
        length = time.monotonic() - began
        _leave_by(way, browser, tab)
        deadline = time.monotonic() + SECONDS_TO_ARRIVE
        while not self._count_ends(session) and time.monotonic() < deadline:
            time.sleep(0.05)
        return session, length

    def _count_ends(self, session: str) -> int:
        row = self._db.execute(
            "select count(*) from widget_analytics where session_id = %s and event_type = 'call_end' "
            "and source = 'browser'",
            [session],
        ).fetchone()
        assert row is not None
        return int(row[0])

    def _row(self, engine: str, way: str, visits: Sequence[tuple[str, float]]) -> Row:
        time.sleep(0.5)  # a second end is there by then
        ends = [self._count_ends(session) for session, _ in visits]
        self._db.execute("select complete_stale_sessions('0')")
        return Row(engine, way, ends, [abs(self._recorded(session) - length) for session, length in visits])

    def _recorded(self, session: str) -> float:
        rows = self._db.execute("select duration_seconds from widget_calls where session_id = %s", [session]).fetchall()
        return float(rows[0][0]) if rows else 0.0


def _leave_by(way: str, browser: Browser, tab: Tab) -> None:
    if way == "closed tab":
        tab.close()
    elif way in ("closed window", "closed last window"):
        tab.close_window()
    elif way == "removed frame":
        tab.evaluate("document.querySelector('iframe').remove()")
    elif way == "followed link":
        tab.click("#leave")
    elif way == "quit by menu":
        browser.quit_by_menu()
    elif way == "quit by driver":
        browser.quit()
    else:
        browser.terminate()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=ENGINES, action="append", help="all of them by default; repeatable")
    parser.add_argument("--way", choices=STAYING + QUITTING, action="append", help="all of them by default; repeatable")
    arguments = parser.parse_args()
    print(HEADER, flush=True)
    with Stack() as stack:
        closings = Closings(stack, seed=arguments.seed)
        for engine in arguments.engine or ENGINES:
            for row in closings.rows(engine, ways=arguments.way or STAYING + QUITTING, times=arguments.times):
                print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
