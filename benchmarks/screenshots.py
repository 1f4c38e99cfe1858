"""Pictures of the usage page for docs/: on a desktop in light and dark, and on a phone."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from playwright.sync_api import Browser, Page, expect, sync_playwright

from local_stack import demo_history
from local_stack.chromium import launch
from local_stack.demo_site import DemoSite
from local_stack.places import ROOT
from local_stack.stack import Stack

DOCS = ROOT / "docs"


class Picture(NamedTuple):
    """How wide and high, in which colours, and whether a call is open."""

    name: str
    width: int
    height: int
    scheme: str
    of_call: bool = False


PICTURES = (
    Picture("dashboard-light", 1280, 1240, "light"),
    Picture("dashboard-dark", 1280, 1240, "dark"),
    Picture("dashboard-phone", 390, 1060, "light"),
    Picture("dashboard-call", 1280, 800, "light", of_call=True),
)


def main() -> int:
    expect.set_options(timeout=60_000)
    with Stack(durable=False, seed=True) as stack:
        demo_history.fill(stack.database_url, until=datetime.now(UTC) - timedelta(minutes=5))
        demo_history.count(stack.database_url)
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


def take(browser: Browser, address: str, picture: Picture, file: Path) -> None:
    with browser.new_context(
        viewport={"width": picture.width, "height": picture.height},
        color_scheme="dark" if picture.scheme == "dark" else "light",
        timezone_id="Europe/Vienna",
        locale="en-GB",
    ) as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        sign_in(page, address, demo_history.OWNERS[0], demo_history.PASSWORD)
        expect(page.locator(".figure")).to_have_count(4)
        expect(page.locator("[aria-busy=true]")).to_have_count(0)
        if picture.of_call:
            page.get_by_label("Which calls").select_option("End: provider")
            of_providers = page.get_by_role("table", name="Calls", exact=True).locator("tr", has_text="Provider")
            of_providers.nth(4).get_by_role("button").click()
            expect(page.locator("dialog .reasons")).to_be_visible()
        page.screenshot(path=file)


def sign_in(page: Page, address: str, email: str, password: str) -> None:
    page.goto(address)
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


if __name__ == "__main__":
    sys.exit(main())
