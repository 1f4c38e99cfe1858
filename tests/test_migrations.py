"""How the migrations enter a project: an empty one, one that lives, and again."""

import shutil
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
from tests.support import Connection

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
