"""`widget-analytics doctor`, against a stack."""

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import DictRow

from local_stack.places import SUPABASE
from local_stack.stack import Stack
from tests.client_support import environment, run
from tests.test_cli_deadlines import slow_gateway
from widget_analytics._doctor_database import MIGRATIONS


def test_a_test_event_comes_back_and_is_no_call(stack: Stack, db: psycopg.Connection[DictRow], tmp_path: Path) -> None:
    """It is stored once, and no call came of it; the browser's way is well."""
    widget = uuid4()
    db.execute(
        "insert into public.widgets (id, name, allowed_domains) values (%s, 'Doctor', '{shop.example}')", [widget]
    )
    env = environment(stack, SUPABASE_PUBLISHABLE_KEY=stack.publishable_key)

    done = run(env, tmp_path, "doctor", "--json", "--widget", str(widget))

    found = {one["check"]: one for one in json.loads(done.stdout)}
    for check in (
        "secret key",
        "publishable key",
        "api",
        "clock",
        "rights",
        "browser",
        "test event",
        "cleanup function",
    ):
        assert found[check]["result"] == "well", found[check]
    stored = db.execute("select event_type from public.widget_analytics where widget_id = %s", [widget]).fetchall()
    calls = db.execute("select from public.widget_calls where widget_id = %s", [widget]).fetchall()
    assert (stored, calls) == ([{"event_type": "widget_load"}], [])


def test_rights_that_came_back_are_named(stack: Stack, db: psycopg.Connection[DictRow], tmp_path: Path) -> None:
    """Exit code 15, and the statement that takes them away."""
    db.execute("grant execute on function public.complete_stale_sessions(interval) to anon")
    done = run(environment(stack), tmp_path, "doctor")
    db.execute("select widget_internal.apply_rights()")

    assert done.returncode == 15
    line = next(line for line in done.stdout.splitlines() if line.startswith("rights "))
    assert "problem" in line
    assert "select widget_internal.apply_rights()" in line


def test_a_key_of_another_project_or_kind(stack: Stack, tmp_path: Path) -> None:
    """Each is named with its setting."""
    env = environment(stack, SUPABASE_PUBLISHABLE_KEY=stack.secret_key)
    swapped = run(env, tmp_path, "doctor")
    foreign = run(environment(stack, SUPABASE_SECRET_KEY="sb_secret_of_another_project"), tmp_path, "doctor")

    assert "SUPABASE_PUBLISHABLE_KEY holds no publishable key" in swapped.stdout
    assert "SUPABASE_SECRET_KEY is not this project's" in foreign.stdout
    assert (swapped.returncode, foreign.returncode) == (15, 15)


def test_an_address_that_is_no_project(stack: Stack, tmp_path: Path) -> None:
    """A web server that knows no such page is no project without a schema."""
    with slow_gateway(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as url:
        done = run(environment(stack, SUPABASE_URL=url, WIDGET_ANALYTICS_TIMEOUT="2"), tmp_path, "doctor")

    assert "HTTP 404: check SUPABASE_URL" in done.stdout
    assert "db push" not in done.stdout


@pytest.fixture
def history(db: psycopg.Connection[DictRow]) -> Iterator[None]:
    """The history of migrations, which is the test's own to change."""
    kept = db.execute("select version, name from supabase_migrations.schema_migrations").fetchall()
    yield
    db.execute("delete from supabase_migrations.schema_migrations")
    for row in kept:
        db.execute(
            "insert into supabase_migrations.schema_migrations (version, name) values (%(version)s, %(name)s)", row
        )


FORGOTTEN = "delete from supabase_migrations.schema_migrations where name "
FUTURE = "insert into supabase_migrations.schema_migrations (version, name) values ('20990101000000', '{}')"


@pytest.mark.parametrize(
    ("change", "result", "message"),
    [
        ("select", "well", "all of release"),
        (f"{FORGOTTEN} = 'widgets' or name like '%schedule'", "well", "all of release"),
        (f"{FORGOTTEN} = 'widget_page'", "problem", "_widget_page not applied: run `supabase db push --include-all`"),
        (f"{FORGOTTEN} like 'widget_providers%' or name = 'widget_push'", "skipped", "_widget_providers, "),
        (FUTURE.format("widget_analytics_colours"), "problem", "20990101000000_widget_analytics_colours, this command"),
        (FUTURE.format("widgets_of_the_project"), "well", "all of release"),
        (f"{FORGOTTEN} like 'widget%'", "skipped", "history has none of them"),
    ],
)
@pytest.mark.usefixtures("history")
def test_migrations(
    stack: Stack, db: psycopg.Connection[DictRow], tmp_path: Path, change: str, result: str, message: str
) -> None:
    """All there, none newer; what may be left out, and what is the project's own, is no problem."""
    db.execute(change.encode())

    done = run(environment(stack), tmp_path, "doctor", "--json")

    found = {one["check"]: one for one in json.loads(done.stdout)}["migrations"]
    assert found["result"] == result, found
    assert message in found["message"]


def test_the_release_knows_its_migrations() -> None:
    """The command's list is that of the folder."""
    assert sorted(path.stem for path in (SUPABASE / "migrations").glob("*.sql")) == list(MIGRATIONS)
