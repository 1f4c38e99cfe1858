"""docs/existing-project.md, followed by a project with migrations, a widgets table and teams of its own."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from playwright.sync_api import expect, sync_playwright
from psycopg.rows import dict_row

from local_stack.browsers.chromium import launch
from local_stack.demo_site import DemoSite
from local_stack.places import ROOT
from local_stack.stack import Stack
from tests.reader import Reader, blocks
from tests.test_migrations import LIVING_PROJECT

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Path]]:
    """A project that has pushed a migration newer than any of ours, and the folder that it pushed it from."""
    folder = tmp_path_factory.mktemp("folders")
    shutil.copytree(ROOT / "supabase", folder / "widget-analytics" / "supabase")
    own = folder / "project" / "supabase"
    (own / "migrations").mkdir(parents=True)
    (own / "functions").mkdir()
    (own / "migrations" / "20991231000000_shop.sql").write_text(LIVING_PROJECT)
    (own / "config.toml").write_text('project_id = "shop"\n')
    (folder / "project" / "node_modules").symlink_to(ROOT / "node_modules")
    with Stack(durable=False, migrate=False, jobs=False) as stack:
        stack.push_migrations(workdir=folder / "project")
        yield stack, folder / "project"


def test_it_is_adopted(project: tuple[Stack, Path]) -> None:
    """Files copied, one left out, two bodies replaced, pushed: the project's own hosts decide, and its members see."""
    stack, folder = project
    reader = Reader(folder=folder, database_url=stack.database_url, names={})
    copying, settings, leaving_out, helpers, pushing, checks, columns, policy, daily = blocks(
        "docs/existing-project.md"
    )

    reader.run(copying)
    with (folder / "supabase" / "config.toml").open("a") as file:
        file.write(settings.text)
    reader.run(leaving_out)
    [migration] = (folder / "supabase" / "migrations").glob("*_widget_helpers.sql")
    migration.write_text(helpers.text)
    reader.run(pushing)
    rows = reader.run(checks)
    for block in (columns, policy, daily):
        reader.run(block)
    stack.restart_gateway()

    assert [line.strip() for line in rows.splitlines() if line.strip() and "-+-" not in line] == [
        "object | grantee | privilege | problem", "alarm | message",
    ]  # fmt: skip
    functions = {path.name for path in (folder / "supabase" / "functions").iterdir()} - {"_shared"}
    [deployed] = re.findall(r"functions deploy ((?:\w+ )+)", pushing.text)
    open_ones = re.findall(r"\[functions\.(\w+)\]\nverify_jwt = false", settings.text)
    assert set(deployed.split()) == set(open_ones) == functions


def test_its_members_see_their_calls_on_the_page(project: tuple[Stack, Path]) -> None:
    """A page on an allowed host sends a call; a member of the widget's team sees it, and nobody else.

    The project's own policy lets everybody read the names of all widgets, and so the page lists them.
    """
    stack, _ = project
    users = {}
    for name in ("member", "stranger"):
        answer = httpx.post(
            f"{stack.api_url}/auth/v1/signup",
            headers={"apikey": stack.publishable_key},
            json={"email": f"{name}@shop.example", "password": PASSWORD},
        )
        users[name] = answer.raise_for_status().json()["user"]["id"]
    with psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as db:
        row = db.execute(
            """
            with team as (insert into teams (name) values ('a') returning id),
              member as (insert into team_members select id, %s from team)
            insert into widgets (team_id, hosts, enabled) select id, 'a.example b.example', true from team returning id
            """,
            [users["member"]],
        ).fetchone()
    assert row is not None
    event = {"widget_id": str(row["id"]), "event_type": "call_start", "session_id": "s"}
    sent = {
        host: httpx.post(
            f"{stack.api_url}/rest/v1/rpc/track_event",
            headers={"apikey": stack.publishable_key, "origin": f"https://{host}"},
            json=event,
        ).status_code
        for host in ("b.example", "c.example")
    }
    assert sent == {"b.example": 200, "c.example": 403}

    with (
        DemoSite(url=stack.api_url, key=stack.publishable_key, widget_id=row["id"]) as site,
        sync_playwright() as playwright,
        launch(playwright) as browser,
    ):
        for name in users:
            tab = browser.new_context().new_page()
            tab.goto(site.address("/dashboard/"))
            tab.get_by_label("Email").fill(f"{name}@shop.example")
            tab.get_by_label("Password").fill(PASSWORD)
            tab.get_by_role("button", name="Sign in").click()
            expect(tab.get_by_role("button", name="Sign out")).to_be_visible(timeout=30_000)
            if name == "member":
                expect(tab.locator("[data-figure='Calls']")).to_contain_text("Calls1", timeout=30_000)
            else:
                expect(tab.get_by_role("heading", name="has sent nothing yet")).to_be_visible(timeout=30_000)
                expect(tab.locator("[data-figure='Calls']")).to_have_count(0)
            expect(tab.locator("option", has_text=f"Widget {str(row['id'])[:8]}")).to_be_attached()


def test_it_is_uninstalled(project: tuple[Stack, Path]) -> None:
    """What was there before stays: the project's tables, its rows, policy and job."""
    stack, _ = project
    with psycopg.connect(stack.database_url, autocommit=True) as db:
        db.execute((ROOT / "supabase" / "uninstall.sql").read_bytes())

        tables = db.execute(
            "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'"
        )
        assert sorted(name for (name,) in tables) == ["sessions", "team_members", "teams", "widgets"]
        assert db.execute("select count(*) from widgets").fetchall() == [(1,)]
        assert db.execute("select policyname from pg_policies where schemaname = 'public'").fetchall() == [
            ("anyone may look",)
        ]
        assert db.execute("select jobname from cron.job").fetchall() == [("nightly",)]
        assert db.execute("select name from supabase_migrations.schema_migrations").fetchall() == [("shop",)]
