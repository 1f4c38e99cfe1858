"""A visitor's widget and its calls, however the visit ends."""

import time

import pytest

from local_stack.browsers import Tab, Visitor
from local_stack.demo_site import DemoSite
from local_stack.unreliable_proxy import Answer, UnreliableProxy
from tests.tracker.ledger import Ledger


def test_analytics_tracking_as_the_setup_guide_describes_it(
    tab: Tab, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy
) -> None:
    """Load, open, start, end: each is tracked as it happens, with one request."""
    tab.goto(site.address())
    ledger.wait_for("widget_load")
    tab.click("#open")
    ledger.wait_for("widget_load", "widget_open")
    tab.click("#start")
    ledger.wait_for("widget_load", "widget_open", "call_start")
    tab.click("#end")

    events = ledger.wait_for("widget_load", "widget_open", "call_start", "call_end")

    assert [event["seq"] for event in events] == [1, 2, 3, 5]
    assert len({event["session_id"] for event in events}) == 1
    assert [event["page_url"] for event in events] == [site.address(), None, None, None]
    assert [request.method for request in proxy.seen] == ["POST"] * 4
    [call] = ledger.calls()
    assert (call["outcome"], call["evidence"]) == ("completed", "observed")


def test_browser_close_as_the_setup_guide_describes_it(tab: Tab, site: DemoSite, ledger: Ledger) -> None:
    """A tab that is closed right after the call began still sends the call's end."""
    tab.goto(site.address())
    tab.click("#start")

    tab.close()

    [*_, end] = ledger.wait_for("widget_load", "call_start", "call_end")
    assert end["properties"]["cause"] == "pagehide"
    [call] = ledger.calls()
    assert (call["outcome"], call["evidence"]) == ("completed", "observed")


def test_tab_closed_in_mid_call(tab: Tab, site: DemoSite, ledger: Ledger) -> None:
    """The call that was alive for some heartbeats ends when the tab does."""
    tab.goto(site.address(heartbeat_seconds=0.2))
    tab.click("#start")
    ledger.wait_until(lambda events: sum(e["event_type"] == "call_heartbeat" for e in events) >= 2)

    tab.close()

    events = ledger.wait_for("widget_load", "call_start", "call_end")
    [call] = ledger.calls()
    assert call["evidence"] == "observed"
    assert call["ended_at"] == events[-1]["timestamp"]
    assert call["duration_seconds"] > 0


def test_page_navigated_away(tab: Tab, site: DemoSite, ledger: Ledger) -> None:
    """A link to another page ends the call."""
    tab.goto(site.address())
    tab.click("#start")

    tab.click("#leave")

    [*_, end] = ledger.wait_for("widget_load", "call_start", "call_end")
    assert end["properties"]["cause"] == "pagehide"


def test_reload_is_a_new_session(tab: Tab, site: DemoSite, ledger: Ledger) -> None:
    """The old session's call ends; the new page counts from 1 again, and sends nothing of the old twice over."""
    tab.goto(site.address())
    tab.click("#start")

    tab.click("#load")

    events = ledger.wait_for("widget_load", "call_start", "call_end", "widget_load")
    assert [event["seq"] for event in events] == [1, 2, 4, 1]
    assert len({event["session_id"] for event in events}) == 2


def test_failed_call(tab: Tab, site: DemoSite, ledger: Ledger) -> None:
    """A call that fails says why, once."""
    tab.goto(site.address())
    tab.evaluate(
        """() => {
            const call = widgetUsage.callStart();
            call.error(new DOMException("no microphone", "NotAllowedError"));
            call.error("again");
            call.end();
        }"""
    )

    tab.close()

    [*_, error] = ledger.wait_for("widget_load", "call_start", "call_error")
    assert error["properties"]["cause"] == "NotAllowedError: no microphone"
    [call] = ledger.calls()
    assert call["outcome"] == "failed"


def test_two_calls_at_once_with_an_id_of_the_hosts(tab: Tab, site: DemoSite, ledger: Ledger) -> None:
    """Each call keeps its own end, and an id that the host gives is the call's id."""
    tab.goto(site.address())

    made = tab.evaluate(
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
    tab: Tab, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy
) -> None:
    """Hidden may be the last that is seen of a page, or a mere look at another tab."""
    tab.goto(site.address())
    ledger.wait_for("widget_load")
    with proxy.instead(Answer(429, '{"retry_after": 3600}')):
        tab.click("#start")
        proxy.await_requests(2)
        tab.wait_for_function("performance.getEntriesByType('resource').length >= 3")

    tab.evaluate(HIDE)

    ledger.wait_for("widget_load", "call_start")
    [call] = ledger.calls()
    assert call["outcome"] == "open"


