"""Computers that sleep, clocks that are put right, pages that wait or freeze: none of it makes a bill longer."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from psutil import Process

from local_stack.browsers import Browser, Tab, Visitor
from local_stack.browsers.connection import Connection
from local_stack.demo_site import DemoSite
from local_stack.demo_site import Page as SitePage
from local_stack.unreliable_proxy import UnreliableProxy
from tests.tracker.ledger import Ledger
from tests.tracker.pages import shop

# The page's wall clock, off by so many milliseconds. A computer that sleeps stops the other clock, and timers with it.
ADJUSTABLE = """{
  const { now } = Date;
  window.clockIsOffBy = 0;
  Date.now = () => now() + clockIsOffBy;
}"""
STORED = "Object.keys(localStorage).filter(name => name.startsWith('wu:')).length"


def start_call(tab: Tab, ledger: Ledger) -> None:
    tab.evaluate("void (window.tested = widgetUsage.callStart())")
    ledger.wait_until(lambda events: any(event["event_type"] == "call_start" for event in events))
    tab.wait_for_function(f"{STORED} === 0")


def sleep(tab: Tab, *, hours: float) -> None:
    tab.evaluate(f"void (clockIsOffBy += {hours} * 3600e3)")


@pytest.mark.every_engine
@pytest.mark.parametrize("wakes_to", ["tested.end()", "tested.error('lost')", "dispatchEvent(new Event('pagehide'))"])
def test_a_computer_that_sleeps_in_mid_call(tab: Tab, site: DemoSite, ledger: Ledger, wakes_to: str) -> None:
    """The call ended at its last sign of life, and nothing that comes later adds to it."""
    site.pages["/shop"] = shop(ADJUSTABLE)
    tab.goto(site.address("/shop"))
    start_call(tab, ledger)

    sleep(tab, hours=14)
    tab.evaluate(f"void {wakes_to}")
    tab.evaluate("void tested.end()")
    tab.evaluate("void widgetUsage.open()")

    ledger.wait_for("widget_load", "call_start", "call_end", "widget_open")
    [call] = ledger.calls()
    assert (call["outcome"], call["duration_seconds"] < 1) == ("completed", True)


def test_after_a_sleep_heartbeats_add_nothing_and_a_call_is_a_new_one(tab: Tab, site: DemoSite, ledger: Ledger) -> None:
    """The tracker notices at the next heartbeat, without a word of the page."""
    site.pages["/shop"] = shop(ADJUSTABLE)
    tab.goto(site.address("/shop", heartbeat_seconds=0.5))
    start_call(tab, ledger)

    sleep(tab, hours=14)

    events = ledger.wait_for("widget_load", "call_start", "call_end")
    assert events[-1]["properties"]["cause"] == "silence"
    count = len(ledger.events())
    tab.evaluate("new Promise(resolve => setTimeout(resolve, 1500)).then(() => 0)")
    assert len(ledger.events()) == count
    tab.evaluate("void widgetUsage.callStart().end()")
    ledger.wait_for("widget_load", "call_start", "call_end", "call_start", "call_end")
    assert [call["duration_seconds"] < 5 for call in ledger.calls()] == [True, True]


def test_less_than_ten_intervals_of_silence_are_no_sleep(tab: Tab, site: DemoSite, ledger: Ledger) -> None:
    """Timers of a tab in the background run once a minute: at the default interval five minutes go by first."""
    site.pages["/shop"] = shop(ADJUSTABLE)
    tab.goto(site.address("/shop"))
    start_call(tab, ledger)

    sleep(tab, hours=290 / 3600)
    tab.evaluate("void tested.end()")

    [*_, end] = ledger.wait_for("widget_load", "call_start", "call_end")
    assert "cause" not in (end["properties"] or {})


def test_a_browser_that_is_stopped(browser: Browser, tab: Tab, site: DemoSite, ledger: Ledger) -> None:
    """All of it stands still in mid-call, both clocks go on."""
    if browser.engine != "chromium":
        pytest.skip("the driver of this one would wait for its browser")
    tab.goto(site.address(heartbeat_seconds=0.3))
    began = time.monotonic()
    start_call(tab, ledger)
    ledger.wait_until(lambda events: sum(event["event_type"] == "call_heartbeat" for event in events) >= 3)
    length = time.monotonic() - began

    with stopped():
        time.sleep(5)
    tab.evaluate("void tested.end()")

    ledger.wait_for("widget_load", "call_start", "call_end")
    [call] = ledger.calls()
    assert call["duration_seconds"] < length + 1


@contextmanager
def stopped() -> Iterator[None]:
    """Chromium's pages: what drives them waits."""
    children = Process().children(recursive=True)
    pages = [process for process in children if "--type=renderer" in " ".join(process.cmdline())]
    for process in pages:
        process.suspend()
    yield
    for process in pages:
        process.resume()


