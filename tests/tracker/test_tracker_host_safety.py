"""The host page comes first: no call throws or blocks, nothing leaks, and usage is still counted where it can be."""

import pytest
from playwright.sync_api import BrowserContext, Page

from local_stack.demo_site import DemoSite
from local_stack.demo_site import Page as SitePage
from local_stack.stack import Stack
from local_stack.unreliable_proxy import UnreliableProxy
from tests.tracker.ledger import Ledger

SHOP = SitePage('<!doctype html><title>A shop</title><script src="/usage.min.js" {{attributes}}></script>')

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


@pytest.fixture
def troubles(page: Page) -> list[str]:
    """Uncaught errors and unhandled rejections of the page, as its error monitoring would see them."""
    seen: list[str] = []
    page.on("pageerror", lambda error: seen.append(str(error)))
    return seen


@pytest.mark.parametrize("script", UNKIND_PAGES.values(), ids=UNKIND_PAGES.keys())
def test_unkind_pages(page: Page, site: DemoSite, ledger: Ledger, troubles: list[str], script: str) -> None:
    """Whatever the page has done to its built-ins, no call throws and every event arrives."""
    site.pages["/shop"] = SHOP
    page.add_init_script(script)
    page.goto(site.address("/shop"))

    assert page.evaluate(USE_ALL) == "string"
    ledger.wait_for(*ALL)
    page.evaluate("() => { widgetUsage.callStart(); }")
    page.close()

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
def test_pages_beyond_help(page: Page, site: DemoSite, troubles: list[str], script: str) -> None:
    """Where nothing can be sent, the page still runs."""
    site.pages["/shop"] = SHOP
    page.add_init_script(script)
    page.goto(site.address("/shop"))

    page.evaluate(
        "() => { widgetUsage.load(); widgetUsage.open(); widgetUsage.callStart().end(); widgetUsage.flush(); }"
    )
    page.close()

    assert troubles == []


def test_content_security_policy_that_refuses_the_api(
    page: Page, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy, troubles: list[str]
) -> None:
    """The browser notes it in its console; the page runs on."""
    site.pages["/shop"] = SHOP._replace(headers={"Content-Security-Policy": "connect-src 'self'"})
    page.goto(site.address("/shop"))

    assert page.evaluate(USE_ALL) == "string"
    page.evaluate("new Promise(resolve => setTimeout(resolve))")

    assert proxy.seen == []
    assert troubles == []


def test_one_global_and_no_cookie(page: Page, context: BrowserContext, site: DemoSite, ledger: Ledger) -> None:
    """The page's names are the page's."""
    site.pages["/shop"] = SHOP
    site.pages["/bare"] = SitePage("<!doctype html><title>A shop</title>")
    names = "Object.getOwnPropertyNames(window)"
    page.goto(site.address("/bare"))
    before = page.evaluate(names)

    page.goto(site.address("/shop"))
    ledger.wait_for("widget_load")

    assert set(page.evaluate(names)) - set(before) == {"widgetUsage"}
    assert context.cookies() == []
    page.wait_for_function("localStorage.length === 0 && sessionStorage.length === 0")


def test_no_unload_handler(page: Page, site: DemoSite) -> None:
    """It would cost the page its back/forward cache."""
    site.pages["/shop"] = SHOP
    page.add_init_script(
        """window.heard = [];
        const { addEventListener } = EventTarget.prototype;
        EventTarget.prototype.addEventListener = function (type, ...rest) {
            heard.push(type);
            return addEventListener.call(this, type, ...rest);
        }"""
    )

    page.goto(site.address("/shop"))

    assert set(page.evaluate("heard")) == {"blur", "online", "pagehide", "pageshow", "visibilitychange"}


@pytest.mark.parametrize("options", ["", "undefined", "null", "{}", "7", "{ url: {}, widgetId: [], key: Symbol() }"])
def test_nonsense_for_options(page: Page, stack: Stack, troubles: list[str], options: str) -> None:
    """A mistake in the set-up costs usage data, not the widget."""
    body = f"""<!doctype html><script type="module">
        import {{ createTracker }} from "/index.js";
        window.made = createTracker({options});
    </script>"""
    with DemoSite(pages={"/module": SitePage(body)}) as site:
        page.goto(site.address("/module"))

        page.evaluate("() => { made.load(); made.open(); made.callStart().error(Symbol()); made.flush(); }")

    assert troubles == []
