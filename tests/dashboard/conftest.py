"""The usage page in a real browser, on the real stack, signed in as owners who signed up through the API."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect, sync_playwright
from psycopg.rows import DictRow

from local_stack.browsers.chromium import launch
from local_stack.demo_site import DemoSite
from local_stack.places import ROOT
from local_stack.stack import Stack
from tests.conftest import NewWidget
from tests.engines import parametrize_engine
from tests.support import record, session_name

PASSWORD = "correct horse battery"
AXE = ROOT / "dashboard" / "node_modules" / "axe-core" / "axe.min.js"
_PATIENCE = 30_000  # milliseconds: a machine that is busy with other tests is slow


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize_engine(metafunc)


@dataclass(frozen=True)
class Owner:
    """Somebody with a password and a widget."""

    user_id: UUID
    email: str
    widget_id: UUID
    widget_name: str


class UsagePage:
    """What a person sees and does there."""

    def __init__(self, page: Page, site: DemoSite) -> None:
        self.page = page
        self.site = site
        self.complaints: list[str] = []
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))

    def _note(self, message: ConsoleMessage) -> None:
        # The browser notes each answer of a connection that died, though the page asks again.
        is_lost = "status of 400" in message.text and "GATEWAY_DEAD_CONNECTION_EVERY" in os.environ
        if message.type == "error" and not is_lost:
            self.complaints.append(message.text)

    def open(self, owner: Owner, state: str = "") -> None:
        """Sign in, and wait until everything is there."""
        self.sign_in(owner, state)
        expect(self.page.locator(".figure")).to_have_count(4)
        self.await_figures()

    def sign_in(self, owner: Owner, state: str = "") -> None:
        self.page.goto(f"{self.site.address('/dashboard/')}{state}")
        self.page.get_by_label("Email").fill(owner.email)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Sign in").click()

    def await_figures(self) -> None:
        expect(self.page.locator("[aria-busy=true]")).to_have_count(0)

    def figure(self, title: str) -> Locator:
        return self.page.locator(f"[data-figure='{title}']")

    def panel(self, title: str) -> Locator:
        return (
            self.page.get_by_role("region", name=title, exact=True)
            .or_(self.page.locator("section.card").filter(has=self.page.get_by_role("heading", name=title, exact=True)))
            .first
        )

    def rows(self, caption: str) -> list[list[str]]:
        table = self.page.get_by_role("table", name=caption, exact=True)
        return [row.locator("th, td").all_inner_texts() for row in table.locator("tbody tr").all()]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Not for the whole run: while playwright is on, no other test could start an event loop.
    expect.set_options(timeout=_PATIENCE)
    with sync_playwright() as playwright, launch(playwright) as running:
        yield running
    expect.set_options(timeout=5_000)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A visitor in Vienna, where bills in UTC are off by an hour or two."""
    with browser.new_context(timezone_id="Europe/Vienna", viewport={"width": 1280, "height": 900}) as visitor:
        visitor.set_default_timeout(_PATIENCE)
        yield visitor


@pytest.fixture
def usage_page(context: BrowserContext, site: DemoSite) -> UsagePage:
    return UsagePage(context.new_page(), site)


@pytest.fixture(scope="module")
def site(stack: Stack) -> Iterator[DemoSite]:
    with DemoSite(url=stack.api_url, key=stack.publishable_key, widget_id=UUID(int=0)) as running:
        yield running


@pytest.fixture
def sign_up(stack: Stack, http: httpx.Client) -> Any:
    def make(email: str) -> UUID:
        answer = http.post(
            "/auth/v1/signup", headers={"apikey": stack.publishable_key}, json={"email": email, "password": PASSWORD}
        )
        answer.raise_for_status()
        return UUID(answer.json()["user"]["id"])

    return make


@pytest.fixture
def new_owner_with_widget(sign_up: Any, new_widget: NewWidget) -> Any:
    def make(name: str = "Shop voice") -> Owner:
        email = f"{uuid4()}@owner.example"
        user_id = sign_up(email)
        return Owner(user_id, email, new_widget(user_id, name=name), name)

    return make


@pytest.fixture
def owner(new_owner_with_widget: Any) -> Owner:
    made: Owner = new_owner_with_widget()
    return made


def play_call(
    db: psycopg.Connection[DictRow],
    widget_id: UUID,
    start: datetime,
    seconds: float,
    *,
    end: str = "call_end",
    source: str = "browser",
    page_url: str = "https://shop.example/cakes",
) -> str:
    """One session: loaded, opened, called."""
    session = session_name()
    record(db, widget_id, session, "widget_load", start - timedelta(seconds=20), page_url=page_url, seq=1)
    record(db, widget_id, session, "widget_open", start - timedelta(seconds=10), seq=2)
    record(db, widget_id, session, "call_start", start, call_id="c", seq=3)
    record(db, widget_id, session, end, start + timedelta(seconds=seconds), call_id="c", seq=4, source=source)
    return session


def today() -> datetime:
    """Its beginning. Not a constant: a run of the tests may go past midnight."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def days_ago(days: int, hours: float = 9) -> datetime:
    return today() - timedelta(days=days) + timedelta(hours=hours)


def axe(page: Page) -> list[str]:
    """What it finds serious or critical. Evaluated, not added as a script: the page's policy forbids that."""
    page.evaluate("""Promise.allSettled(
        document.getAnimations().filter((one) => one instanceof CSSTransition).map((one) => one.finished)
    )""")
    page.evaluate(AXE.read_text())
    answer = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{violation['id']}: {json.dumps([node['html'][:200] for node in violation['nodes']])}"
        for violation in answer["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
