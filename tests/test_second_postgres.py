"""The migrations also make a working project on PostgreSQL 18, without pg_cron; scripts/test-postgres-18 tests more."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.rows import dict_row

from local_stack.postgres_server import embedded_server
from local_stack.stack import Stack
from tests.conftest import Connection
from tests.support import record

# What is there, and who may do what with it: the same on every version.
MADE = """
    select 'function ' || oid::regprocedure as name, prosecdef::text || proconfig::text || proacl::text as what
    from pg_proc where pronamespace in ('public'::regnamespace, 'widget_internal'::regnamespace)
    union all
    select 'column ' || attrelid::regclass || '.' || attname, format_type(atttypid, atttypmod) || attnotnull
    from pg_attribute join pg_class c on c.oid = attrelid
    where attnum > 0 and relnamespace in ('public'::regnamespace, 'widget_internal'::regnamespace)
    union all
    select 'rights on ' || c.oid::regclass, string_agg(distinct grantee::regrole || ' ' || privilege_type, ', ')
    from pg_class c, aclexplode(relacl)
    where relnamespace in ('public'::regnamespace, 'widget_internal'::regnamespace) and relkind <> 'i'
      and (privilege_type, grantee) <> ('MAINTAIN', relowner)  -- since PostgreSQL 17
    group by c.oid
    union all
    select 'policy ' || schemaname || '.' || tablename || ': ' || policyname, roles::text || cmd || qual
    from pg_policies
    union all
    select 'trigger ' || tgrelid::regclass || ': ' || tgname, tgenabled::text from pg_trigger where not tgisinternal
    order by 1
"""


@pytest.fixture(scope="module")
def second() -> Iterator[Connection]:
    with (
        Stack(durable=False, gateway=False, scheduler=False, server=embedded_server()) as stack,
        psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as connection,
    ):
        yield connection


def test_the_migrations_make_the_same_on_both(second: Connection, db: Connection) -> None:
    """Functions, columns, rights, policies and triggers are the same as on the first version, which is another one."""
    versions = {connection.info.server_version // 10_000 for connection in (db, second)}

    here, there = ({row["name"]: row["what"] for row in c.execute(MADE).fetchall()} for c in (db, second))

    assert len(versions) == 2
    ours = {name: what for name, what in here.items() if name in there or "widget" in name}
    assert there == ours


def test_an_event_becomes_a_call_and_a_bill(second: Connection) -> None:
    """Through the door as a visitor, by the ledger's own clock, and by a stale end of the cleanup."""
    row = second.execute(
        "insert into public.widgets (name, allowed_domains) values ('Shop', '{shop.example}') returning id"
    ).fetchone()
    assert row is not None
    month = datetime(2026, 3, 1, tzinfo=UTC)
    with second.transaction():
        second.execute("set local role anon")
        second.execute("""set local request.headers = '{"origin": "https://shop.example"}'""")
        answer = second.execute("select public.track_event(%s, 'call_start', 'now') as said", [row["id"]]).fetchone()
    record(second, row["id"], "ended", "call_start", month)
    record(second, row["id"], "ended", "call_end", month + timedelta(seconds=95))
    record(second, row["id"], "stale", "call_start", month)

    second.execute("select * from public.complete_stale_sessions()")

    assert answer is not None
    assert answer["said"]["accepted"] == 1
    (bill,) = second.execute(
        "select calls, billable_seconds from public.widget_billing_usage(%s, %s)", [month, month + timedelta(days=31)]
    ).fetchall()
    assert bill == {"calls": 2, "billable_seconds": 95 + 30 * 60}
    assert second.execute("select * from widget_internal.widget_calls_differences()").fetchall() == []
