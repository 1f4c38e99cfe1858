"""docs/getting-started.md, then docs/operations.md, followed as they stand on one project that begins empty."""

import re
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import psycopg
import pytest
from playwright.sync_api import expect, sync_playwright

from local_stack.browsers.chromium import launch
from local_stack.places import ROOT
from local_stack.processes import await_condition
from local_stack.stack import Stack
from tests.documents import Block
from tests.reader import Reader, blocks

PASSWORD = "correct horse battery"


def checkout(folder: Path) -> Path:
    """A clone of this repository, in which `npm ci` was run."""
    for name in ("supabase", "tracker", "dashboard", "python_client"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("node_modules", "dist", "__pycache__")
        )
    for name in ("node_modules", "tracker/node_modules", "dashboard/node_modules"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "package.json", folder)
    return folder


@pytest.fixture(scope="module")
def project() -> Iterator[Stack]:
    """A project as the platform makes it: nothing of ours is in it."""
    with Stack(durable=False, migrate=False, jobs=False) as running:
        yield running


@pytest.fixture(scope="module")
def reader(project: Stack, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    def widget_id() -> str:
        with psycopg.connect(project.database_url) as db:
            row = db.execute("select id::text from widgets order by created_at limit 1").fetchone()
        assert row is not None
        return str(row[0])

    def test_widget_id() -> str:
        with psycopg.connect(project.database_url) as db:
            row = db.execute("select id::text from widgets where name = 'Test'").fetchone()
        assert row is not None
        return str(row[0])

    return Reader(
        folder=checkout(tmp_path_factory.mktemp("clone")),
        database_url=project.database_url,
        names={
            "https://YOUR-REF.supabase.co": lambda: project.api_url,
            "sb_publishable_YOUR_KEY": lambda: project.publishable_key,
            "sb_secret_YOUR_KEY": lambda: project.secret_key,
            "YOUR-WIDGET-ID": widget_id,
            "YOUR-TEST-WIDGET-ID": test_widget_id,
        },
        environment={"CRON_SECRET": project.cron_secret},
    )


@pytest.fixture
def served(reader: Reader, request: pytest.FixtureRequest) -> Iterator[str]:
    """What `python3 -m http.server --directory …` serves, at localhost."""
    handler = partial(_Quiet, directory=str(reader.folder / request.param))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://localhost:{server.server_address[1]}/"
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def section(page: str, first: str, last: str | None = None) -> list[Block]:
    """The blocks from the heading that begins with `first` up to the one that begins with `last`."""
    text = (ROOT / page).read_text()
    start = text[: text.index(f"\n## {first}")].count("\n")
    end = text[: text.index(f"\n## {last}")].count("\n") if last else text.count("\n")
    return [block for block in blocks(page) if start < block.line <= end]


GETTING_STARTED = "docs/getting-started.md"


def test_getting_started_to_the_first_event(project: Stack, reader: Reader) -> None:
    """Schema, functions, keys, a widget and a call of 90 seconds."""
    page = section(GETTING_STARTED, "1.", "6.")

    reader.run(page[0])
    project.restart_gateway()  # the local gateway reads the schema at its start
    reader.follow(page[1:])

    assert [command.split()[2] for command in reader.left_out if command.startswith("npx")] == [
        "login", "link", "secrets", "functions",
    ]  # fmt: skip


@pytest.mark.parametrize("served", ["site"], indirect=True)
def test_getting_started_with_the_tracker(project: Stack, reader: Reader, served: str) -> None:
    """The page as it stands, at localhost: somebody calls and hangs up."""
    build, page, query = section(GETTING_STARTED, "6.", "7.")
    reader.run(build)
    (reader.folder / "site" / "index.html").write_text(reader.fill_in(page.text))

    with sync_playwright() as playwright, launch(playwright) as browser:
        tab = browser.new_page()
        tab.goto(served)
        tab.click("#call")
        tab.click("#hang-up")
        await_condition(
            "the call's end", lambda: "call_end" in reader.run(query), seconds=30, explain=lambda: reader.run(query)
        )
        tab.close()

    assert f"browser | {served}" in reader.run(query)


def test_getting_started_to_a_bill_and_a_closed_month(reader: Reader) -> None:
    """A plan, the month so far, a file, and last month closed."""
    reader.follow(section(GETTING_STARTED, "7.", "9."))

    assert len((reader.folder / "calls.csv").read_text().splitlines()) == 1 + 2


@pytest.mark.parametrize("served", ["dashboard/dist"], indirect=True)
def test_getting_started_with_a_customers_page(project: Stack, reader: Reader, served: str) -> None:
    """The owner, invited, signs in to the page as built and sees the calls."""
    httpx.post(  # an invitation is accepted by e-mail, which nobody sends here
        f"{project.api_url}/auth/v1/signup",
        headers={"apikey": project.publishable_key},
        json={"email": "owner@bakery.example", "password": PASSWORD},
    ).raise_for_status()

    reader.follow(section(GETTING_STARTED, "9."))

    with sync_playwright() as playwright, launch(playwright) as browser:
        tab = browser.new_page()
        tab.goto(served)
        tab.get_by_label("Email").fill("owner@bakery.example")
        tab.get_by_label("Password").fill(PASSWORD)
        tab.get_by_role("button", name="Sign in").click()
        expect(tab.locator("[data-figure='Calls']")).to_contain_text(re.compile(r"Calls\s*[23]"), timeout=30_000)


OPERATIONS = "docs/operations.md"


def test_operations_by_night(reader: Reader) -> None:
    """What to look at at 3 a.m., and what a page that is not allowed is answered."""
    reader.follow(section(OPERATIONS, "It is 3 a.m.", "Installing"))


def test_operations_of_a_living_project(project: Stack, reader: Reader) -> None:
    """Keys, an upgrade, a customer who leaves, a test widget that is deleted, the cleanup, retention, health."""
    with psycopg.connect(project.database_url, autocommit=True) as db:
        db.execute("with w as (insert into widgets (name, allowed_domains) values ('Test', '{*}') returning id)"
                   " insert into widget_plans (widget_id, valid_from, name, price_per_minute, currency)"
                   " select id, date_trunc('month', now()), 'Test', 1, 'EUR' from w")  # fmt: skip
        db.execute("select track_event(id, 'call_start', 's') from widgets where name = 'Test'")
        before = db.execute("select * from widget_statement_charges").fetchall()

        for first, last in (("Rotating keys", "Uninstall"), ("The cleanup", "Failure tests")):
            for block in section(OPERATIONS, first, last):
                if "pg_net" not in block.text and block.language in ("sql", "bash"):
                    reader.run(block)

        assert db.execute("select name, is_active, owner_id from widgets").fetchall() == [("Bakery voice", False, None)]
        assert db.execute("select count(*) from widget_analytics where page_url is not null").fetchall() == [(0,)]
        assert db.execute("select * from widget_statement_charges").fetchall() == before != []


def test_operations_uninstall(project: Stack, reader: Reader) -> None:
    """Nothing of ours is left but the table of widgets, and a push installs it again."""
    reader.follow(section(OPERATIONS, "Uninstall", "The cleanup"))

    with psycopg.connect(project.database_url, autocommit=True) as db:
        left = db.execute(
            """
            select c.oid::regclass::text from pg_class c where relnamespace = 'public'::regnamespace and relkind <> 'i'
            union all select p.oid::regprocedure::text from pg_proc p where pronamespace = 'public'::regnamespace
            union all select nspname::text from pg_namespace where nspname = 'widget_internal'
            union all select jobname from cron.job
            """
        ).fetchall()
        assert left == [("widgets",)]
        db.execute("drop table widgets")
        project.push_migrations()
        assert db.execute("select count(*) from widget_calls").fetchall() == [(0,)]
