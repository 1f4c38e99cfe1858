"""The report in a real browser: on a phone, by night and on paper."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from local_stack.browsers.chromium import launch
from local_stack.stack import Stack
from tests.billing_books import add_plan
from tests.client_support import LedgerCall, environment, insert_calls, run
from tests.conftest import NewWidget
from tests.support import Connection
from tests.test_cli_export import month_of

PHONE, A4 = 390, 680
LONGEST_PHONE = 3_500  # px


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, launch(playwright) as running:
        yield running


@pytest.fixture
def report(stack: Stack, db: Connection, new_widget: NewWidget, tmp_path: Path) -> Path:
    """A customer with two widgets, one of them with a long name; amounts in the thousands."""
    widgets = [new_widget(name=name) for name in ("Shop", "A widget whose name is as long as the customer liked it")]
    month, start = month_of(widgets[0])
    hour = timedelta(hours=1)
    for widget_id in widgets:
        db.execute("insert into public.widget_customers values (%s, %s)", [widget_id, f"C-{widgets[0]}"])
        add_plan(db, widget_id, start.date(), price_per_minute=99, included_seconds=36_000, monthly_fee=1_234)
        starts = [start + 9 * hour * n for n in range(40)]
        insert_calls(
            db, widget_id, [LedgerCall(started_at=at, session_id=f"{at}", call_id="c", lasts=hour) for at in starts]
        )
    done = run(
        environment(stack),
        tmp_path,
        *("report", "--month", month, "--customer", f"C-{widgets[0]}", "--output", "report.html"),
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / "report.html"


def shown(browser: Browser, report: Path, width: int, *, dark: bool = False, paper: bool = False) -> Page:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
    page.emulate_media(media="print" if paper else "screen")
    page.goto(report.as_uri())
    return page


def lightness(page: Page, colour: str) -> int:
    """How light the page's ``backgroundColor`` or ``color`` is, from 0 to 255."""
    told = page.evaluate(f"getComputedStyle(document.body).{colour}")
    return max(map(int, re.findall(r"\d+", told)[:3]))


def width_of_first_column(page: Page) -> float:
    box = page.locator("tbody th").last.bounding_box()
    assert box is not None
    return box["width"]


def test_a_customers_page_is_read_on_a_phone_by_night_and_on_paper(browser: Browser, report: Path) -> None:
    """Nothing is out of sight to the right, nothing is a column of single letters, and paper stays white."""
    phone = shown(browser, report, PHONE)
    night = shown(browser, report, 1_000, dark=True)
    paper = shown(browser, report, A4, dark=True, paper=True)

    for page, width in ((phone, PHONE), (night, 1_000), (paper, A4)):
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert width_of_first_column(page) > 100
    assert phone.evaluate("document.documentElement.scrollHeight") < LONGEST_PHONE
    amount = phone.locator("tbody td[data-label='Amount']").first
    assert amount.evaluate("cell => getComputedStyle(cell, '::before').content") == '"Amount"'
    assert lightness(night, "backgroundColor") < 50 < 200 < lightness(night, "color")
    assert lightness(paper, "color") < 60 < 250 < lightness(paper, "backgroundColor")
    assert 1 <= paper.pdf(prefer_css_page_size=True).count(b"/Type /Page\n") <= 3
