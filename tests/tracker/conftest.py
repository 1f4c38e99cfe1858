"""A real browser on the demo site, the real API behind a proxy that can fail, and the ledger to look into."""

from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import DictRow

from local_stack.browsers import Browser, Tab, Visitor, launch
from local_stack.browsers.connection import Connection
from local_stack.demo_site import DemoSite
from local_stack.stack import Stack
from local_stack.unreliable_proxy import UnreliableProxy
from tests.conftest import NewWidget
from tests.engines import parametrize_engine
from tests.tracker.ledger import Ledger


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize_engine(metafunc)


@pytest.fixture(scope="module")
def browser(engine: str) -> Iterator[Browser]:
    # Not for the whole run: while playwright is on, no other test could start an event loop.
    with launch(engine) as running:
        yield running


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    """Somebody with an empty storage."""
    somebody = browser.new_visitor()
    yield somebody
    somebody.close()


@pytest.fixture
def tab(visitor: Visitor) -> Tab:
    return visitor.new_tab()


@pytest.fixture
def connection(visitor: Visitor, proxy: UnreliableProxy) -> Iterator[Connection]:
    """The visitor's network."""
    made = Connection(visitor, proxy)
    yield made
    made.restore()


@pytest.fixture
def widget_id(new_widget: NewWidget) -> UUID:
    return new_widget(allowed_domains=("127.0.0.1", "shop.localhost", "vendor.localhost"))


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
