"""How the migrations enter a project: an empty one, one that lives, and again."""

import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from local_stack import schema
from local_stack.places import SUPABASE
from local_stack.postgres_server import complete_server
from local_stack.stack import Stack
from tests.conftest import FreshDatabase
from tests.support import Connection, record

MIGRATIONS = SUPABASE / "migrations"

# A project that already lives: a widgets table of its own, teams, roles, wide default grants, a cron job, a policy.
LIVING_PROJECT = """
create role reporting nologin;
grant reporting to postgres;
alter default privileges for role postgres in schema public grant select on tables to reporting;
alter default privileges for role postgres grant execute on functions to reporting;
create schema shop;
create table public.teams (id uuid primary key default gen_random_uuid(), name text);
create table public.team_members (team_id uuid references public.teams, user_id uuid, primary key (team_id, user_id));
create table public.widgets (
  id uuid primary key default gen_random_uuid(), team_id uuid references public.teams, hosts text, enabled boolean
);
alter table public.widgets enable row level security;
create policy "anyone may look" on public.widgets for select using (true);
grant select on public.widgets to reporting;
create table shop.orders (id bigint generated always as identity primary key, note text);
create view public.recent_orders as select * from shop.orders;
create function public.order_count() returns bigint language sql as 'select count(*) from shop.orders';
create table public.sessions (id int);
select cron.schedule('nightly', '0 3 * * *', 'vacuum');
"""

# What docs/operations.md tells such a project to do: two bodies replaced, one file left out.
ADAPTED_OWNERSHIP = {
    "select w.id from public.widgets w where w.owner_id = (select auth.uid())": """
      select w.id from public.widgets w join public.team_members m using (team_id) where m.user_id = (select auth.uid())
    """,
    "select w.is_active, w.is_demo, w.allowed_domains": "select w.enabled, false, string_to_array(w.hosts, ' ')",
}

# All of the catalog that says what is there and who may do what. Internal triggers are those of foreign keys.
SNAPSHOT = {
    "relations": """
        select c.oid::regclass::text as name, relkind::text, relacl::text, relrowsecurity, relowner::regrole::text
        from pg_class c where relnamespace not in ('pg_toast'::regnamespace, 'pg_catalog'::regnamespace)
    """,
    "columns": """
        select c.oid::regclass || '.' || attname as name, atttypid::regtype::text, attacl::text, attnotnull
        from pg_attribute join pg_class c on c.oid = attrelid
        where c.oid >= 16384 and attnum > 0 and relkind in ('r', 'v', 'p', 'c')
    """,
    "functions": """
        select oid::regprocedure::text as name, proacl::text, prosecdef, proconfig::text, md5(prosrc) from pg_proc
    """,
    "policies": """
        select schemaname || '.' || tablename || ': ' || policyname as name, roles::text, cmd, qual, with_check
        from pg_policies
    """,
    "triggers": """
        select tgrelid::regclass || ': ' || tgname as name, tgenabled::text from pg_trigger where not tgisinternal
    """,
    "schemas": "select nspname as name, nspacl::text from pg_namespace where nspname !~ '^pg_(toast_)?temp'",
    "default privileges": """
        select coalesce(defaclnamespace::regnamespace::text, '') || defaclrole::regrole || defaclobjtype::text as name,
          defaclacl::text
        from pg_default_acl
    """,
    "roles": "select rolname as name, rolsuper, rolbypassrls, rolcreaterole, rolconfig::text from pg_roles",
    "memberships": "select roleid::regrole || ' to ' || member::regrole as name, admin_option from pg_auth_members",
    "settings": "select setdatabase || ' ' || setrole as name, setconfig::text from pg_db_role_setting",
    "extensions": "select extname as name, extversion from pg_extension",
    "event triggers": "select evtname as name, evtenabled::text from pg_event_trigger",
    "publications": "select pubname as name, puballtables from pg_publication",
    "cron jobs": "select jobname as name, schedule, command, active from cron.job",
}


def snapshot(db: Connection) -> dict[str, dict[str, Any]]:
    return {
        what: {row["name"]: row for row in db.execute(query.encode()).fetchall()} for what, query in SNAPSHOT.items()
    }


@pytest.fixture
def living(fresh_database: FreshDatabase, tmp_path: Path) -> tuple[Stack, Path]:
    """The database of a living project, and our migrations as its people have adapted them."""
    stack = fresh_database(migrate=False)
    with psycopg.connect(stack.database_url, autocommit=True) as db:
        db.execute(LIVING_PROJECT.encode())
    folder = tmp_path / "supabase" / "migrations"
    shutil.copytree(MIGRATIONS, folder)
    shutil.copy(SUPABASE / "config.toml", tmp_path / "supabase")
    next(folder.glob("*_widgets.sql")).unlink()
    ownership = next(folder.glob("*_widget_ownership.sql"))
    text = ownership.read_text()
    for ours, theirs in ADAPTED_OWNERSHIP.items():
        assert ours in text
        text = text.replace(ours, theirs)
    ownership.write_text(text)
    return stack, tmp_path


