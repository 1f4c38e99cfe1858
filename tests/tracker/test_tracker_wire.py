"""What goes over the wire, by which way, and what does not go at all."""

from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page

from local_stack.demo_site import DemoSite
from local_stack.demo_site import Page as SitePage
from local_stack.stack import Stack
from local_stack.unreliable_proxy import Answer, Seen, UnreliableProxy
from tests.tracker.ledger import Ledger

VISIT = "() => { widgetUsage.open(); widgetUsage.callStart().end(); }"
WHOLE_VISIT = ("widget_load", "widget_open", "call_start", "call_end")


def test_no_preflight_by_default(
    page: Page, context: BrowserContext, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy
) -> None:
    """Form-encoded, the key in the query, no cookie: a request that needs to ask nobody."""
    context.add_cookies([{"name": "theirs", "value": "1", "url": proxy.url}])
    page.goto(site.address())
    page.evaluate(VISIT)
    ledger.wait_for(*WHOLE_VISIT)
    by_fetch = list(proxy.seen)
    page.evaluate("() => { widgetUsage.callStart(); }")
    ledger.wait_for(*WHOLE_VISIT, "call_start")

    page.close()

    ledger.wait_for(*WHOLE_VISIT, "call_start", "call_end")
    assert {request.method for request in proxy.seen} == {"POST"}
    assert {request.headers["content-type"] for request in proxy.seen} == {
        "application/x-www-form-urlencoded;charset=UTF-8"
    }
    assert all("/rest/v1/rpc/track_events?apikey=" in request.path for request in proxy.seen)
    assert not any("cookie" in request.headers or "apikey" in request.headers for request in by_fetch)


def test_transport_by_header(page: Page, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy) -> None:
    """For gateways that take no key from the query: a preflight, warmed by the load, and fetch to the end."""
    page.goto(site.address(transport="header"))
    page.click("#start")
    ledger.wait_for("widget_load", "call_start")

    page.close()

    ledger.wait_for("widget_load", "call_start", "call_end")
    assert proxy.seen[0].method == "OPTIONS"
    posts = [request for request in proxy.seen if request.method == "POST"]
    assert {request.path for request in posts} == {"/rest/v1/rpc/track_events"}
    assert all(request.headers["apikey"].startswith("sb_publishable_") for request in posts)


def test_transport_by_function(page: Page, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy) -> None:
    """The relay needs no key and no preflight."""
    page.goto(site.address(transport="function"))
    page.click("#start")
    ledger.wait_for("widget_load", "call_start")

    page.close()

    ledger.wait_for("widget_load", "call_start", "call_end")
    assert {(request.method, request.path) for request in proxy.seen} == {("POST", "/functions/v1/events")}


def test_endpoint_of_the_sites_own(page: Page, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy) -> None:
    """Blockers match paths: a site may proxy the events under a name of its choosing."""

    def rename(request: Seen) -> Answer:
        return proxy.pass_on(request._replace(path="/functions/v1/events"))

    with proxy.fault(rename):
        page.goto(site.address(endpoint=f"{proxy.url}/hello"))
        page.evaluate(VISIT)

        ledger.wait_for(*WHOLE_VISIT)

    assert {request.path for request in proxy.seen} == {"/hello"}


@pytest.mark.parametrize("signal", ["doNotTrack: { value: '1' }", "globalPrivacyControl: { value: true }"])
@pytest.mark.parametrize("respected", [True, False])
def test_privacy_signals(page: Page, site: DemoSite, ledger: Ledger, signal: str, respected: bool) -> None:
    """Where asked to, insight keeps silent; what is billed does not, and its first event names the page."""
    page.add_init_script(f"Object.defineProperties(navigator, {{ {signal} }})")
    page.goto(site.address(respect_privacy_signals=str(respected).lower()))

    page.evaluate(VISIT)

    events = ledger.wait_for(*WHOLE_VISIT[2 if respected else 0 :])
    assert [event["seq"] for event in ledger.events()] == list(range(1, len(events) + 2)), "a heartbeat counts too"
    assert [event["page_url"] for event in events] == [site.address()] + [None] * (len(events) - 1)


def test_privacy_signals_without_a_signal(page: Page, site: DemoSite, ledger: Ledger) -> None:
    """The option alone keeps nothing back."""
    page.goto(site.address(respect_privacy_signals=""))

    page.evaluate(VISIT)

    ledger.wait_for(*WHOLE_VISIT)


@pytest.mark.parametrize("option", [{"demo": ""}, {"demo": "true"}, {"widget_id": ""}, {"url": ""}])
def test_demo_mode_sends_nothing(page: Page, site: DemoSite, proxy: UnreliableProxy, option: dict[str, str]) -> None:
    """Nor does a tag that lacks what it needs. The calls work all the same."""
    page.goto(site.address(**option))

    page.evaluate(VISIT)
    page.evaluate("() => { widgetUsage.callStart(); widgetUsage.flush(); }")
    stored = page.evaluate("localStorage.length")
    page.evaluate("url => fetch(url + '/last').catch(() => 0)", proxy.url)
    page.close()

    assert [request.path for request in proxy.seen] == ["/last"]
    assert stored == 0


def test_demo_false_is_not_demo(page: Page, site: DemoSite, ledger: Ledger) -> None:
    """An attribute's value is a text, and "false" is true for JavaScript."""
    page.goto(site.address(demo="false"))

    ledger.wait_for("widget_load")


def test_round_trips_are_reported(page: Page, site: DemoSite, ledger: Ledger) -> None:
    """Each event after an answer says how long that answer took."""
    page.goto(site.address())
    ledger.wait_for("widget_load")
    page.wait_for_function("localStorage.length === 0")

    page.click("#open")

    [load, opened] = ledger.wait_for("widget_load", "widget_open")
    assert "rtt_ms" not in (load["properties"] or {})
    assert 0 <= opened["properties"]["rtt_ms"] < 10_000


@pytest.fixture
def module_page() -> dict[str, SitePage]:
    """A page of a widget that bundles the module instead of embedding the script."""
    body = """<!doctype html><script type="module">
        import { createTracker } from "/index.js";
        window.made = createTracker({ ...document.body.dataset });
    </script><body {{attributes}}>"""
    return {"/module": SitePage(body)}


def test_module(
    page: Page, stack: Stack, module_page: dict[str, SitePage], ledger: Ledger, proxy: UnreliableProxy
) -> None:
    """The npm package does the same, says nothing by itself, and makes no global."""
    options: dict[str, Any] = {"url": proxy.url, "key": stack.publishable_key, "widget_id": ledger.widget_id}
    with DemoSite(pages=module_page, **options) as site:
        page.goto(site.address("/module"))

        page.evaluate("() => { made.load(); made.load(); made.open(); made.callStart().end(); }")

        events = ledger.wait_for(*WHOLE_VISIT)
        assert {event["session_id"] for event in events} == {page.evaluate("made.sessionId")}
        assert page.evaluate("typeof widgetUsage") == "undefined"
