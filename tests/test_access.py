"""As whom, does what, sees what. Nothing is reachable unless it stands here."""

from uuid import UUID

import httpx
import psycopg
import pytest
from psycopg import sql

from local_stack.stack import Stack
from tests.conftest import Connect, NewOwner, NewWidget
from tests.support import Connection, clean_up, listed_rights, record
from tests.test_rules_of_cleanup import ago

API_ROLES = ("anon", "authenticated", "service_role")
VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")

# What a visitor may execute, beside which there is nothing that a visitor may do.
OPEN_TO_VISITORS = {"public.track_event", "public.track_events", "widget_internal.record_events"}
# What the company's backend may write beside the functions that it may call: never the ledger, a call or a statement.
WRITABLE = {
    "public.widgets",
    "public.widget_quotas",
    "public.widget_plans",
    "public.widget_customers",
    "public.widget_provider_agents",
}
# What only the company may do, with arguments that would do it.
COMPANY_ONLY = {
    "complete_stale_sessions": "()",
    "correct_widget_call": "(gen_random_uuid(), 's', 'c', 0, 'test', 'test')",
    "record_widget_call_evidence": "(gen_random_uuid(), 's', 'c', 'provider', 'r', now(), now(), 'completed')",
    "close_widget_billing_period": "('2026-01')",
    "record_widget_provider_call": "('vapi', 'r', started_at => now())",
    "match_widget_provider_records": "()",
}

OUR_FUNCTIONS = """
    select p.oid, n.nspname || '.' || p.proname as name, p.prosecdef, p.proconfig, p.provolatile::text, l.lanname,
      obj_description(p.oid, 'pg_proc') as comment
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace
    join pg_language l on l.oid = p.prolang
    where n.nspname in ('public', 'widget_internal')
"""

OUR_RELATIONS = """
    select c.oid, c.relkind::text, n.nspname || '.' || c.relname as name, c.relrowsecurity, c.reloptions,
      obj_description(c.oid, 'pg_class') as comment
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname in ('public', 'widget_internal')
"""


def granted_privileges(db: Connection) -> dict[tuple[str, str], set[str]]:
    """By object and role: what PostgreSQL says that each API role may do with the objects of our schemas."""
    granted: dict[tuple[str, str], set[str]] = {}
    for row in db.execute(f"{OUR_RELATIONS} and c.relkind in ('r', 'v', 'm', 'p', 'f')").fetchall():
        for role in API_ROLES:
            may = db.execute(
                "select array(select v from unnest(%s::text[]) v where has_table_privilege(%s, %s::oid, v)) as verbs",
                [list(VERBS), role, row["oid"]],
            ).fetchone()
            if may and may["verbs"]:
                granted[row["name"], role] = set(may["verbs"])
    for row in db.execute(OUR_FUNCTIONS).fetchall():
        for role in API_ROLES:
            may = db.execute(
                "select has_function_privilege(%s, %s::oid, 'EXECUTE') as may", [role, row["oid"]]
            ).fetchone()
            if may and may["may"]:
                granted[row["name"], role] = {"EXECUTE"}
    return granted


def test_r11_the_list_of_rights_is_what_is_in_force(db: Connection) -> None:
    """What each role may do, table by table and function by function, is what widget_internal.rights says."""
    listed = {(name, role): verbs for name, roles in listed_rights(db).items() for role, verbs in roles.items()}

    assert granted_privileges(db) == listed
    assert db.execute("select * from widget_internal.rights_differences()").fetchall() == []


def test_r10_visitors_may_send_events_and_nothing_else(db: Connection) -> None:
    """No table, no view, and no function but the two RPCs and what these call."""
    assert {name for name, role in granted_privileges(db) if role == "anon"} == OPEN_TO_VISITORS


def test_r10_who_may_write(db: Connection) -> None:
    """Owners write nothing; the company's backend only what a company sets."""
    writers = {
        (name, role) for (name, role), verbs in granted_privileges(db).items() if verbs & {"INSERT", "UPDATE", "DELETE"}
    }

    assert writers <= {(name, "service_role") for name in WRITABLE}
    assert {role for _, role in writers} == {"service_role"}


