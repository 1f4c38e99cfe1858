"""What goes over the wire, by which way, and what does not go at all."""

from typing import Any

import pytest

from local_stack.browsers import Tab
from local_stack.demo_site import DemoSite
from local_stack.demo_site import Page as SitePage
from local_stack.stack import Stack
from local_stack.unreliable_proxy import Answer, Seen, UnreliableProxy
from tests.tracker.ledger import Ledger

VISIT = "() => { widgetUsage.open(); widgetUsage.callStart().end(); }"
WHOLE_VISIT = ("widget_load", "widget_open", "call_start", "call_end")


def test_no_preflight_by_default(tab: Tab, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy) -> None:
    """Form-encoded, the key in the query, no cookie: a request that needs to ask nobody."""
    tab.goto(site.address("/about"))
    tab.evaluate("void (document.cookie = 'theirs=1')")  # a host's cookies are those of all its ports
    tab.goto(site.address())
    tab.evaluate(VISIT)
    ledger.wait_for(*WHOLE_VISIT)
    by_fetch = list(proxy.seen)
    tab.evaluate("() => { widgetUsage.callStart(); }")
    ledger.wait_for(*WHOLE_VISIT, "call_start")

    tab.close()

    ledger.wait_for(*WHOLE_VISIT, "call_start", "call_end")
    assert {request.method for request in proxy.seen} == {"POST"}
    assert {request.headers["content-type"] for request in proxy.seen} == {
        "application/x-www-form-urlencoded;charset=UTF-8"
    }
    assert all("/rest/v1/rpc/track_events?apikey=" in request.path for request in proxy.seen)
    assert not any("cookie" in request.headers or "apikey" in request.headers for request in by_fetch)


def test_transport_by_header(tab: Tab, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy) -> None:
    """For gateways that take no key from the query: a preflight, warmed by the load, and fetch to the end."""
    tab.goto(site.address(transport="header"))
    tab.click("#start")
    ledger.wait_for("widget_load", "call_start")

    tab.close()

    ledger.wait_for("widget_load", "call_start", "call_end")
    assert proxy.seen[0].method == "OPTIONS"
    posts = [request for request in proxy.seen if request.method == "POST"]
    assert {request.path for request in posts} == {"/rest/v1/rpc/track_events"}
    assert all(request.headers["apikey"].startswith("sb_publishable_") for request in posts)


def test_transport_by_function(tab: Tab, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy) -> None:
    """The relay needs no key and no preflight."""
    tab.goto(site.address(transport="function"))
    tab.click("#start")
    ledger.wait_for("widget_load", "call_start")

    tab.close()

    ledger.wait_for("widget_load", "call_start", "call_end")
    assert {(request.method, request.path) for request in proxy.seen} == {("POST", "/functions/v1/events")}


def test_endpoint_of_the_sites_own(tab: Tab, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy) -> None:
    """Blockers match paths: a site may proxy the events under a name of its choosing."""

    def rename(request: Seen) -> Answer:
        return proxy.pass_on(request._replace(path="/functions/v1/events"))

    with proxy.fault(rename):
        tab.goto(site.address(endpoint=f"{proxy.url}/hello"))
        tab.evaluate(VISIT)

        ledger.wait_for(*WHOLE_VISIT)

    assert {request.path for request in proxy.seen} == {"/hello"}


@pytest.mark.parametrize("signal", ["doNotTrack: { value: '1' }", "globalPrivacyControl: { value: true }"])
@pytest.mark.parametrize("respected", [True, False])
def test_privacy_signals(tab: Tab, site: DemoSite, ledger: Ledger, signal: str, respected: bool) -> None:
    """Where asked to, insight keeps silent; what is billed does not, and its first event names the page."""
    patched = f"<script>Object.defineProperties(navigator, {{ {signal} }})</script>"
    site.pages["/shop"] = SitePage(f'{patched}<script src="/usage.min.js" {{{{attributes}}}}></script>')
    tab.goto(site.address("/shop", respect_privacy_signals=str(respected).lower()))

    tab.evaluate(VISIT)

    events = ledger.wait_for(*WHOLE_VISIT[2 if respected else 0 :])
    assert [event["seq"] for event in ledger.events()] == list(range(1, len(events) + 2)), "a heartbeat counts too"
    assert [event["page_url"] for event in events] == [site.address("/shop")] + [None] * (len(events) - 1)


def test_privacy_signals_without_a_signal(tab: Tab, site: DemoSite, ledger: Ledger) -> None:
    """The option alone keeps nothing back."""
    tab.goto(site.address(respect_privacy_signals=""))

    tab.evaluate(VISIT)

    ledger.wait_for(*WHOLE_VISIT)


@pytest.mark.parametrize("option", [{"demo": ""}, {"demo": "true"}, {"widget_id": ""}, {"url": ""}])
def test_demo_mode_sends_nothing(tab: Tab, site: DemoSite, proxy: UnreliableProxy, option: dict[str, str]) -> None:
    """Nor does a tag that lacks what it needs. The calls work all the same."""
    tab.goto(site.address(**option))

    tab.evaluate(VISIT)
    tab.evaluate("() => { widgetUsage.callStart(); widgetUsage.flush(); }")
    stored = tab.evaluate("localStorage.length")
    tab.evaluate("url => fetch(url + '/last').catch(() => 0)", proxy.url)
    tab.close()

    assert [request.path for request in proxy.seen] == ["/last"]
    assert stored == 0


def test_demo_false_is_not_demo(tab: Tab, site: DemoSite, ledger: Ledger) -> None:
    """An attribute's value is a text, and "false" is true for JavaScript."""
    tab.goto(site.address(demo="false"))

    ledger.wait_for("widget_load")


def test_round_trips_are_reported(tab: Tab, site: DemoSite, ledger: Ledger) -> None:
    """Each event after an answer says how long that answer took."""
    tab.goto(site.address())
    ledger.wait_for("widget_load")
    tab.wait_for_function("localStorage.length === 0")

    tab.click("#open")

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
    tab: Tab, stack: Stack, module_page: dict[str, SitePage], ledger: Ledger, proxy: UnreliableProxy
) -> None:
    """The npm package does the same, says nothing by itself, and makes no global."""
    options: dict[str, Any] = {"url": proxy.url, "key": stack.publishable_key, "widget_id": ledger.widget_id}
    with DemoSite(pages=module_page, **options) as site:
        tab.goto(site.address("/module"))

        tab.evaluate("() => { made.load(); made.load(); made.open(); made.callStart().end(); }")

        events = ledger.wait_for(*WHOLE_VISIT)
        assert {event["session_id"] for event in events} == {tab.evaluate("made.sessionId")}
        assert tab.evaluate("typeof widgetUsage") == "undefined"
