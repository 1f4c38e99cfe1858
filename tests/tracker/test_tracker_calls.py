"""A visitor's widget and its calls, however the visit ends."""

import pytest
from playwright.sync_api import BrowserContext, Page
from playwright.sync_api import Error as PlaywrightError

from local_stack.demo_site import DemoSite
from local_stack.unreliable_proxy import Answer, UnreliableProxy
from tests.tracker.ledger import Ledger


def test_analytics_tracking_as_the_setup_guide_describes_it(
    page: Page, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy
) -> None:
    """Load, open, start, end: each is tracked as it happens, with one request."""
    page.goto(site.address())
    ledger.wait_for("widget_load")
    page.click("#open")
    ledger.wait_for("widget_load", "widget_open")
    page.click("#start")
    ledger.wait_for("widget_load", "widget_open", "call_start")
    page.click("#end")

    events = ledger.wait_for("widget_load", "widget_open", "call_start", "call_end")

    assert [event["seq"] for event in events] == [1, 2, 3, 5]
    assert len({event["session_id"] for event in events}) == 1
    assert [event["page_url"] for event in events] == [site.address(), None, None, None]
    assert [request.method for request in proxy.seen] == ["POST"] * 4
    [call] = ledger.calls()
    assert (call["outcome"], call["evidence"]) == ("completed", "observed")


def test_browser_close_as_the_setup_guide_describes_it(page: Page, site: DemoSite, ledger: Ledger) -> None:
    """A tab that is closed right after the call began still sends the call's end."""
    page.goto(site.address())
    page.click("#start")

    page.close()

    [*_, end] = ledger.wait_for("widget_load", "call_start", "call_end")
    assert end["properties"]["cause"] == "pagehide"
    [call] = ledger.calls()
    assert (call["outcome"], call["evidence"]) == ("completed", "observed")


def test_tab_closed_in_mid_call(page: Page, site: DemoSite, ledger: Ledger) -> None:
    """The call that was alive for some heartbeats ends when the tab does."""
    page.goto(site.address(heartbeat_seconds=0.2))
    page.click("#start")
    ledger.wait_until(lambda events: sum(e["event_type"] == "call_heartbeat" for e in events) >= 2)

    page.close()

    events = ledger.wait_for("widget_load", "call_start", "call_end")
    [call] = ledger.calls()
    assert call["evidence"] == "observed"
    assert call["ended_at"] == events[-1]["timestamp"]
    assert call["duration_seconds"] > 0


def test_page_navigated_away(page: Page, site: DemoSite, ledger: Ledger) -> None:
    """A link to another page ends the call."""
    page.goto(site.address())
    page.click("#start")

    page.click("#leave")

    [*_, end] = ledger.wait_for("widget_load", "call_start", "call_end")
    assert end["properties"]["cause"] == "pagehide"


def test_reload_is_a_new_session(page: Page, site: DemoSite, ledger: Ledger) -> None:
    """The old session's call ends; the new page counts from 1 again, and sends nothing of the old twice over."""
    page.goto(site.address())
    page.click("#start")

    page.click("#load")

    events = ledger.wait_for("widget_load", "call_start", "call_end", "widget_load")
    assert [event["seq"] for event in events] == [1, 2, 4, 1]
    assert len({event["session_id"] for event in events}) == 2


def test_failed_call(page: Page, site: DemoSite, ledger: Ledger) -> None:
    """A call that fails says why, once."""
    page.goto(site.address())
    page.evaluate(
        """() => {
            const call = widgetUsage.callStart();
            call.error(new DOMException("no microphone", "NotAllowedError"));
            call.error("again");
            call.end();
        }"""
    )

    page.close()

    [*_, error] = ledger.wait_for("widget_load", "call_start", "call_error")
    assert error["properties"]["cause"] == "NotAllowedError: no microphone"
    [call] = ledger.calls()
    assert call["outcome"] == "failed"


def test_two_calls_at_once_with_an_id_of_the_hosts(page: Page, site: DemoSite, ledger: Ledger) -> None:
    """Each call keeps its own end, and an id that the host gives is the call's id."""
    page.goto(site.address())

    made = page.evaluate(
        """() => {
            const first = widgetUsage.callStart("room-17");
            const second = widgetUsage.callStart(new MouseEvent("click"));
            second.end();
            first.error("lost");
            return [first.id, second.id];
        }"""
    )

    ledger.wait_for("widget_load", "call_start", "call_start", "call_end", "call_error")
    outcomes = {call["call_id"]: call["outcome"] for call in ledger.calls()}
    assert made[0] == "room-17"
    assert outcomes == {"room-17": "failed", made[1]: "completed"}