def test_r11_rights_hold_after_they_were_lost(db: Connection, connect: Connect, new_widget: NewWidget) -> None:
    """With the platform's default grants back visitors are refused by the functions themselves, the ledger stays as it
    is, the differences name what is too wide, and apply_rights() mends it."""
    widget_id = new_widget()
    record(db, widget_id, "s", "widget_load", ago(hours=1))
    wide = "grant all on all {} in schema public to anon, authenticated, service_role"
    for kind in ("tables", "functions", "sequences"):
        db.execute(wide.format(kind).encode())
    try:
        for role in ("anon", "authenticated"):
            for function, arguments in COMPANY_ONLY.items():
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="only the company"):
                    connect(role).execute(f"select public.{function}{arguments}".encode())
        for role in API_ROLES:
            for statement in ("delete from public.widget_analytics", "update public.widget_analytics set seq = 1"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="never changed or deleted"):
                    connect(role).execute(statement.encode())
        found = db.execute("select object, grantee, problem from widget_internal.rights_differences()").fetchall()
    finally:
        db.execute("select widget_internal.apply_rights()")

    assert {"object": "table public.widget_analytics", "grantee": "anon", "problem": "too wide"} in found
    assert {row["problem"] for row in found} == {"too wide"}
    assert db.execute("select * from widget_internal.rights_differences()").fetchall() == []


def test_r10_no_grant_hides_in_a_column_or_a_sequence(db: Connection) -> None:
    """No API role has a right on single columns, or on any sequence."""
    columns = db.execute(
        "select * from information_schema.column_privileges where table_schema in ('public', 'widget_internal')"
        " and grantee in ('PUBLIC', 'anon', 'authenticated', 'service_role') and privilege_type <> 'SELECT'"
        " and table_name not in ('widgets', 'widget_plans', 'widget_customers', 'widget_quotas',"
        " 'widget_provider_agents')"
    ).fetchall()
    sequences = db.execute(
        f"select * from ({OUR_RELATIONS} and c.relkind = 'S') s, unnest(%s::text[]) role"
        " where has_sequence_privilege(role, s.oid, 'USAGE, SELECT, UPDATE')",
        [list(API_ROLES)],
    ).fetchall()

    assert columns == []
    assert sequences == []


def test_r10_how_functions_are_made(db: Connection) -> None:
    """Each function pins its search_path, temporary objects last, and says what it does.

    In public none is stable or immutable, as a broken form would leave its connection in a read-only transaction and
    stop all events that get this connection next; and no definer is open to visitors and owners.
    """
    open_to_users = {name for name, role in granted_privileges(db) if role in ("anon", "authenticated")}
    for function in db.execute(OUR_FUNCTIONS).fetchall():
        settings = [setting for setting in function["proconfig"] if not setting.startswith("plan_cache_mode=")]
        assert [s for s in settings if s.startswith("search_path")] == ["search_path=pg_catalog, pg_temp"], function[
            "name"
        ]
        assert function["comment"], function["name"]
        if function["name"].startswith("public."):
            assert function["provolatile"] == "v", function["name"]
            assert not (function["prosecdef"] and function["name"] in open_to_users), function["name"]


def test_r10_how_relations_are_made(db: Connection) -> None:
    """Each table has row level security, each view runs as its reader, and all of them say what they are for."""
    for relation in db.execute(f"{OUR_RELATIONS} and c.relkind in ('r', 'p', 'v')").fetchall():
        assert relation["comment"], relation["name"]
        if relation["relkind"] == "v":
            assert "security_invoker=true" in relation["reloptions"], relation["name"]
        else:
            assert relation["relrowsecurity"], relation["name"]
    unexplained = db.execute(
        f"select * from ({OUR_RELATIONS} and c.relkind = 'i') i where comment is null"
        " and not exists (select from pg_constraint where conindid = i.oid)"
    ).fetchall()
    assert unexplained == []


