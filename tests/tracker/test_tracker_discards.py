"""Tabs that Chromium freezes, and discards, to save memory."""

import shutil
import time
from collections.abc import Iterator

import pytest

from local_stack.browsers.chromium import ChromiumOnScreen, launch_chromium_on_screen
from local_stack.demo_site import DemoSite
from tests.tracker.ledger import Ledger
from tests.tracker.pages import shop

pytestmark = pytest.mark.skipif(shutil.which("Xvfb") is None, reason="tabs are discarded on a screen only")


@pytest.fixture
def browser() -> Iterator[ChromiumOnScreen]:
    with launch_chromium_on_screen() as running:
        yield running


@pytest.mark.parametrize(("heartbeat_seconds", "causes"), [(1, [None, None]), (0.1, ["silence", None])])
def test_a_page_that_freezes_and_thaws(
    browser: ChromiumOnScreen, site: DemoSite, ledger: Ledger, heartbeat_seconds: float, causes: list[str | None]
) -> None:
    """For less than ten intervals its call goes on; above, it has ended where the page froze."""
    site.pages["/shop"] = shop(
        "document.addEventListener('resume', () => { tested.end(); widgetUsage.callStart().end(); });"
    )
    tab = browser.new_visitor().new_tab()
    tab.goto(site.address("/shop", heartbeat_seconds=heartbeat_seconds))
    with browser.discards_page() as page:
        tab.evaluate("void (window.tested = widgetUsage.callStart())")
        ledger.wait_until(lambda events: len(events) >= 3)
        browser.let_go()
        page.freeze("/shop")
        time.sleep(3)  # how long it is frozen
        page.show("/shop")

        events = ledger.wait_for("widget_load", "call_start", "call_end", "call_start", "call_end")

    ends = [event for event in events if event["event_type"] == "call_end"]
    assert [(event["properties"] or {}).get("cause") for event in ends] == causes
    assert [call["duration_seconds"] >= 3 for call in ledger.calls()] == [causes[0] is None, False]


def test_a_page_that_is_frozen_and_then_discarded(browser: ChromiumOnScreen, site: DemoSite, ledger: Ledger) -> None:
    """None of the page's events fire: its call ends at its last sign of life."""
    tab = browser.new_visitor().new_tab()
    tab.goto(site.address(heartbeat_seconds=0.3))
    with browser.discards_page() as page:
        tab.click("#start")
        ledger.wait_until(lambda events: [e["event_type"] for e in events].count("call_heartbeat") >= 3)
        browser.let_go()
        page.freeze(f":{site.port}/")
        frozen_at = ledger.db.execute("select clock_timestamp() as now").fetchone()
        page.discard(f":{site.port}/")
        time.sleep(1)  # time enough to send, if it did

    ledger.db.execute("select complete_stale_sessions('0')")
    events = ledger.events()
    [call] = ledger.calls()
    assert "call_end" not in [event["event_type"] for event in events if event["source"] == "browser"]
    assert (call["outcome"], call["evidence"]) == ("completed", "heartbeat")
    assert call["ended_at"] == max(event["timestamp"] for event in events if event["event_type"] == "call_heartbeat")
    assert frozen_at is not None
    assert call["ended_at"] <= frozen_at["now"]
