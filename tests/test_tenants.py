"""Made-up statements: no owner is told of another's rows; `scripts/fuzz --tenants` asks more of them."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.rows import dict_row

from local_stack.postgres_server import PostgresServer
from local_stack.stack import Stack
from tests.fuzz.tenants import Leak, roam
from tests.fuzz.world import World, make_world
from tests.support import Connection


@pytest.fixture(scope="module")
def own_db(server: PostgresServer | None) -> Iterator[Connection]:
    """As superuser, in a database of its own: months are closed in it."""
    with (
        Stack(durable=False, jobs=False, gateway=False, server=server, scheduler=server is None) as stack,
        psycopg.connect(stack.superuser_url, autocommit=True, row_factory=dict_row) as connection,
    ):
        if server is None:
            connection.execute("select cron.unschedule(jobid) from cron.job")
        yield connection


@pytest.fixture(scope="module")
def world(own_db: Connection) -> World:
    return make_world(own_db)


def test_no_statement_tells_or_changes_what_is_anothers(own_db: Connection, world: World) -> None:
    """Every table, view and function as every role: the same answers as if no other owner had a row."""
    seen = roam(own_db, world, count=400, seed=6)

    assert seen["the same without the rows of others"] > 90
    assert seen["answers with rows"] > 60
    assert seen["refused (42501)"] > 90
    assert seen["writes of the ledger, refused"] > 3


HOLES = {
    "a policy for everybody": (
        "public.widget_analytics",
        "create policy x on public.widget_analytics for select to authenticated using (true)",
        "was told",
    ),
    "a view that runs as its owner": (
        "public.widget_refusals",
        "alter view public.widget_refusals set (security_invoker = false)",
        "was told",
    ),
    "sums over everybody, which name nobody": (
        "public.widget_month_to_date",
        "alter function public.widget_month_to_date security definer",
        "without the rows of others",
    ),
    "who may delete events": (
        "public.widget_analytics",
        "grant delete on public.widget_analytics to service_role;"
        " alter table public.widget_analytics disable trigger a_ledger_is_kept",
        "may not do this|deleted events",
    ),
}


@pytest.mark.parametrize("hole", HOLES)
def test_a_hole_is_found(own_db: Connection, world: World, hole: str) -> None:
    """What is opened on purpose is found within a few statements about it, and called what it is."""
    name, opening, finding = HOLES[hole]

    with own_db.transaction(force_rollback=True):
        own_db.execute(opening.encode())
        with pytest.raises(Leak, match=finding):
            roam(own_db, world, count=200, seed=6, about=[name])