@pytest.fixture
def two_owners(db: Connection, new_owner: NewOwner, new_widget: NewWidget) -> list[tuple[UUID, UUID]]:
    """Two owners, each with a widget that has events, calls and refusals."""
    owners = []
    for _ in range(2):
        owner_id = new_owner()
        widget_id = new_widget(owner_id)
        for hours in (1, 2, 3):
            record(
                db, widget_id, "s", "call_start", ago(hours=hours), call_id=f"c{hours}", properties={"rtt_ms": hours}
            )
        db.execute("insert into public.widget_quotas values (%s, null)", [widget_id])
        db.execute(
            "select widget_internal.count_refusals(array[(%s, 'widget_inactive', '')::widget_internal.refusal])",
            [widget_id],
        )
        record(db, widget_id, "forgotten", "widget_load", ago(hours=1), page_url="https://shop.example/")
        db.execute("select public.erase_widget_session(%s, 'forgotten')", [widget_id])
        owners.append((owner_id, widget_id))
    clean_up(db)
    db.execute("select public.refresh_widget_health()")
    return owners


# Tables and views of a widget's rows that an owner reads; of bills tests/test_billing_statements.py has the same.
OF_BILLS = (
    "public.widget_plans",
    "public.widget_statement_charges",
    "public.widget_statement_lines",
    "public.widget_customers",
    "widget_internal.compared_calls",
)
READABLE = [
    "public.widgets", "public.widget_analytics", "public.widget_calls", "widget_internal.call_states",
    "public.widget_refusals", "widget_internal.refusal_counts", "public.widget_erasures", "public.widget_quotas",
    "public.widget_health", "public.widget_pages", "public.widget_response_times",
    "widget_internal.health_hours", "widget_internal.health_pages", "widget_internal.health_response_times",
]  # fmt: skip


def test_r10_no_readable_table_is_forgotten_here(db: Connection) -> None:
    """Each table and view with a widget's rows that an owner may read stands in the list above."""
    with_widgets = db.execute(
        f"select name from ({OUR_RELATIONS} and c.relkind in ('r', 'v')) o join pg_attribute a on a.attrelid = o.oid"
        " where a.attname = 'widget_id'"
    ).fetchall()
    readable = {name for name, role in granted_privileges(db) if role == "authenticated"}

    assert {row["name"] for row in with_widgets} & readable - set(READABLE) - set(OF_BILLS) <= set()


@pytest.mark.parametrize("table", READABLE)
def test_r10_owners_see_their_own_rows(connect: Connect, two_owners: list[tuple[UUID, UUID]], table: str) -> None:
    """In every table and view an owner sees the rows of its own widgets, all of them, and no other."""
    key = "id" if table == "public.widgets" else "widget_id"
    query = sql.SQL("select distinct {} as widget_id from {}").format(
        sql.Identifier(key), sql.Identifier(*table.split("."))
    )

    for owner_id, widget_id in two_owners:
        seen = connect("authenticated", user_id=owner_id).execute(query).fetchall()
        assert seen == [{"widget_id": widget_id}]


@pytest.mark.parametrize("as_of", [None, "now"])
@pytest.mark.parametrize("function", ["widget_billing_calls", "widget_billing_usage"])
def test_r10_owners_are_billed_their_own_calls(
    connect: Connect, two_owners: list[tuple[UUID, UUID]], function: str, as_of: str | None
) -> None:
    """The bill that an owner asks for holds its own widgets alone."""
    query = f"select distinct widget_id from public.{function}('-infinity', 'infinity', %s::timestamptz)"

    for owner_id, widget_id in two_owners:
        seen = connect("authenticated", user_id=owner_id).execute(query, [as_of]).fetchall()
        assert seen == [{"widget_id": widget_id}]


def test_r10_a_stranger_sees_nothing(
    connect: Connect, two_owners: list[tuple[UUID, UUID]], new_owner: NewOwner
) -> None:
    """A signed-in user without widgets, and one whose token names nobody, see no row."""
    assert two_owners
    for user_id in (new_owner(), None):
        stranger = connect("authenticated", user_id=user_id)
        for table in READABLE:
            assert stranger.execute(f"select * from {table}").fetchall() == []