HIDE = """() => {
    Object.defineProperty(document, "hidden", { value: true, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_page_that_is_killed_once_it_was_hidden_is_billed_until_then(
    tab: Tab, site: DemoSite, ledger: Ledger
) -> None:
    """As phones do, and Chromium when a program quits it: nothing but the change of visibility is seen."""
    tab.goto(site.address())
    began = time.monotonic()
    tab.click("#start")
    ledger.wait_until(lambda events: len(events) == 3)
    time.sleep(1)  # the call's length

    tab.evaluate(HIDE)
    ledger.wait_until(lambda events: len(events) == 4)
    length = time.monotonic() - began
    tab.crash()

    ledger.db.execute("select complete_stale_sessions('0')")
    [call] = ledger.calls()
    assert call["evidence"] == "heartbeat"
    assert 1 <= call["duration_seconds"] <= length


def test_nothing_follows_the_farewell(tab: Tab, site: DemoSite, ledger: Ledger) -> None:
    """A page is hidden once more after pagehide; a heartbeat then would say that the call goes on."""
    tab.goto(site.address())
    tab.click("#start")
    ledger.wait_until(lambda events: len(events) == 3)

    tab.evaluate("void dispatchEvent(new Event('pagehide'))")
    tab.evaluate(HIDE)
    tab.evaluate("void widgetUsage.open()")

    events = ledger.wait_until(lambda events: any(event["event_type"] == "widget_open" for event in events))
    assert [event["event_type"] for event in events[2:]] == ["call_heartbeat", "call_end", "widget_open"]


def test_a_call_that_breaks_off_at_once_is_not_billed_for_half_an_hour(
    tab: Tab, site: DemoSite, ledger: Ledger
) -> None:
    """The first heartbeat goes with the start, so a crash before the second bills no more than was seen."""
    tab.goto(site.address())
    tab.click("#start")
    ledger.wait_until(lambda events: len(events) == 3)
    tab.crash()

    ledger.db.execute("select complete_stale_sessions('0')")

    [call] = ledger.calls()
    assert call["evidence"] == "heartbeat"
    assert call["duration_seconds"] < 1


def test_killed_renderer_is_billed_up_to_its_last_heartbeat(
    tab: Tab, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy
) -> None:
    """No farewell is sent, so the cleanup infers the end, never past the last sign of life."""
    tab.goto(site.address(heartbeat_seconds=0.2))
    tab.click("#start")
    ledger.wait_until(lambda events: sum(e["event_type"] == "call_heartbeat" for e in events) >= 2)

    tab.crash()
    proxy.await_quiet()
    ledger.db.execute("select pg_sleep(0.3)")
    beats = [event["timestamp"] for event in ledger.events() if event["event_type"] == "call_heartbeat"]
    [before] = ledger.calls()
    ledger.db.execute("select * from complete_stale_sessions('200 milliseconds')")

    [call] = ledger.calls()
    assert before["outcome"] == "open"
    assert (call["outcome"], call["evidence"]) == ("completed", "heartbeat")
    assert call["ended_at"] == max(beats)


def test_back_forward_cache_return_resumes_the_call(tab: Tab, site: DemoSite, ledger: Ledger) -> None:
    """Leaving ends the call for good or not: a page that comes back goes on in the same session."""
    tab.goto(site.address(heartbeat_seconds=0.2))
    tab.evaluate("void (window.wasHereBefore = true)")
    tab.click("#start")
    tab.click("#leave")
    ledger.wait_for("widget_load", "call_start", "call_end")

    tab.back()
    tab.wait_for_function("window.widgetUsage")
    assert tab.evaluate("window.wasHereBefore"), "the page did not come from the cache: nothing was tested"
    left = len(ledger.events())
    ledger.wait_until(lambda events: len(events) > left)
    tab.click("#end")

    events = ledger.wait_for("widget_load", "call_start", "call_end", "call_end")
    assert len({event["session_id"] for event in events}) == 1
    [call] = ledger.calls()
    assert call["ended_at"] == events[-1]["timestamp"]


@pytest.mark.parametrize("path", ["/embedding", "/embedding?noise=1"])
def test_iframe_on_a_third_origin_reports_the_embedding_page(
    tab: Tab, site: DemoSite, ledger: Ledger, path: str
) -> None:
    """The vendor's frame is not where the widget is: the customer's page is."""
    tab.goto(f"http://shop.localhost:{site.port}{path}{'&' if '?' in path else '?'}vendor=vendor.localhost")
    tab.click("#start", frame=True)
    ledger.wait_for("widget_load", "call_start")

    tab.close()

    [load, *_] = ledger.wait_for("widget_load", "call_start", "call_end")
    assert load["page_url"] == f"http://shop.localhost:{site.port}/"


def test_iframe_that_has_navigated_still_reports_the_embedding_page(tab: Tab, site: DemoSite, ledger: Ledger) -> None:
    """Its referrer is then the vendor's own page, and must not be taken for the customer's."""
    tab.goto(f"http://shop.localhost:{site.port}/embedding?vendor=vendor.localhost")
    ledger.wait_for("widget_load")

    tab.click("#load", frame=True)

    events = ledger.wait_for("widget_load", "widget_load")
    shop = f"http://shop.localhost:{site.port}"
    assert [event["page_url"].rstrip("/") for event in events] == [shop, shop]


def test_query_and_fragment_never_leave_the_page(
    tab: Tab, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy
) -> None:
    """They may hold what is nobody's business, so they are cut off before the wire."""
    tab.goto(site.address("/", email="anna@customer.example") + "#secret")

    [load] = ledger.wait_for("widget_load")

    assert load["page_url"] == site.address()
    assert not any(word in request.body for request in proxy.seen for word in (b"anna", b"secret"))


def test_tabs_of_one_browser_are_sessions_of_their_own(visitor: Visitor, site: DemoSite, ledger: Ledger) -> None:
    """They share a storage, not a session: each ends its own call."""
    tabs = [visitor.new_tab() for _ in range(3)]
    for tab in tabs:
        tab.goto(site.address())
        tab.click("#start")

    for tab in tabs:
        tab.close()

    ledger.wait_for(*["widget_load", "call_start", "call_end"] * 3)
    assert [call["evidence"] for call in ledger.calls()] == ["observed"] * 3
