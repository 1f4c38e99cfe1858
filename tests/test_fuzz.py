"""What no sender can do, whatever it sends; scripts/fuzz sends more of it."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.rows import dict_row

from local_stack.stack import Stack
from tests.fuzz.senders import fuzz, nothing_else_changes, reach_the_limits
from tests.fuzz.stage import stage
from tests.fuzz.tenants import roam
from tests.fuzz.world import make_world
from tests.support import Connection


def test_bad_input_breaks_nothing(stack: Stack) -> None:
    """No 5xx; what is accepted, and only that, is stored; the good in a batch is taken; refusals name their field."""
    with stage(stack) as at, nothing_else_changes(at.db):
        at_the_limits, accepted_there = reach_the_limits(at.target)
        seen, accepted = fuzz(at.target, count=400, seed=6)

        assert at.stored() == accepted + accepted_there

    assert {"400 22023, the field is named", "403 42501, the field is named", "events rejected by name"} <= set(+seen)
    assert at_the_limits["413 54000, the field is named"] == 1


@pytest.fixture(scope="module")
def own_db() -> Iterator[Connection]:
    """Of its own, as two months are closed in it."""
    with (
        Stack(durable=False, gateway=False) as stack,
        psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as connection,
    ):
        yield connection


def test_no_statement_sees_or_changes_what_is_anothers(own_db: Connection) -> None:
    """Every table, view and function as every role: own rows alone, also by shadowing tables and error messages."""
    world = make_world(own_db)

    seen = roam(own_db, world, count=200, seed=6)

    assert seen["answers with rows"] > 30
    assert seen["refused (42501)"] > 50
