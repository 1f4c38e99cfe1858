"""Where the options come from: attributes, the script's own query, a global. And when they come from nowhere."""

from collections.abc import Mapping
from urllib.parse import urlencode

import pytest

from local_stack.browsers import Tab
from local_stack.demo_site import DemoSite
from local_stack.stack import Stack
from local_stack.unreliable_proxy import UnreliableProxy
from tests.tracker.ledger import Ledger
from tests.tracker.pages import TRACKER, shop

WARNING = "warn: widgetUsage: widgetId/url"
BARE = '<script src="/usage.min.js"></script>'


@pytest.fixture
def options(stack: Stack, proxy: UnreliableProxy, ledger: Ledger) -> Mapping[str, str]:
    return {"url": proxy.url, "key": stack.publishable_key, "widgetId": str(ledger.widget_id)}


@pytest.mark.every_engine
def test_by_the_scripts_own_query(tab: Tab, site: DemoSite, ledger: Ledger, options: Mapping[str, str]) -> None:
    """Tag managers strip `data-` attributes; an address they keep."""
    source = f"/usage.min.js?{urlencode(options)}".replace("&", "&amp;")
    site.pages["/shop"] = shop(tracker=f'<script src="{source}"></script>')

    tab.goto(site.address("/shop"))

    ledger.wait_for("widget_load")
    assert tab.evaluate("troubles") == []


def test_by_an_address_that_ends_with_a_slash(
    tab: Tab, site: DemoSite, ledger: Ledger, stack: Stack, options: Mapping[str, str]
) -> None:
    """As a browser's address line gives it."""
    source = f"/usage.min.js?{urlencode({**options, 'url': f'{stack.api_url}/'})}".replace("&", "&amp;")
    site.pages["/shop"] = shop(tracker=f'<script src="{source}"></script>')

    tab.goto(site.address("/shop"))

    ledger.wait_for("widget_load")


def test_by_a_script_that_a_tag_manager_inserts(
    tab: Tab, site: DemoSite, ledger: Ledger, options: Mapping[str, str]
) -> None:
    """Made by a script, asynchronous, without attributes."""
    site.pages["/shop"] = shop(
        f"""const tag = document.createElement("script");
        tag.src = "/usage.min.js?{urlencode(options)}";
        document.head.append(tag);""",
        tracker="",
    )

    tab.goto(site.address("/shop"))

    ledger.wait_for("widget_load")


def test_by_a_global(tab: Tab, site: DemoSite, ledger: Ledger, options: Mapping[str, str]) -> None:
    """Set before the script, it becomes the tracker."""
    site.pages["/shop"] = shop(f"window.widgetUsage = {dict(options)!r}", tracker=BARE)

    tab.goto(site.address("/shop"))

    ledger.wait_for("widget_load")
    assert tab.evaluate("typeof widgetUsage.callStart") == "function"


def test_by_a_global_where_there_is_no_current_script(
    tab: Tab, site: DemoSite, ledger: Ledger, options: Mapping[str, str]
) -> None:
    """A module, or a bundle that is one, has none."""
    tracker = '<script type="module" src="/usage.min.js"></script>'
    site.pages["/shop"] = shop(f"window.widgetUsage = {dict(options)!r}", tracker=tracker)

    tab.goto(site.address("/shop"))

    ledger.wait_for("widget_load")


def test_with_a_nonce(tab: Tab, site: DemoSite, ledger: Ledger, options: Mapping[str, str]) -> None:
    """A policy that lets scripts with its nonce run, and requests to the project go, is enough."""
    inline = f"<script nonce=n1>window.widgetUsage = {dict(options)!r}</script>"
    page = shop(tracker=f'{inline}<script nonce=n1 src="/usage.min.js"></script>')
    policy = f"default-src 'none'; script-src 'nonce-n1'; connect-src {options['url']}"
    site.pages["/shop"] = page._replace(headers={"Content-Security-Policy": policy})

    tab.goto(site.address("/shop"))

    ledger.wait_for("widget_load")


def test_attributes_win(tab: Tab, site: DemoSite, ledger: Ledger) -> None:
    """What stands on the tag itself is nearest."""
    tracker = TRACKER.replace("usage.min.js", "usage.min.js?widgetId=other&amp;url=http://127.0.0.1:9")
    site.pages["/shop"] = shop("window.widgetUsage = { widgetId: 'another' }", tracker=tracker)

    tab.goto(site.address("/shop"))

    ledger.wait_for("widget_load")


@pytest.mark.every_engine
def test_the_script_twice_is_one_tracker(tab: Tab, site: DemoSite, ledger: Ledger, proxy: UnreliableProxy) -> None:
    """One session, one load, and each event once."""
    site.pages["/shop"] = shop(tracker=TRACKER + TRACKER)
    tab.goto(site.address("/shop"))

    tab.evaluate("() => { widgetUsage.open(); }")

    ledger.wait_for("widget_load", "widget_open")
    assert len({event["event_id"] for request in proxy.seen for event in request.events()}) == 2


@pytest.mark.parametrize("tracker", [BARE, TRACKER])
def test_nothing_to_go_by_warns_once(tab: Tab, site: DemoSite, proxy: UnreliableProxy, tracker: str) -> None:
    """Nothing else could tell: the calls work, and nothing is sent or stored."""
    site.pages["/shop"] = shop(tracker=tracker)
    tab.goto(site.address("/shop", url="", widget_id=""))

    tab.evaluate("() => { widgetUsage.open(); widgetUsage.callStart().end(); }")

    assert tab.evaluate("troubles") == [WARNING]
    assert tab.evaluate("localStorage.length") == 0
    assert proxy.seen == []


def test_a_demo_does_not_warn(tab: Tab, site: DemoSite) -> None:
    """It says that it sends nothing."""
    site.pages["/shop"] = shop()

    tab.goto(site.address("/shop", demo="", url="", widget_id=""))

    assert tab.evaluate("troubles") == []
