"""The host page comes first: no call throws or blocks, nothing leaks, and usage is still counted where it can be."""

import pytest

from local_stack.browsers import Tab
from local_stack.demo_site import DemoSite
from local_stack.demo_site import Page as SitePage
from local_stack.unreliable_proxy import UnreliableProxy
from tests.tracker.ledger import Ledger
from tests.tracker.pages import WATCH, shop

# Every call of the API, and that each one gives back what it should.
USE_ALL = """() => {
    const results = [widgetUsage.load(), widgetUsage.open(), widgetUsage.flush()];
    const failed = widgetUsage.callStart();
    results.push(failed.error(new Error("broken")), failed.end());
    const call = widgetUsage.callStart();
    results.push(call.end());
    return results.every(result => result === undefined) && typeof call.id;
}"""
ALL = ("widget_load", "widget_open", "call_start", "call_error", "call_start", "call_end")

UNKIND_PAGES = {
    "storage denied": """Object.defineProperty(window, "localStorage", {
        get() { throw new DOMException("The operation is insecure.", "SecurityError"); } })""",
    "no storage": """Object.defineProperty(window, "localStorage", { value: null })""",
    "storage full": """Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError"); }""",
    "frozen clocks": """Date.now = () => 1700000000000; performance.now = () => 5""",
    "frozen timers": """window.setTimeout = window.setInterval = () => 1""",
    "no crypto": """Object.defineProperty(window, "crypto", { value: undefined })""",
    "fetch that throws": """window.fetch = () => { throw new Error("patched") }""",
    "fetch that rejects": """window.fetch = () => Promise.reject(new Error("patched"))""",
    "fetch that answers nonsense": """window.fetch = () => "nonsense" """,
    "no beacon": """Navigator.prototype.sendBeacon = undefined""",
    "beacon that throws": """Navigator.prototype.sendBeacon = () => { throw new Error("patched") }""",
    "arrays with a toJSON": """Array.prototype.toJSON = () => "nonsense" """,
}


# WebKit's driver speaks to the page by the page's own JSON and promises.
BREAKS_THE_DRIVER = ("toJSON", "JSON.stringify", "Promise = undefined")


@pytest.fixture(autouse=True)
def skip_what_breaks_the_driver(request: pytest.FixtureRequest) -> None:
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if parameters.get("engine") == "webkit" and any(word in parameters.get("script", "") for word in BREAKS_THE_DRIVER):
        pytest.skip("the page cannot be driven then")


@pytest.mark.parametrize("script", UNKIND_PAGES.values(), ids=UNKIND_PAGES.keys())
def test_unkind_pages(tab: Tab, site: DemoSite, ledger: Ledger, script: str) -> None:
    """Whatever the page has done to its built-ins, no call throws and every event arrives."""
    site.pages["/shop"] = shop(script)
    tab.goto(site.address("/shop"))

    assert tab.evaluate(USE_ALL) == "string"
    ledger.wait_for(*ALL)
    tab.evaluate("() => { widgetUsage.callStart(); }")
    ledger.wait_for(*ALL, "call_start")
    troubles = tab.evaluate("troubles")

    tab.close()

    ledger.wait_for(*ALL, "call_start", "call_end")
    assert troubles == []


@pytest.mark.parametrize(
    "script",
    [
        "Date.now = () => { throw new Error('patched') }",
        "JSON.stringify = () => { throw new Error('patched') }",
        "window.URLSearchParams = undefined",
        "window.performance.now = undefined",
        "window.addEventListener = undefined",
        "String.prototype.padStart = undefined",
        "window.Promise = undefined",
    ],
)
def test_pages_beyond_help(tab: Tab, site: DemoSite, script: str) -> None:
    """Where nothing can be sent, the page still runs."""
    site.pages["/shop"] = shop(script)
    tab.goto(site.address("/shop"))

    tab.evaluate(
        "() => { widgetUsage.load(); widgetUsage.open(); widgetUsage.callStart().end(); widgetUsage.flush(); }"
    )

    assert tab.evaluate("troubles") == []


def test_content_security_policy_that_refuses_the_api(
    tab: Tab, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy
) -> None:
    """The browser notes it in its console; the page runs on."""
    site.pages["/shop"] = shop()._replace(headers={"Content-Security-Policy": "connect-src 'self'"})
    tab.goto(site.address("/shop"))

    assert tab.evaluate(USE_ALL) == "string"
    tab.evaluate("new Promise(resolve => setTimeout(resolve)).then(() => 0)")

    assert proxy.seen == []
    assert tab.evaluate("troubles") == []


def test_one_global_and_no_cookie(tab: Tab, site: DemoSite, ledger: Ledger) -> None:
    """The page's names are the page's."""
    site.pages["/shop"] = shop()
    site.pages["/bare"] = shop(tracker="")
    names = "Object.getOwnPropertyNames(window)"
    tab.goto(site.address("/bare"))
    before = tab.evaluate(names)

    tab.goto(site.address("/shop"))
    ledger.wait_for("widget_load")

    assert set(tab.evaluate(names)) - set(before) == {"widgetUsage"}
    assert tab.evaluate("document.cookie") == ""
    tab.wait_for_function("localStorage.length === 0 && sessionStorage.length === 0")


def test_no_unload_handler(tab: Tab, site: DemoSite) -> None:
    """It would cost the page its back/forward cache."""
    site.pages["/shop"] = shop(
        """window.heard = [];
        const native = EventTarget.prototype.addEventListener;
        EventTarget.prototype.addEventListener = function (type, ...rest) {
            heard.push(type);
            return native.call(this, type, ...rest);
        }"""
    )

    tab.goto(site.address("/shop"))

    assert set(tab.evaluate("heard")) == {"blur", "online", "pagehide", "pageshow", "visibilitychange"}


WARNING = "warn: widgetUsage: widgetId/url"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", [WARNING]),
        ("undefined", [WARNING]),
        ("null", []),
        ("{}", [WARNING]),
        ("7", [WARNING]),
        ("{ url: {}, widgetId: [], key: Symbol() }", []),
    ],
)
def test_nonsense_for_options(tab: Tab, options: str, said: list[str]) -> None:
    """A mistake in the set-up costs usage data, not the widget."""
    body = f"""<!doctype html>{WATCH}<script type="module">
        import {{ createTracker }} from "/index.js";
        window.made = createTracker({options});
    </script>"""
    with DemoSite(pages={"/module": SitePage(body)}) as site:
        tab.goto(site.address("/module"))

        tab.evaluate("() => { made.load(); made.open(); made.callStart().error(Symbol()); made.flush(); }")

        assert tab.evaluate("troubles") == said