def test_r10_over_rest_too(
    stack: Stack, http: httpx.Client, db: Connection, two_owners: list[tuple[UUID, UUID]]
) -> None:
    """Over REST the publishable key reads no table, an owner's token its own rows, and internals are not there."""
    (owner_id, widget_id), _ = two_owners
    visitor = {"apikey": stack.publishable_key}
    owner = visitor | {"authorization": f"Bearer {stack.token_for(owner_id)}"}

    for relation in db.execute(f"{OUR_RELATIONS} and c.relkind in ('r', 'v')").fetchall():
        table = relation["name"].split(".")[1]
        answer = http.get(f"/rest/v1/{table}", headers=visitor)
        assert answer.status_code in (401, 403, 404), (table, answer.text)
    rows = http.get("/rest/v1/widget_calls?select=widget_id", headers=owner)
    assert rows.status_code == 200, rows.text
    assert {row["widget_id"] for row in rows.json()} == {str(widget_id)}
    for verb, query in (("DELETE", "?widget_id=not.is.null"), ("PATCH", "?widget_id=not.is.null"), ("POST", "")):
        for key in (stack.publishable_key, stack.secret_key):
            answer = http.request(
                verb, f"/rest/v1/widget_analytics{query}", json={"session_id": "x"}, headers={"apikey": key}
            )
            assert answer.status_code in (401, 403), answer.text
            assert answer.json()["code"] == "42501"
    hidden = http.post("/rest/v1/rpc/record_events", headers=visitor, json={})
    assert hidden.status_code == 404


@pytest.mark.parametrize("role", ["anon", "authenticated"])
@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("select cron.schedule('x', '* * * * *', 'select 1')", marks=pytest.mark.pg_cron),
        pytest.param("select * from cron.job", marks=pytest.mark.pg_cron),
        "select * from widget_internal.widget_calls_differences()",
        "select widget_internal.apply_rights()",
        "insert into widget_internal.settings (max_call_duration) values ('1 hour')",
        "create function widget_internal.x() returns int language sql return 1",
    ],
)
def test_r10_internals_and_the_scheduler_are_out_of_reach(connect: Connect, role: str, statement: str) -> None:
    """Visitors and owners touch neither pg_cron nor any internal."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connect(role).execute(statement.encode())


def test_r10_shadowing_is_inert(connect: Connect, new_widget: NewWidget, db: Connection) -> None:
    """Temporary tables and a search_path of the caller's change nothing that our functions do."""
    widget_id = new_widget()
    sender = connect("anon", request__headers='{"origin": "https://shop.example"}')
    sender.execute("create temp table widgets as select true is_active, true is_demo, '{*}'::text[] allowed_domains")
    sender.execute("create temp table widget_analytics (id uuid)")
    sender.execute("set search_path = pg_temp, public")

    sender.execute("select public.track_event(%s, 'call_start', 's')", [widget_id])

    stored = db.execute("select count(*) as n from public.widget_calls where widget_id = %s", [widget_id]).fetchone()
    assert stored == {"n": 1}


@pytest.mark.parametrize("name", ["text", "uuid", "jsonb", "timestamptz"])
def test_r10_shadowed_types_are_inert(connect: Connect, new_widget: NewWidget, name: str) -> None:
    """A temporary type with the name of a usual one, which runs code of the caller's, is not what our functions use."""
    widget_id = new_widget()
    sender = connect("anon", request__headers='{"origin": "https://shop.example"}')
    sender.execute(
        """
        create function pg_temp.spy() returns boolean language sql
          return set_config('spy.saw', current_user, false) is not null
        """
    )
    sender.execute(f"create domain pg_temp.{name} as pg_catalog.{name} check (pg_temp.spy())")

    sender.execute("select public.track_event(%s, 'call_start', 's')", [widget_id])

    assert sender.execute("select current_setting('spy.saw', true) as user").fetchone() in (
        {"user": None},
        {"user": ""},
    )
