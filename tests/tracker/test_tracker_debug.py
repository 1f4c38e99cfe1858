"""usage.debug.js: on localhost, or with data-debug, the console says why nothing is tracked; elsewhere nothing does."""

import re
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import DictRow

from local_stack.browsers import Tab
from local_stack.demo_site import DemoSite
from local_stack.processes import await_condition
from local_stack.unreliable_proxy import UnreliableProxy
from tests.conftest import NewWidget
from tests.tracker.ledger import Ledger
from tests.tracker.pages import TRACKER, shop

DEBUG = '<script src="/usage.debug.js"></script>'
OWN = "warn: widgetUsage: widgetId/url"  # what the tracker itself says anywhere


def words(tab: Tab, count: int = 1) -> list[str]:
    """What the console was told, once it is as much as this."""
    await_condition(
        "words in the console", lambda: len(tab.evaluate("troubles")) >= count, seconds=30, explain=lambda: "silence"
    )
    said: list[str] = tab.evaluate("troubles")
    return said


def test_a_host_that_is_not_allowed(tab: Tab, site: DemoSite, ledger: Ledger, db: psycopg.Connection[DictRow]) -> None:
    """The words hold the statement that allows it: once it was run, the same page tracks and nothing is said."""
    site.pages["/shop"] = shop(tracker=DEBUG + TRACKER)
    tab.goto(site.address("/shop", host="localhost"))

    [said] = words(tab)
    statement = re.search(r"update widgets set .* where id = '[^']*'", said)
    assert "not allowed on localhost" in said
    assert statement
    db.execute(statement[0].encode())
    tab.goto(site.address("/shop", host="localhost"))

    ledger.wait_for("widget_load")
    assert tab.evaluate("troubles") == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"widget_id": "44444444-4444-7444-8444-444444444444"}, ["444444444444 is unknown, not active, or not"]),
        ({"widget_id": "bakery"}, ['widgetId "bakery" is no UUID', "an event is refused: widget_id"]),
        ({"widget_id": ""}, [OWN, "widgetId is empty"]),
        ({"url": ""}, [OWN, "url is empty"]),
        ({"url": "", "widget_id": ""}, [OWN, "a tag manager stripped its data- attributes"]),
        ({"url": "http://127.0.0.1:9"}, ["no answer from http://127.0.0.1:9"]),
        ({"endpoint": "/shop"}, ["unexpected answer, HTTP 501"]),
        ({"demo": ""}, ["demo is on"]),
        ({"key": "sb_publishable_of_another_project"}, ["the key was refused"]),
    ],
)  # fmt: skip
def test_what_is_wrong(tab: Tab, site: DemoSite, options: dict[str, str], said: list[str]) -> None:
    """Each mistake in its words, once, however often the tracker tries."""
    site.pages["/shop"] = shop(tracker=DEBUG + TRACKER)
    tab.goto(site.address("/shop", host="localhost", **options))

    found = words(tab, len(said))
    tab.evaluate("async () => { widgetUsage.flush(); await new Promise((done) => setTimeout(done, 300)); }")

    assert len(found) == len(said) == len(tab.evaluate("troubles")), found
    assert all(part in line for part, line in zip(said, found, strict=True)), found


def test_an_answer_that_does_not_come(tab: Tab, site: DemoSite, proxy: UnreliableProxy) -> None:
    """It hangs for longer than a developer would wait."""
    site.pages["/shop"] = shop(tracker=DEBUG + TRACKER)
    with proxy.fault(proxy.after(6)):
        tab.goto(site.address("/shop", host="localhost"))

        assert f"no answer from {proxy.url}" in words(tab)[0]


def test_a_tag_manager_that_strips_attributes(tab: Tab, site: DemoSite) -> None:
    """The script is inserted by another, bare."""
    site.pages["/shop"] = shop(
        """const tag = document.createElement("script");
        tag.src = "/usage.min.js";
        document.head.append(tag);""",
        tracker="",
    )
    page = site.pages["/shop"]
    site.pages["/shop"] = page._replace(body=page.body.replace("</title>", f"</title>{DEBUG}"))
    tab.goto(site.address("/shop", host="localhost"))

    assert "a tag manager stripped its data- attributes" in words(tab, 2)[1]


@pytest.mark.parametrize("attribute", ["", "data-debug", 'data-debug="false"'])
def test_elsewhere_it_takes_an_attribute(tab: Tab, site: DemoSite, attribute: str, proxy: UnreliableProxy) -> None:
    """Left on a page in production it says nothing and touches nothing."""
    native = "<script>window.nativeFetch = fetch</script>"
    site.pages["/shop"] = shop(tracker=native + DEBUG.replace("></", f" {attribute}></") + TRACKER)
    tab.goto(site.address("/shop", widget_id=uuid4()))
    is_on = attribute == "data-debug"
    if is_on:
        words(tab)
    proxy.await_requests(1)
    proxy.await_quiet()
    tab.evaluate("() => new Promise((done) => setTimeout(done, 300))")

    assert len(tab.evaluate("troubles")) == is_on
    assert tab.evaluate("fetch === nativeFetch") != is_on
    assert ("value" in tab.evaluate("Object.keys(Object.getOwnPropertyDescriptor(window, 'widgetUsage'))")) != is_on


@pytest.fixture
def allowed_widget(new_widget: NewWidget) -> UUID:
    return new_widget(allowed_domains=("localhost",))


def test_by_a_global(tab: Tab, site: DemoSite, db: psycopg.Connection[DictRow], allowed_widget: UUID) -> None:
    """Options set before or after it are the tracker's; all is well, and nothing is said."""
    options = {"url": site.options["url"], "key": site.options["key"], "widgetId": str(allowed_widget)}
    tracker = f'{DEBUG}<script>window.widgetUsage = {options!r}</script><script src="/usage.min.js"></script>'
    site.pages["/shop"] = shop(tracker=tracker)
    tab.goto(site.address("/shop", host="localhost"))

    Ledger(db, allowed_widget).wait_for("widget_load")
    assert tab.evaluate("troubles") == []
