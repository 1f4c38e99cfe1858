"""How the migrations enter a project: an empty one, one that lives, and again."""

import re
import shutil
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from local_stack import baseline, new_migration
from local_stack.migrations import supabase
from local_stack.places import SUPABASE
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
    ownership = next(folder.glob("*_widget_helpers.sql"))
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


def test_the_baseline_is_what_the_schemas_say() -> None:
    """If this fails, run scripts/baseline and look at what changed."""
    assert baseline.stale(baseline.baseline()) == []


def test_schemas_and_migrations_make_the_same_database(fresh_database: FreshDatabase, tmp_path: Path) -> None:
    """Neither the CLI's own comparison nor the catalog finds a difference."""
    by_migrations, by_schemas = fresh_database(), fresh_database(migrate=False)
    found = {}
    with psycopg.connect(by_schemas.database_url, autocommit=True) as db:
        for path in sorted(baseline.SCHEMAS.rglob("*.sql")):
            db.execute(path.read_bytes())
    for name, stack in (("schemas", by_schemas), ("migrations", by_migrations)):
        with psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as db:
            found[name] = snapshot(db)

    difference = tmp_path / "difference.sql"
    supabase(
        "db", "diff", f"--from={by_schemas.database_url}", f"--to={by_migrations.database_url}", "--use-pg-delta",
        "-o", str(difference), home=tmp_path,
    )  # fmt: skip

    assert not difference.exists() or difference.read_text().strip() == ""
    for what, rows in found["schemas"].items():
        theirs = {name: row for name, row in found["migrations"][what].items() if "supabase_migrations" not in name}
        assert theirs == rows, what


@pytest.mark.parametrize("sets", [tuple(baseline.set_names()[:n]) for n in range(1, len(baseline.set_names()))])
def test_a_project_may_stop_after_any_set(fresh_database: FreshDatabase, tmp_path: Path, sets: tuple[str, ...]) -> None:
    """Without the sets above it functions name nothing that is missing, events make calls, rights are as listed."""
    folder = tmp_path / "supabase" / "migrations"
    folder.mkdir(parents=True)
    shutil.copy(SUPABASE / "config.toml", tmp_path / "supabase")
    for migration in baseline.baseline(list(sets)):
        shutil.copy(migration.path, folder)
    stack = fresh_database(migrate=False)
    stack.push_migrations(workdir=tmp_path)

    with psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as db:
        widget = db.execute("insert into widgets (allowed_domains) values ('{*}') returning id").fetchone()
        assert widget is not None
        db.execute("select track_event(%s, 'call_start', 's', age_ms => 7200000)", [widget["id"]])
        db.execute("select * from complete_stale_sessions()")
        calls = db.execute("select duration_seconds, evidence from widget_calls").fetchall()
        differences = db.execute("select * from widget_internal.rights_differences()").fetchall()
    with psycopg.connect(stack.superuser_url, autocommit=True) as superuser:
        faults = superuser.execute(CHECKED_FUNCTIONS).fetchall()

    assert calls == [{"duration_seconds": 1800, "evidence": "assumed"}]
    assert differences == []
    assert faults == []


CHECKED_FUNCTIONS = """
    select p.oid::regprocedure::text, c.*
    from pg_proc p
    join pg_language l on l.oid = p.prolang and l.lanname = 'plpgsql'
    left join pg_trigger t on t.tgfoid = p.oid
    cross join lateral extensions.plpgsql_check_function(
      p.oid, coalesce(t.tgrelid, 0), oldtable => t.tgoldtable, newtable => t.tgnewtable, performance_warnings => false,
      extra_warnings => false
    ) c
    where p.pronamespace in ('public'::regnamespace, 'widget_internal'::regnamespace)
      and (p.prorettype <> 'trigger'::regtype or t.oid is not null) and c like 'error%'
"""


def test_a_migration_carries_what_the_schemas_say() -> None:
    """A function's text is copied, never written twice."""
    text = new_migration.function_text("widget_internal.event_types")

    assert text.startswith("create or replace function widget_internal.event_types()")
    assert "comment on function widget_internal.event_types() is" in text
    with pytest.raises(SystemExit, match="found 0 times"):
        new_migration.function_text("widget_internal.event")


def test_schema_files_are_small_and_say_what_they_hold() -> None:
    """A file opens with a sentence of what it holds, and is one concern long; no function is defined twice."""
    defined: list[str] = []
    for path in sorted(baseline.SCHEMAS.rglob("*.sql")):
        lines = path.read_text().splitlines()
        assert lines[0].startswith("-- "), path.name
        defined += re.findall(
            r"^create (?:or replace )?(?:function|table|view) ([a-z_.]+)", path.read_text(), re.MULTILINE
        )
        code = [line for line in lines if line.strip() and not line.lstrip().startswith("--")]
        assert len(code) <= 250, path.name

    assert sorted(defined) == sorted(set(defined))
