"""The usage page in each browser engine: it signs in, shows every panel, and says what could not be drawn."""

import json
from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import DictRow

from local_stack.browsers import Tab, launch
from local_stack.demo_site import DemoSite
from local_stack.stack import Stack
from local_stack.unreliable_proxy import Answer, Seen, UnreliableProxy
from tests.dashboard.conftest import PASSWORD, Owner, days_ago, play_call
from tests.support import record

pytestmark = pytest.mark.every_engine

SIGN_IN = """(email, password) => {
  document.querySelector("[name=email]").value = email;
  document.querySelector("[name=password]").value = password;
  document.querySelector("form button").click();
}"""
ONE_ROW = {
    "content-type": "application/json",
    "content-range": "0-0/1",
    "access-control-expose-headers": "Content-Range",
}
IS_COMPLETE = "document.querySelectorAll('.figure').length === 4 && !document.querySelector('[aria-busy=true]')"


@pytest.fixture(scope="module")
def tab(engine: str) -> Iterator[Tab]:
    with launch(engine) as browser:
        visitor = browser.new_visitor()
        yield visitor.new_tab()
        visitor.close()


@pytest.fixture
def proxy(stack: Stack) -> Iterator[UnreliableProxy]:
    with UnreliableProxy(stack.api_url) as running:
        yield running


@pytest.fixture
def page_address(stack: Stack, proxy: UnreliableProxy) -> Iterator[str]:
    with DemoSite(url=proxy.url, key=stack.publishable_key, widget_id=UUID(int=0)) as running:
        yield running.address("/dashboard/")


def sign_in(tab: Tab, address: str, owner: Owner, until: str = IS_COMPLETE) -> None:
    tab.goto(address)
    tab.evaluate("localStorage.clear()")  # the session of the test before
    tab.goto(address)
    tab.wait_for_function("document.querySelector('form button') !== null")
    tab.evaluate(SIGN_IN, owner.email, PASSWORD)
    tab.wait_for_function(until, seconds=60)


def text_of(tab: Tab, selector: str) -> str:
    text: str = tab.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")
    return text


def test_all_panels(tab: Tab, page_address: str, owner: Owner, db: psycopg.Connection[DictRow]) -> None:
    """The engine's own way to write dates and numbers is nobody's business."""
    start = days_ago(2)
    play_call(db, owner.widget_id, start, 61.5)
    db.execute("select refresh_widget_health()")

    sign_in(tab, page_address, owner)

    assert "exactly 61.5 s" in text_of(tab, "[data-figure='Billable minutes']")
    everything = text_of(tab, "main")
    assert f"{start:%-d %b %Y, %H:%M:%S} UTC" in everything
    assert "could not be" not in everything


def test_what_cannot_be_drawn_is_said_and_can_be_tried_again(
    tab: Tab, page_address: str, proxy: UnreliableProxy, owner: Owner, db: psycopg.Connection[DictRow]
) -> None:
    """One panel's trouble is its own; the others stand."""
    play_call(db, owner.widget_id, days_ago(2), 5)

    def nonsense(request: Seen) -> Answer:
        if "/widget_refusal_totals" in request.path and request.method == "POST":
            return Answer(200, '[{"reason": null}]', ONE_ROW)
        return proxy.pass_on(request)

    with proxy.fault(nonsense):
        sign_in(tab, page_address, owner)
        tab.wait_for_function("document.querySelector('.state[role=alert] button') !== null")

    assert "This could not be shown:" in text_of(tab, ".state[role=alert]")
    assert text_of(tab, ".state[role=alert] button") == "Try again"
    assert "Day by day" in text_of(tab, "main")
    tab.evaluate("void document.querySelector('.state[role=alert] button').click()")
    tab.wait_for_function("document.querySelectorAll('.figure').length === 4")


def test_an_empty_widget_waits_for_its_first_event(
    tab: Tab, page_address: str, owner: Owner, db: psycopg.Connection[DictRow]
) -> None:
    """The snippet stands there, and the event appears without a click."""
    sign_in(tab, page_address, owner, "document.querySelector('.snippet') !== null")
    assert str(owner.widget_id) in text_of(tab, ".snippet")

    record(db, owner.widget_id, "s", "widget_load", days_ago(0, 0), page_url="https://shop.example/")

    tab.wait_for_function("document.querySelector('.first').innerText.includes('https://shop.example/')", seconds=60)
    tab.wait_for_function(IS_COMPLETE, seconds=60)
