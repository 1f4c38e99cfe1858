"""Pictures of the usage page for docs/: light, dark, on a phone, a call, a statement, a new widget."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from playwright.sync_api import Browser, Page, expect, sync_playwright

from local_stack import demo_history
from local_stack.browsers.chromium import launch
from local_stack.demo_site import DemoSite
from local_stack.places import ROOT
from local_stack.stack import Stack

DOCS = ROOT / "docs"
OWNER = demo_history.OWNERS[0]
NEW_OWNER = "owner@flowers.example"


class Picture(NamedTuple):
    """How wide and high, in which colours, whose, and what is open on it."""

    name: str
    width: int
    height: int
    scheme: str = "light"
    owner: str = OWNER
    show: Callable[[Page], None] = lambda page: expect(page.locator(".figure")).to_have_count(4)


def show_call(page: Page) -> None:
    page.get_by_label("Which calls").select_option("End: provider")
    of_providers = page.get_by_role("table", name="Calls", exact=True).locator("tr", has_text="Provider")
    of_providers.nth(4).get_by_role("button").click()
    expect(page.locator("dialog .reasons")).to_be_visible()


def show_statement(page: Page) -> None:
    page.get_by_role("table", name="Statements").get_by_role("button").first.click()
    expect(page.get_by_role("table", name="Adjusted calls")).to_be_visible()
    expect(page.get_by_role("table", name="Calls on this statement")).to_be_visible()


PICTURES = (
    Picture("dashboard-light", 1280, 1240),
    Picture("dashboard-dark", 1280, 1240, "dark"),
    Picture("dashboard-phone", 390, 1060),
    Picture("dashboard-call", 1280, 800, show=show_call),
    Picture("dashboard-statement", 1280, 900, show=show_statement),
    Picture(
        "dashboard-setup",
        1280,
        660,
        owner=NEW_OWNER,
        show=lambda page: expect(page.locator(".snippet")).to_be_visible(),
    ),
)


def main() -> int:
    expect.set_options(timeout=60_000)
    with Stack(durable=False, seed=True) as stack:
        demo_history.fill(stack.database_url, until=datetime.now(UTC) - timedelta(minutes=5))
        demo_history.count(stack.database_url)
        with psycopg.connect(stack.database_url, autocommit=True) as connection:
            close_months(connection)
            add_new_owner(connection)
        demo_history.set_passwords(stack.database_url, (NEW_OWNER,))
        with (
            DemoSite(url=stack.api_url, key=stack.publishable_key, widget_id=UUID(int=0)) as site,
            sync_playwright() as playwright,
            launch(playwright) as browser,
        ):
            for picture in PICTURES:
                file = DOCS / f"{picture.name}.png"
                take(browser, site.address("/dashboard/"), picture, file)
                print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} kB")
    return 0


def close_months(connection: psycopg.Connection[Any]) -> None:
    """All that can be closed, with an adjustment on the last statement and one that is pending."""
    months = connection.execute(
        "select m.month, to_char(m.month, 'YYYY-MM') from widget_months_to_close() m order by m.month"
    ).fetchall()
    for month, name in months:
        connection.execute("select close_widget_billing_period(%s)", [name])
        connection.execute(
            """
            select correct_widget_call(c.widget_id, c.session_id, c.call_id, 0, 'line was cut', 'support')
            from (
              select l.* from widget_statement_lines l join widgets w on w.id = l.widget_id
              where l.period = %s and l.new_seconds > 60 order by w.name, l.started_at limit 1
            ) c
            """,
            [month],
        )


def add_new_owner(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        """
        with owner as (insert into auth.users (id, email) values (gen_random_uuid(), %s) returning id)
        insert into public.widgets (id, owner_id, name, allowed_domains)
        select '66666666-6666-7666-8666-666666666666', o.id, 'Flowers voice', '{flowers.example}' from owner o
        """,
        [NEW_OWNER],
    )


def take(browser: Browser, address: str, picture: Picture, file: Path) -> None:
    with browser.new_context(
        viewport={"width": picture.width, "height": picture.height},
        color_scheme="dark" if picture.scheme == "dark" else "light",
        timezone_id="Europe/Vienna",
        locale="en-GB",
    ) as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        sign_in(page, address, picture.owner, demo_history.PASSWORD)
        picture.show(page)
        expect(page.locator("[aria-busy=true]")).to_have_count(0)
        page.screenshot(path=file)


def sign_in(page: Page, address: str, email: str, password: str) -> None:
    page.goto(address)
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


if __name__ == "__main__":
    sys.exit(main())