def test_a_living_project_adopts_this_and_keeps_its_own(living: tuple[Stack, Path]) -> None:
    """Nothing that was there changes, and all that is new has our names."""
    stack, workdir = living
    with psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as db:
        before = snapshot(db)
        stack.push_migrations(workdir=workdir)
        after = snapshot(db)

    for what, rows in before.items():
        assert {name: after[what].get(name) for name in rows} == rows, what
    added = [name for what in after for name in after[what] if name not in before[what]]
    ours = ("widget", "track_event", "complete_stale_sessions", "supabase_migrations")
    strange = [name for name in added if not any(part in name for part in ours)]
    assert strange == [], " ".join(strange)


def test_a_living_project_bills_by_its_own_teams(living: tuple[Stack, Path]) -> None:
    """With its own widgets table and teams, events are taken by its hosts and seen by its members alone."""
    stack, workdir = living
    stack.push_migrations(workdir=workdir)
    with psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as db:
        row = db.execute(
            """
            with team as (insert into teams (name) values ('a') returning id),
              member as (insert into team_members select id, gen_random_uuid() from team returning user_id),
              widget as (
                insert into widgets (team_id, hosts, enabled)
                select id, 'a.example b.example', true from team returning id
              )
            select member.user_id, widget.id from member, widget
            """
        ).fetchone()
        assert row is not None
        db.execute("""set request.headers = '{"origin": "https://b.example"}'""")
        answer = db.execute("select track_event(%s, 'call_start', 's') as answer", [row["id"]]).fetchone()
        assert answer is not None
        assert answer["answer"]["accepted"] == 1

        seen = []
        for user_id in (row["user_id"], "00000000-0000-0000-0000-000000000000"):
            with db.transaction():
                db.execute("select set_config('request.jwt.claims', %s, true)", [f'{{"sub": "{user_id}"}}'])
                db.execute("set local role authenticated")
                seen.append(len(db.execute("select * from widget_calls").fetchall()))
        assert seen == [1, 0]


def test_a_widgets_table_that_is_there_is_not_touched(fresh_database: FreshDatabase) -> None:
    """Pushed unadapted onto a project with its own widgets table, the migrations stop and say so."""
    stack = fresh_database(migrate=False)
    with psycopg.connect(stack.database_url, autocommit=True) as db:
        db.execute("create table public.widgets (id uuid primary key, mine text)")

        with pytest.raises(RuntimeError, match='relation "widgets" already exists'):
            stack.push_migrations()

        columns = db.execute("select attname from pg_attribute where attrelid = 'widgets'::regclass and attnum > 0")
        assert columns.fetchall() == [("id",), ("mine",)]


# What a project had before the migrations that came after the first release.
FIRST_RELEASE = "20261101*.sql"
EVENT_TYPES = ("widget_load", "widget_open", "call_start", "call_heartbeat", "call_end", "call_error")
SOURCES = ("browser", "server", "provider", "operator", "inferred")
JANUARY = datetime(2026, 1, 1, tzinfo=UTC)

# Whatever the first release keeps or computes: it must read the same afterwards.
KEPT = {
    "events": "select * from public.widget_analytics order by id",
    "calls": "select * from public.widget_calls order by widget_id, session_id, call_id",
    "bill by call": "select * from public.widget_billing_calls('2026-01-01', '2026-03-01') order by 1, 2, 3",
    "bill": "select * from public.widget_billing_usage('2026-01-01', '2026-03-01') order by widget_id",
    "bill as of a past moment": """
        select * from public.widget_billing_usage('2026-01-01', '2026-03-01', '2026-02-10') order by widget_id
    """,
    "statements": "select * from public.widget_billing_periods order by 1",
    "charges": "select * from public.widget_statement_charges order by period, widget_id, usage_period",
    "lines": """
        select * from public.widget_statement_lines order by period, usage_period, widget_id, session_id, call_id
    """,
    "adjustments": "select * from public.widget_pending_adjustments() order by 1, 2, 3, 4",
    "plans": "select * from public.widget_plans order by widget_id, valid_from",
    "widgets": "select * from public.widgets order by id",
    "refusals": "select * from public.widget_refusals order by hour, reason",
    "cleanups": "select * from public.widget_cleanup_runs order by id",
}