def test_switching_tabs_flushes_and_ends_nothing(
    page: Page, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy
) -> None:
    """Hidden may be the last that is seen of a page, or a mere look at another tab."""
    page.goto(site.address())
    ledger.wait_for("widget_load")
    with proxy.instead(Answer(429, '{"retry_after": 3600}')):
        page.click("#start")
        proxy.await_requests(2)
        page.wait_for_function("performance.getEntriesByType('resource').length >= 3")

    page.evaluate(
        """() => {
            Object.defineProperty(document, "hidden", { value: true, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )

    ledger.wait_for("widget_load", "call_start")
    [call] = ledger.calls()
    assert call["outcome"] == "open"


def test_a_call_that_breaks_off_at_once_is_not_billed_for_half_an_hour(
    page: Page, site: DemoSite, ledger: Ledger
) -> None:
    """The first heartbeat goes with the start, so a crash before the second bills no more than was seen."""
    page.goto(site.address())
    page.click("#start")
    ledger.wait_until(lambda events: len(events) == 3)
    crash_renderer(page)

    ledger.db.execute("select complete_stale_sessions('0')")

    [call] = ledger.calls()
    assert call["evidence"] == "heartbeat"
    assert call["duration_seconds"] < 1


def test_killed_renderer_is_billed_up_to_its_last_heartbeat(
    page: Page, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy
) -> None:
    """No farewell is sent, so the cleanup infers the end, never past the last sign of life."""
    page.goto(site.address(heartbeat_seconds=0.2))
    page.click("#start")
    ledger.wait_until(lambda events: sum(e["event_type"] == "call_heartbeat" for e in events) >= 2)

    crash_renderer(page)
    proxy.await_quiet()
    ledger.db.execute("select pg_sleep(0.3)")
    beats = [event["timestamp"] for event in ledger.events() if event["event_type"] == "call_heartbeat"]
    [before] = ledger.calls()
    ledger.db.execute("select * from complete_stale_sessions('200 milliseconds')")

    [call] = ledger.calls()
    assert before["outcome"] == "open"
    assert (call["outcome"], call["evidence"]) == ("completed", "heartbeat")
    assert call["ended_at"] == max(beats)


def crash_renderer(page: Page) -> None:
    """Ends the tab's process as a crash does: none of its events fire."""
    with page.expect_event("crash"), pytest.raises(PlaywrightError, match=r"crash|ERR_|Timeout"):
        page.goto("chrome://crash", timeout=2_000)


def test_back_forward_cache_return_resumes_the_call(page: Page, site: DemoSite, ledger: Ledger) -> None:
    """Leaving ends the call for good or not: a page that comes back goes on in the same session."""
    page.goto(site.address(heartbeat_seconds=0.2))
    page.evaluate("window.wasHereBefore = true")
    page.click("#start")
    page.click("#leave")
    ledger.wait_for("widget_load", "call_start", "call_end")

    page.go_back(wait_until="commit")  # a page from the cache does not load
    assert page.evaluate("window.wasHereBefore"), "the page did not come from the cache: nothing was tested"
    left = len(ledger.events())
    ledger.wait_until(lambda events: len(events) > left)
    page.click("#end")

    events = ledger.wait_for("widget_load", "call_start", "call_end", "call_end")
    assert len({event["session_id"] for event in events}) == 1
    [call] = ledger.calls()
    assert call["ended_at"] == events[-1]["timestamp"]


@pytest.mark.parametrize("path", ["/embedding", "/embedding?noise=1"])
def test_iframe_on_a_third_origin_reports_the_embedding_page(
    page: Page, site: DemoSite, ledger: Ledger, path: str
) -> None:
    """The vendor's frame is not where the widget is: the customer's page is."""
    page.goto(f"http://shop.example:{site.port}{path}{'&' if '?' in path else '?'}vendor=vendor.example")
    frame = page.frame_locator("#vendor")
    frame.locator("#start").click()
    ledger.wait_for("widget_load", "call_start")

    page.close()

    [load, *_] = ledger.wait_for("widget_load", "call_start", "call_end")
    assert load["page_url"] == f"http://shop.example:{site.port}/"


def test_iframe_that_has_navigated_still_reports_the_embedding_page(page: Page, site: DemoSite, ledger: Ledger) -> None:
    """Its referrer is then the vendor's own page, and must not be taken for the customer's."""
    page.goto(f"http://shop.example:{site.port}/embedding?vendor=vendor.example")
    ledger.wait_for("widget_load")

    page.frame_locator("#vendor").locator("#load").click()

    events = ledger.wait_for("widget_load", "widget_load")
    shop = f"http://shop.example:{site.port}"
    assert [event["page_url"].rstrip("/") for event in events] == [shop, shop]


def test_query_and_fragment_never_leave_the_page(
    page: Page, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy
) -> None:
    """They may hold what is nobody's business, so they are cut off before the wire."""
    page.goto(site.address("/", email="anna@customer.example") + "#secret")

    [load] = ledger.wait_for("widget_load")

    assert load["page_url"] == site.address()
    assert not any(word in request.body for request in proxy.seen for word in (b"anna", b"secret"))


def test_tabs_of_one_browser_are_sessions_of_their_own(context: BrowserContext, site: DemoSite, ledger: Ledger) -> None:
    """They share a storage, not a session: each ends its own call."""
    pages = [context.new_page() for _ in range(3)]
    for page in pages:
        page.goto(site.address())
        page.click("#start")

    for page in pages:
        page.close()

    ledger.wait_for(*["widget_load", "call_start", "call_end"] * 3)
    assert [call["evidence"] for call in ledger.calls()] == ["observed"] * 3
