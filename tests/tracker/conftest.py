"""A real browser on the demo site, the real API behind a proxy that can fail, and the ledger to look into."""

from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from psycopg.rows import DictRow

from local_stack.chromium import launch
from local_stack.demo_site import DemoSite
from local_stack.stack import Stack
from local_stack.unreliable_proxy import UnreliableProxy
from tests.conftest import NewWidget
from tests.tracker.ledger import Ledger


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Not for the whole run: while playwright is on, no other test could start an event loop.
    with sync_playwright() as playwright, launch(playwright) as running:
        yield running


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A visitor with an empty storage."""
    with browser.new_context() as visitor:
        visitor.set_default_timeout(30_000)
        yield visitor


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def widget_id(new_widget: NewWidget) -> UUID:
    return new_widget(allowed_domains=("127.0.0.1", "shop.example", "vendor.example"))


@pytest.fixture
def ledger(db: psycopg.Connection[DictRow], widget_id: UUID) -> Ledger:
    return Ledger(db, widget_id)


@pytest.fixture
def proxy(stack: Stack) -> Iterator[UnreliableProxy]:
    with UnreliableProxy(stack.api_url) as running:
        yield running


@pytest.fixture
def site(stack: Stack, proxy: UnreliableProxy, widget_id: UUID) -> Iterator[DemoSite]:
    with DemoSite(url=proxy.url, key=stack.publishable_key, widget_id=widget_id) as running:
        yield running