def live_for_two_months(db: Connection) -> None:
    """Events of every type and source, with gaps and without ids, a plan, a correction, a closed month, a late end."""
    dice = random.Random(6)  # noqa: S311 a simulation, not a secret
    widget_ids = [
        row["id"]
        for row in db.execute("insert into public.widgets (name) values ('Voice'), ('Chat') returning id").fetchall()
    ]
    db.execute(
        "insert into public.widget_plans (widget_id, valid_from, name, minimum_seconds, increment_seconds,"
        " included_seconds, price_per_minute, currency) values (%s, '2026-01-01', 'Pro', 30, 6, 60, 0.10, 'EUR')",
        [widget_ids[0]],
    )
    for number in range(600):
        happened_at = JANUARY + timedelta(seconds=dice.randrange(58 * 86_400))
        kind, source = EVENT_TYPES[number % 6], SOURCES[number // 6 % 5]
        told: Any = {"duration_seconds": dice.randrange(500), "reason": "agreed", "corrected_by": "bob", "login": "x"}
        record(
            db,
            dice.choice(widget_ids),
            f"s{dice.randrange(60)}",
            kind,
            happened_at,
            source=source,
            call_id=dice.choice(["a", "b", None]) if kind.startswith("call") else None,
            seq=dice.choice([None, number + 1]),
            page_url=dice.choice([None, "https://shop.example/cart"]),
            user_agent=dice.choice([None, "agent"]),
            properties=told if source in ("operator", "provider") else dice.choice([None, {"rtt_ms": 7}]),
            received_at=happened_at + timedelta(hours=dice.choice([0, 0, 0, 30])),
        )
    record(db, widget_ids[0], "kept", "call_start", JANUARY + timedelta(days=3), call_id="c")
    db.execute("select public.correct_widget_call(%s, 'kept', 'c', 77, 'agreed', 'bob')", [widget_ids[0]])
    db.execute("select public.track_event(gen_random_uuid(), 'widget_load', 's')")
    db.execute("select public.complete_stale_sessions()")
    db.execute("select public.close_widget_billing_period('2026-01')")
    late = JANUARY + timedelta(days=3, minutes=9)
    record(db, widget_ids[1], "late", "call_start", late, call_id="c")
    record(db, widget_ids[1], "late", "call_end", late + timedelta(seconds=99), call_id="c", source="provider")


def test_a_project_of_the_first_release_takes_what_came_after(fresh_database: FreshDatabase, tmp_path: Path) -> None:
    """With two months of data and a closed one: every event, call, bill and statement reads the same afterwards."""
    folder = tmp_path / "supabase" / "migrations"
    folder.mkdir(parents=True)
    for migration in MIGRATIONS.glob(FIRST_RELEASE):
        shutil.copy(migration, folder)
    shutil.copy(SUPABASE / "config.toml", tmp_path / "supabase")
    stack = fresh_database(migrate=False)
    stack.push_migrations(workdir=tmp_path)

    with psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as db:
        live_for_two_months(db)
        before = {what: db.execute(query.encode()).fetchall() for what, query in KEPT.items()}
        stack.push_migrations()
        after = {what: db.execute(query.encode()).fetchall() for what, query in KEPT.items()}
        wrong = {
            function: db.execute(f"select * from {function}()".encode()).fetchall()
            for function in ("public.broken_widget_statements", "widget_internal.widget_calls_differences")
        }
        db.execute("select public.refresh_widget_health()")
        wrong["health"] = db.execute("select * from widget_internal.health_differences()").fetchall()
        closed = db.execute("select * from public.close_widget_billing_period('2026-02')").fetchone()

    assert {(row["event_type"], row["source"]) for row in before["events"]} == {
        (kind, source) for kind in EVENT_TYPES for source in SOURCES
    }
    assert all(before.values()), "there is something of everything"
    for what, rows in before.items():
        # A later release may add a column.
        known = [{name: row.get(name) for name in rows[0]} for row in after[what]]
        assert known == rows, what
    assert not any(wrong.values()), wrong
    assert closed is not None


def test_schema_sql_is_what_the_migrations_make(stack: Stack) -> None:
    """supabase/schema.sql is current; if this fails, run scripts/schema and look at what changed."""
    server = complete_server()
    assert server is not None
    if server.major_version != 15:
        pytest.skip("the dump is made by PostgreSQL 15, and other versions write the same schema differently")

    assert schema.PATH.read_text() == schema.dump(stack)


def test_each_migration_says_why(stack: Stack) -> None:
    """A migration opens with one sentence of why, and is one concern long."""
    for migration in MIGRATIONS.glob("*.sql"):
        lines = migration.read_text().splitlines()
        assert lines[0].startswith("-- "), migration.name
        assert lines[0].endswith(".") or lines[1].startswith("-- "), migration.name
        assert len(lines) <= 400, migration.name
