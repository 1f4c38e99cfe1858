"""A database of its own for tests that close months, as a closed month stays closed.

A test module that names this in `pytest_plugins` has one, and takes `books_db` for its `db`. Each test has a year of
its own, the next one an earlier one, so that none leaves earlier months open to the others.
"""

import itertools
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.rows import dict_row

from local_stack.postgres_server import PostgresServer
from local_stack.stack import Stack
from tests.billing_books import Open
from tests.support import Connection

_years = itertools.count(2019, -1)


@pytest.fixture(scope="module")
def books(server: PostgresServer | None) -> Iterator[Stack]:
    """A database with closed months."""
    with Stack(durable=False, scheduler=server is None, jobs=False, gateway=False, server=server) as stack:
        yield stack


@pytest.fixture
def open_db(books: Stack) -> Iterator[Open]:
    opened: list[Connection] = []

    def open_one() -> Connection:
        opened.append(psycopg.connect(books.database_url, autocommit=True, row_factory=dict_row))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture
def books_db(open_db: Open) -> Connection:
    return open_db()


@pytest.fixture
def year() -> int:
    return next(_years)