def test_a_clock_that_is_put_forward_while_the_start_waits(
    tab: Tab, connection: Connection, site: DemoSite, ledger: Ledger
) -> None:
    """The start moves with it: the call is as long as it was."""
    site.pages["/shop"] = shop(ADJUSTABLE)
    tab.goto(site.address("/shop", heartbeat_seconds=1))
    ledger.wait_for("widget_load")
    connection.cut()
    tab.evaluate("void (window.tested = widgetUsage.callStart())")

    sleep(tab, hours=1)
    connection.restore()
    tab.evaluate("void widgetUsage.flush()")
    ledger.wait_for("widget_load", "call_start")
    time.sleep(2)
    tab.evaluate("void tested.end()")

    ledger.wait_for("widget_load", "call_start", "call_end")
    [call] = ledger.calls()
    assert 2 <= call["duration_seconds"] < 15


def test_a_clock_that_was_fast_and_is_right_on_the_next_page(
    tab: Tab, visitor: Visitor, connection: Connection, site: DemoSite, ledger: Ledger
) -> None:
    """Nobody knows then how long ago the end was: never so late that the call grows until the next visit."""
    site.pages["/shop"] = shop(ADJUSTABLE + "clockIsOffBy = 7200e3;")
    tab.goto(site.address("/shop"))
    start_call(tab, ledger)
    connection.cut()
    tab.evaluate("void tested.end()")
    tab.wait_for_function(f"{STORED} > 0")
    tab.close()
    time.sleep(3)
    connection.restore()

    visitor.new_tab().goto(site.address())

    # Sessions are named by the browser's clock, so the later one comes first here.
    ledger.wait_for("widget_load", "widget_load", "call_start", "call_end")
    [call] = ledger.calls()
    assert call["duration_seconds"] < 3


def test_heartbeats_that_waited_offline_still_count(
    tab: Tab, connection: Connection, site: DemoSite, ledger: Ledger
) -> None:
    """They come late, with their true ages."""
    tab.goto(site.address(heartbeat_seconds=0.2))
    start_call(tab, ledger)
    connection.cut()
    time.sleep(1.5)
    connection.restore()
    tab.evaluate("void widgetUsage.flush()")

    ledger.wait_until(lambda events: sum(event["event_type"] == "call_heartbeat" for event in events) >= 6)

    beats = [event["timestamp"] for event in ledger.events() if event["event_type"] == "call_heartbeat"]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(beats)]
    assert max(gaps) < 1.4
    assert not any(event["event_type"] == "call_end" for event in ledger.events())


# Pages that are not there yet, or not all the time


def test_a_prerendered_page_says_nothing_until_it_is_shown(
    browser: Browser, tab: Tab, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy
) -> None:
    """One that is never opened was never there."""
    if browser.engine != "chromium":
        pytest.skip("this engine does not prerender")
    site.pages["/shop"] = shop()
    rules = '{"prerender": [{"source": "list", "urls": ["/shop"], "eagerness": "immediate"}]}'
    site.pages["/before"] = SitePage(f'<!doctype html><script type="speculationrules">{rules}</script><a href="/shop">')
    asked: list[str] = []
    render = site.render

    def noted(path: str, query: str) -> SitePage | None:
        asked.append(path)
        return render(path, query)

    site.render = noted  # type: ignore[method-assign]
    tab.goto(site.address("/before"))
    deadline = time.monotonic() + 30
    while "/shop" not in asked and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "/shop" in asked, "nothing was prerendered"
    time.sleep(1)  # time enough to send, if it did
    assert proxy.seen == []
    assert tab.evaluate(STORED) == 0

    tab.evaluate("void setTimeout(() => document.querySelector('a').click())")

    ledger.wait_for("widget_load")


@pytest.mark.every_engine
def test_what_a_prerendered_page_did_is_told_when_it_is_shown(
    tab: Tab, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy
) -> None:
    """In its order, and dated then."""
    site.pages["/shop"] = shop("Object.defineProperty(document, 'prerendering', { value: true, configurable: true });")
    tab.goto(site.address("/shop"))
    tab.evaluate("() => { widgetUsage.open(); window.tested = widgetUsage.callStart(); }")
    assert (proxy.seen, tab.evaluate(STORED)) == ([], 0)

    tab.evaluate(
        """() => {
            Object.defineProperty(document, "prerendering", { value: false });
            document.dispatchEvent(new Event("prerenderingchange"));
            tested.end();
        }"""
    )

    ledger.wait_for("widget_load", "widget_open", "call_start", "call_end")


def test_a_request_that_the_back_forward_cache_swallowed(
    tab: Tab, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy
) -> None:
    """Firefox and WebKit never answer what was in flight when the page was cached: the next events go all the same."""
    tab.goto(site.address())
    ledger.wait_for("widget_load")
    with proxy.fault(proxy.after(1)):
        tab.click("#start")
        proxy.await_requests(2)
        tab.click("#leave")
        tab.wait_for_function("location.pathname === '/about'")
        ledger.wait_for("widget_load", "call_start", "call_end")

    tab.back()
    tab.wait_for_function("window.widgetUsage && location.pathname === '/'")
    tab.click("#end")

    ledger.wait_for("widget_load", "call_start", "call_end", "call_end", seconds=15)
