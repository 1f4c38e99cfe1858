"""What an owner sees of plans and statements; the project cuts lists at 1,000 rows and loses connections."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from playwright.sync_api import BrowserContext, expect
from psycopg.rows import dict_row

from local_stack.demo_site import DemoSite
from local_stack.stack import Stack
from tests.dashboard.conftest import PASSWORD, Owner, UsagePage, axe, play_call, today
from tests.support import Connection

SPACE = "\N{NO-BREAK SPACE}"
MANY = 1205
THIS_MONTH = today().replace(day=1)
LAST_MONTH = (THIS_MONTH - timedelta(days=1)).replace(day=1)
BEFORE = LAST_MONTH - timedelta(days=1)  # the last day of the month before
FEE, PRICE, INCLUDED = Decimal("9.90"), Decimal("0.10"), 3600


@dataclass(frozen=True)
class Billed:
    """A project with two closed months, and what waits since."""

    stack: Stack
    site: DemoSite
    db: Connection
    owner: Owner
    chain: Owner
    """Somebody with 1,205 widgets, each with a call of a minute."""


def add_owner(db: Connection, name: str, widgets: int) -> Owner:
    user_id = uuid4()
    db.execute(
        """
        insert into auth.users (id, email, email_confirmed_at, encrypted_password)
        values (%s, %s, now(), extensions.crypt(%s, extensions.gen_salt('bf', 4)))
        """,
        [user_id, f"{user_id}@owner.example", PASSWORD],
    )
    ids = db.execute(
        """
        insert into public.widgets (owner_id, name, allowed_domains)
        select %s, %s || case when %s > 1 then ' ' || n else '' end, '{*}' from generate_series(1, %s) n returning id
        """,
        [user_id, name, widgets, widgets],
    ).fetchall()
    return Owner(user_id, f"{user_id}@owner.example", ids[0]["id"], name)


def close(db: Connection, month: datetime) -> None:
    db.execute("select close_widget_billing_period(%s)", [f"{month:%Y-%m}"])


def correct(db: Connection, widget_id: UUID, session_id: str, seconds: int) -> None:
    db.execute("select correct_widget_call(%s, %s, 'c', %s, 'cut off', 'bob')", [widget_id, session_id, seconds])


@pytest.fixture(scope="module")
def billed() -> Iterator[Billed]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GATEWAY_DEAD_CONNECTION_EVERY", "9")
        running = Stack(durable=False, jobs=False)
    with (
        running as stack,
        psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as db,
        DemoSite(url=stack.api_url, key=stack.publishable_key, widget_id=UUID(int=0)) as site,
    ):
        owner, chain = add_owner(db, "Shop voice", 1), add_owner(db, "Branch", MANY)
        db.execute(
            """
            insert into widget_plans
              (widget_id, valid_from, name, included_seconds, price_per_minute, currency, monthly_fee)
            values (%s, %s, 'Pro', %s, %s, 'EUR', %s)
            """,
            [owner.widget_id, BEFORE.replace(day=1).date(), INCLUDED, PRICE, FEE],
        )
        early = play_call(db, owner.widget_id, BEFORE, 4800)
        close(db, BEFORE)
        correct(db, owner.widget_id, early, 4200)
        late = play_call(db, owner.widget_id, LAST_MONTH + timedelta(days=3), 6000)
        play_call(db, owner.widget_id, LAST_MONTH + timedelta(days=4), 1800, source="inferred")
        close(db, LAST_MONTH)
        correct(db, owner.widget_id, late, 3000)
        play_call(db, owner.widget_id, THIS_MONTH, 3000)
        db.execute(
            """
            insert into widget_analytics (widget_id, session_id, call_id, event_type, "timestamp")
            select w.id, 's', 'c', e.type, %s + e.after
            from widgets w, (values ('call_start', interval '0'), ('call_end', '60 s')) e (type, after)
            where w.owner_id = %s
            """,
            [THIS_MONTH, chain.user_id],
        )
        # As if the archive had taken the events of the first month.
        with db.transaction():
            db.execute("update widget_internal.call_states set archived_at = now() where session_id = %s", [early])
            db.execute("delete from widget_analytics where session_id = %s", [early])
        yield Billed(stack, site, db, owner, chain)


@pytest.fixture
def usage_page(context: BrowserContext, billed: Billed) -> UsagePage:
    return UsagePage(context.new_page(), billed.site)


def download(page: UsagePage, name: str, folder: Path) -> list[dict[str, str]]:
    with page.page.expect_download() as started:
        page.page.get_by_role("button", name=name).click()
    file = folder / started.value.suggested_filename
    started.value.save_as(file)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        return list(csv.DictReader(lines))


def text_of(page: UsagePage, caption: str) -> str:
    return page.page.get_by_role("table", name=caption, exact=True).inner_text()


def money(amount: Decimal) -> str:
    return f"EUR{SPACE}{amount:,.2f}"


def query(billed: Billed, sql: str, *values: object) -> dict[str, Any]:
    [row] = billed.db.execute(sql, values).fetchall()
    return row


def test_the_plan_and_what_is_left_of_it(usage_page: UsagePage, billed: Billed) -> None:
    """Price, fee, included minutes used and left, the bill so far, and a forecast that says that it is one."""
    usage_page.open(billed.owner)

    plan = text_of(usage_page, "Plans this month")
    assert f"Pro: EUR{SPACE}0.10 a minute, {money(FEE)} a month" in plan
    assert "of 60.0 included 50.0 used, 10.0 left" in plan
    assert money(FEE) in plan
    if today() > THIS_MONTH:  # the first day of a month has no forecast
        assert "forecast EUR" in plan
        expect(usage_page.panel("This month so far")).to_contain_text("a forecast")
    expect(usage_page.panel("This month so far")).to_contain_text(f"charged for {LAST_MONTH:%B %Y}")


def test_a_statement_and_its_lines(usage_page: UsagePage, billed: Billed, tmp_path: Path) -> None:
    """Opened from the list: what is to be paid, each charge, the adjusted calls and why, all calls, whom to ask."""
    paid = query(
        billed,
        "select sum(difference_amount) as amount from widget_statement_charges where period = %s and widget_id = %s",
        LAST_MONTH.date(),
        billed.owner.widget_id,
    )["amount"]
    # 7,800 s less the included ones, and the credit of 600 s of the month before.
    assert paid == FEE + (7800 - INCLUDED) * PRICE / 60 - 600 * PRICE / 60
    usage_page.open(billed.owner)

    usage_page.page.get_by_role("table", name="Statements").get_by_role("button", name=f"{LAST_MONTH:%B %Y}").click()

    panel = usage_page.panel(f"Statement for {LAST_MONTH:%B %Y}")
    expect(panel).to_contain_text(money(paid))
    expect(panel).to_contain_text("23.1% of the billed time is of calls whose end was assumed (30.0 minutes).")
    assert [row[1:] for row in usage_page.rows("Charges")] == [
        ["-600 s\n4,800 s → 4,200 s", money(Decimal(-1))],
        ["7,800 s", money(paid + 1)],
    ]
    assert f"adjustment of {BEFORE:%B %Y}" in text_of(usage_page, "Charges")
    [adjusted] = usage_page.rows("Adjusted calls")
    assert adjusted[1] == "Shop voice"
    assert "set by bob: cut off" in adjusted[2]
    assert adjusted[3:] == ["4,800 s", "4,200 s", "-600 s"]
    assert [row[-1] for row in usage_page.rows("Calls on this statement")] == ["6,000 s", "1,800 s"]
    contact = panel.get_by_role("link", name="billing@company.example")
    expect(contact).to_have_attribute("href", f"mailto:billing@company.example?subject={subject_of(billed)}")
    lines = download(usage_page, "Download CSV: calls on this statement", tmp_path)
    assert [float(line["new_seconds"]) for line in lines] == [6000, 1800]


def subject_of(billed: Billed) -> str:
    return f"Statement%20for%20{LAST_MONTH:%B}%20{LAST_MONTH:%Y}%20({billed.owner.email.replace('@', '%40')})"


def test_a_statement_on_paper(usage_page: UsagePage, billed: Billed) -> None:
    """A link opens it; printed, it has the amounts in dark ink and nothing to click on."""
    usage_page.page.emulate_media(media="print", color_scheme="dark")
    usage_page.sign_in(billed.owner, f"#statement={LAST_MONTH:%Y-%m}")
    expect(usage_page.page.get_by_role("table", name="Adjusted calls")).to_be_visible()

    expect(usage_page.page.get_by_text("To be paid")).to_be_visible()
    for unprinted in ("Sign out", "Print", "Back to usage", "Download CSV: calls on this statement"):
        expect(usage_page.page.get_by_role("button", name=unprinted, include_hidden=True)).to_be_hidden()
    ink = "getComputedStyle(document.querySelector('.totals .value')).color"
    assert usage_page.page.evaluate(ink) == "rgb(0, 0, 0)"
    assert usage_page.page.pdf().startswith(b"%PDF")
    usage_page.page.emulate_media(media="screen", color_scheme="dark")
    assert axe(usage_page.page) == []


def test_pending_adjustments_are_named(usage_page: UsagePage, billed: Billed) -> None:
    """What changed in a closed month stands beside what was charged for it, and never in it."""
    usage = query(
        billed,
        "select * from widget_billing_usage(%s, %s, only_widget => %s)",
        LAST_MONTH,
        THIS_MONTH,
        billed.owner.widget_id,
    )
    assert usage["pending_amount"] == Decimal("-5.00")

    usage_page.open(billed.owner, "#period=last-month")

    expect(usage_page.panel("Pending adjustments")).to_contain_text(f"1 call{money(Decimal(-5))}")
    assert "set by bob: cut off" in text_of(usage_page, "Pending adjustments")
    [row] = usage_page.rows("Usage by widget")
    assert row[3] == "7,800 s\n23.1% assumed"
    assert row[5] == f"{money(usage['amount'])}\npending {money(Decimal(-5))}"


def test_ninety_days_over_an_archived_month(usage_page: UsagePage, billed: Billed) -> None:
    """Calls whose events are in the archive count as before; their story says where the events are."""
    usage_page.open(billed.owner, "#period=90d")

    expect(usage_page.figure("Billable minutes")).to_contain_text("exactly 15,000 s")
    calls = usage_page.page.get_by_role("table", name="Calls", exact=True).get_by_role("button")
    expect(calls).to_have_count(4)
    calls.last.click()
    expect(usage_page.page.get_by_role("dialog")).to_contain_text("They are in the archive.")


def test_more_widgets_than_a_list_has_rows(usage_page: UsagePage, billed: Billed, tmp_path: Path) -> None:
    """All 1,205 are chosen from, summed up, shown page by page and in the file; no row is cut in silence."""
    usage_page.open(billed.chain, "#period=month")

    expect(usage_page.figure("Calls")).to_contain_text("1,205")
    expect(usage_page.figure("Billable minutes")).to_contain_text("exactly 72,300 s")
    expect(usage_page.page.get_by_role("combobox", name="Widget").locator("option")).to_have_count(MANY + 1)
    pages = usage_page.page.get_by_role("navigation", name="Pages of usage by widget")
    expect(pages).to_contain_text("1–25 of 1,205")
    pages.get_by_role("button", name="Next").click()
    expect(pages).to_contain_text("26–50 of 1,205")
    rows = download(usage_page, "Download CSV: usage-by-widget", tmp_path)
    assert len({row["widget_id"] for row in rows}) == len(rows) == MANY
    assert sum(float(row["Billable seconds"]) for row in rows) == 72_300
    plans = download(usage_page, "Download CSV: plans-this-month", tmp_path)
    assert len({row["widget_id"] for row in plans}) == len(plans) == MANY
    calls = download(usage_page, "Download CSV: all calls of the period", tmp_path)
    assert len({row["widget_id"] for row in calls}) == len(calls) == MANY


def test_what_a_phone_shows(usage_page: UsagePage, billed: Billed) -> None:
    """At 390 px no table hides billable seconds or amounts behind its edge."""
    usage_page.page.set_viewport_size({"width": 390, "height": 900})
    usage_page.open(billed.owner, "#period=last-month")

    for caption, heading in (
        ("Plans this month", "Bill so far"),
        ("Statements", "To be paid"),
        ("Pending adjustments", "Difference"),
        ("Usage by widget", "Billable seconds"),
        ("Usage by widget", "Amount"),
        ("Calls", "Billable"),
    ):
        table = usage_page.page.get_by_role("table", name=caption, exact=True)
        box = table.get_by_role("columnheader", name=heading, exact=True).bounding_box()
        assert box, (caption, heading)
        assert box["x"] >= 0, (caption, heading)
        assert box["x"] + box["width"] <= 390, (caption, heading)
