"""What an owner sees on the usage page: the bill's own numbers, of the owner's own widgets."""

import csv
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from local_stack.stack import Stack
from tests.conftest import Connect
from tests.dashboard.conftest import Owner, UsagePage, axe, days_ago, play_call, today
from tests.support import Connection, record, session_name

HOSTILE = "https://shop.example/<img src=x onerror=alert(1)>"
MARKUP = '"><script>alert(2)</script>'


@pytest.fixture
def played(db: Connection, owner: Owner) -> Owner:
    """An owner with a month of calls behind them."""
    for day in range(28, 0, -3):
        play_call(db, owner.widget_id, days_ago(day), 61.5 + day)
    play_call(db, owner.widget_id, days_ago(2), 33, end="call_error")
    db.execute("select refresh_widget_health()")
    return owner


def refuse(db: Connection, widget_id: UUID, host: str) -> None:
    db.execute(
        "select widget_internal.count_refusals(array[(%s, 'domain_not_allowed', %s)::widget_internal.refusal])",
        [widget_id, host],
    )


def bill(connect: Connect, owner: Owner, start: datetime, end: datetime, of: str = "usage") -> list[dict[str, Any]]:
    connection = connect("authenticated", user_id=owner.user_id)
    return connection.execute(f"select * from widget_billing_{of}(%s, %s)", [start, end]).fetchall()


def last_days(days: int) -> tuple[datetime, datetime]:
    return today() - timedelta(days=days - 1), today() + timedelta(days=1)


def seconds(value: Any) -> str:
    """As the page writes an exact number of seconds."""
    return f"{value:,f}".rstrip("0").rstrip(".") + " s" if "." in f"{value:f}" else f"{value:,} s"


# Owners


def test_owners_see_their_own_widgets(
    db: Connection, browser: Browser, usage_page: UsagePage, new_owner_with_widget: Callable[..., Owner]
) -> None:
    """Two owners, one page: each finds the own widget, and nothing of the other's."""
    baker, doctor = new_owner_with_widget("Bakery voice"), new_owner_with_widget("Clinic voice")
    for owner, calls in ((baker, 3), (doctor, 2)):
        for number in range(calls):
            play_call(db, owner.widget_id, days_ago(2) + timedelta(minutes=number), 60)

    usage_page.open(baker)
    assert usage_page.rows("Usage by widget")[0][:2] == ["Bakery voice", "3"]
    usage_page.page.get_by_role("button", name="Sign out").click()
    expect(usage_page.page.get_by_text("You are signed out.")).to_be_visible()
    expect(usage_page.page.get_by_text("Bakery voice")).to_have_count(0)

    usage_page.open(doctor, f"#widget={baker.widget_id}")

    assert usage_page.rows("Usage by widget")[0][:2] == ["Clinic voice", "2"]
    expect(usage_page.page.get_by_text("Bakery voice")).to_have_count(0)
    assert usage_page.complaints == []


# Numbers


def test_figures_equal_the_bill(usage_page: UsagePage, connect: Connect, played: Owner) -> None:
    """Calls, seconds, evidence and amounts are those of widget_billing_usage() for the same days."""
    [usage] = bill(connect, played, *last_days(30))

    usage_page.open(played)

    expect(usage_page.figure("Calls")).to_contain_text(str(usage["calls"]))
    expect(usage_page.figure("Calls")).to_contain_text("1 failed")
    expect(usage_page.figure("Billable minutes")).to_contain_text(f"{usage['billable_seconds'] / 60:,.1f}")
    expect(usage_page.figure("Billable minutes")).to_contain_text(f"exactly {seconds(usage['billable_seconds'])}")
    expect(usage_page.figure("Completion")).to_contain_text("100.0%")
    expect(usage_page.figure("Delivery")).to_contain_text("100.0%")
    [row] = usage_page.rows("Usage by widget")
    assert row[1:4] == [str(usage["calls"]), str(usage["failed_calls"]), seconds(usage["billable_seconds"])]
    steps = [row[:2] for row in usage_page.rows("From page to call")]
    assert steps == [
        ["Page loads", str(usage["calls"])],
        ["Widget opens", str(usage["calls"])],
        ["Calls started", str(usage["calls"])],
        ["Calls completed", str(usage["calls"] - 1)],
    ]
    assert usage_page.rows("Busiest domains") == [["shop.example", *[str(usage["calls"])] * 3]]
    assert usage_page.complaints == []


def test_the_month_so_far(db: Connection, usage_page: UsagePage, connect: Connect, played: Owner) -> None:
    """What this month costs by now is the amount that widget_billing_usage() has for it."""
    db.execute(
        """
        insert into widget_plans (widget_id, valid_from, name, increment_seconds, price_per_minute, currency)
        values (%s, '2020-01-01', 'Pro', 60, 0.5, 'EUR')
        """,
        [played.widget_id],
    )
    play_call(db, played.widget_id, today(), 61)
    [usage] = bill(connect, played, today().replace(day=1), today() + timedelta(days=1))

    usage_page.open(played)

    panel = usage_page.panel("This month so far")
    expect(panel).to_contain_text(f"EUR\N{NO-BREAK SPACE}{usage['amount']:,.2f}")
    expect(panel).to_contain_text(f"Calls{usage['calls']}")


def test_another_period_and_a_link_to_it(usage_page: UsagePage, connect: Connect, played: Owner) -> None:
    """Days that are picked change every number, and the address, which shows the same to whoever opens it."""
    first, last = today() - timedelta(days=15), today() - timedelta(days=5)
    usage_page.open(played)

    usage_page.page.get_by_label("To", exact=True).fill(f"{last:%Y-%m-%d}")
    usage_page.page.get_by_label("From", exact=True).fill(f"{first:%Y-%m-%d}")
    usage_page.page.get_by_role("combobox", name="Widget").select_option(played.widget_name)

    [usage] = bill(connect, played, first, last + timedelta(days=1))
    figure = usage_page.figure("Billable minutes")
    expect(figure).to_contain_text(f"exactly {seconds(usage['billable_seconds'])}")
    address = usage_page.page.url
    assert address.endswith(f"#period={first:%Y-%m-%d}..{last:%Y-%m-%d}&widget={played.widget_id}")
    usage_page.page.goto("about:blank")
    usage_page.page.goto(address)
    expect(figure).to_contain_text(f"exactly {seconds(usage['billable_seconds'])}")
    expect(usage_page.page.get_by_role("combobox", name="Widget")).to_have_value(str(played.widget_id))


# Calls


def test_how_a_bill_came_about(db: Connection, usage_page: UsagePage, owner: Owner) -> None:
    """A call opened by keyboard tells which end was believed, and closes where it was opened."""
    start = days_ago(1)
    session = play_call(db, owner.widget_id, start, 100)
    record(db, owner.widget_id, session, "call_end", start + timedelta(seconds=90), call_id="c", source="provider")
    usage_page.open(owner)
    call = usage_page.page.get_by_role("table", name="Calls", exact=True).get_by_role("button")

    call.focus()
    usage_page.page.keyboard.press("Enter")

    dialog = usage_page.page.get_by_role("dialog")
    expect(dialog).to_contain_text("Ended")
    expect(dialog).to_contain_text("call_end of source call provider")
    expect(dialog).to_contain_text("Billed 90 s: exact duration.")
    expect(dialog).to_contain_text(f"{start:%-d %b %Y, %H:%M:%S} UTC")
    ends = [row for row in usage_page.rows("Events of this call") if "Call ended" in row[1]]
    assert [("believed" in row[1], "outranked" in row[1], row[2]) for row in ends] == [
        (True, False, "call provider"),
        (False, True, "browser"),
    ]
    assert session not in usage_page.page.url
    usage_page.page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(call).to_be_focused()


def test_calls_are_paged_and_filtered(db: Connection, usage_page: UsagePage, owner: Owner) -> None:
    """Twenty-five at a time, there and back; and those alone that failed."""
    for number in range(30):
        play_call(db, owner.widget_id, days_ago(3) + timedelta(minutes=number), number)
    play_call(db, owner.widget_id, days_ago(2), 5, end="call_error")
    usage_page.open(owner)
    panel = usage_page.page.get_by_role("navigation", name="Pages of calls")
    expect(panel).to_contain_text("1–25 of 31")

    panel.get_by_role("button", name="Older").click()

    expect(panel).to_contain_text("26–31 of 31")
    assert len(usage_page.rows("Calls")) == 6
    expect(panel.get_by_role("button", name="Older")).to_be_disabled()
    panel.get_by_role("button", name="Newer").click()
    expect(panel).to_contain_text("1–25 of 31")
    usage_page.page.get_by_label("Which calls").select_option("Failed")
    expect(panel).to_contain_text("1–1")
    assert [row[2] for row in usage_page.rows("Calls")] == ["Failed"]


def test_a_download_is_the_bill(
    usage_page: UsagePage, connect: Connect, played: Owner, stack: Stack, tmp_path: Path
) -> None:
    """The file of calls has every row and every digit of widget_billing_calls(), the one of days those of each day."""
    usage_page.open(played)

    calls = download(usage_page.page, "Download CSV: all calls of the period", tmp_path)
    days = download(usage_page.page, "Download CSV: usage-by-day", tmp_path)

    expected = bill(connect, played, *last_days(30), of="calls")
    assert len(calls) == len(expected) == 11
    by_session = {row["session_id"]: row for row in expected}
    for row in calls:
        want = by_session[row["session_id"]]
        assert (row["call_id"], row["outcome"], row["rule"]) == (want["call_id"], want["outcome"], want["rule"])
        assert (float(row["duration_seconds"]), float(row["billable_seconds"])) == (
            float(want["duration_seconds"]),
            float(want["billable_seconds"]),
        )
        assert datetime.fromisoformat(row["started_at"]) == want["started_at"]
    assert sum(int(row["calls"]) for row in days) == len(expected)
    assert sum(float(row["billable_seconds"]) for row in days) == float(sum(r["billable_seconds"] for r in expected))


def download(page: Page, name: str, folder: Path) -> list[dict[str, str]]:
    with page.expect_download() as started:
        page.get_by_role("button", name=name).click()
    file = folder / started.value.suggested_filename
    started.value.save_as(file)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        return list(csv.DictReader(lines))


# States


def test_a_wrong_password(usage_page: UsagePage, owner: Owner) -> None:
    """The page says so, and stays where it is."""
    usage_page.page.goto(usage_page.site.address("/dashboard/"))
    usage_page.page.get_by_label("Email").fill(owner.email)
    usage_page.page.get_by_label("Password").fill("wrong")
    usage_page.page.get_by_role("button", name="Sign in").click()

    expect(usage_page.page.get_by_role("alert")).to_contain_text("Invalid login credentials")


def test_loading_and_failing(usage_page: UsagePage, played: Owner) -> None:
    """A panel waits by itself, says what failed, and can be tried again; the others go on."""
    held: list[Route] = []
    usage_page.page.route("**/rpc/widget_daily_usage?*", lambda route: held.append(route))
    usage_page.sign_in(played)
    panel = usage_page.panel("Day by day")
    expect(panel.get_by_role("status")).to_have_text("Loading…")
    expect(panel).to_have_attribute("aria-busy", "true")
    expect(usage_page.panel("Calls")).to_contain_text(played.widget_name)
    assert axe(usage_page.page) == []

    held[0].abort()

    expect(panel.get_by_role("alert")).to_contain_text("This could not be loaded: The project cannot be reached.")
    expect(usage_page.figure("Calls")).to_contain_text("could not be loaded")
    expect(usage_page.panel("By widget")).to_contain_text(played.widget_name)
    usage_page.page.unroute("**/rpc/widget_daily_usage?*")
    panel.get_by_role("button", name="Try again").click()
    expect(usage_page.figure("Calls")).to_contain_text("11")


def test_nothing_to_show(db: Connection, usage_page: UsagePage, owner: Owner, sign_up: Callable[[str], UUID]) -> None:
    """A widget without calls, and an owner without widgets, are told so."""
    record(db, owner.widget_id, session_name(), "widget_load", days_ago(1))
    usage_page.open(owner)
    expect(usage_page.panel("Day by day")).to_contain_text("No calls in this period.")
    expect(usage_page.panel("Refused events")).to_contain_text("None in this period")
    usage_page.page.get_by_role("button", name="Sign out").click()
    email = f"new-{owner.email}"
    sign_up(email)

    usage_page.sign_in(Owner(UUID(int=0), email, UUID(int=0), ""))

    expect(usage_page.page.get_by_role("heading", name="No widgets yet")).to_be_visible()


def test_a_session_that_has_ended(usage_page: UsagePage, played: Owner) -> None:
    """A token that the project does not take any more leads back to signing in."""
    usage_page.open(played)

    usage_page.page.route("**/rest/v1/rpc/**", lambda route: route.continue_(headers=forged(route)))
    usage_page.page.get_by_role("combobox", name="Period").select_option("Last 7 days")

    expect(usage_page.page.get_by_text("You are signed out.")).to_be_visible()


def forged(route: Route) -> dict[str, str]:
    return route.request.headers | {"authorization": "Bearer e30.e30.AAAA"}


def test_refused_domains_come_with_their_remedy(
    stack: Stack, http: httpx.Client, usage_page: UsagePage, played: Owner
) -> None:
    """What the door turned away a moment ago stands there with the host to add."""
    answer = http.post(
        "/rest/v1/rpc/track_event",
        headers={"apikey": stack.publishable_key, "origin": "https://new-shop.example"},
        json={"widget_id": str(played.widget_id), "event_type": "widget_load", "session_id": "s"},
    )
    assert answer.status_code == 403

    usage_page.open(played)

    [row] = usage_page.rows("Refused events")
    assert row[:3] == [
        played.widget_name,
        "new-shop.example",
        "If this is your page, add new-shop.example to the widget's allowed domains.",
    ]


# Safety


def test_what_senders_write_stays_text(
    db: Connection, usage_page: UsagePage, new_owner_with_widget: Callable[..., Owner], tmp_path: Path
) -> None:
    """Markup in a page's address, a host, a name or a code is shown as it is and runs nowhere, nor does a formula."""
    owner = new_owner_with_widget(f"Shop {MARKUP}")
    session = session_name()
    record(db, owner.widget_id, session, "widget_load", days_ago(1), page_url=HOSTILE)
    record(db, owner.widget_id, session, "call_start", days_ago(1), call_id="=1+1")
    record(db, owner.widget_id, session, "call_error", days_ago(1), call_id="=1+1", properties={"code": MARKUP})
    refuse(db, owner.widget_id, MARKUP)
    db.execute("select refresh_widget_health()")

    usage_page.open(owner)
    usage_page.page.get_by_role("table", name="Calls", exact=True).get_by_role("button").click()
    expect(usage_page.page.get_by_role("dialog")).to_contain_text(MARKUP)
    expect(usage_page.page.get_by_role("dialog")).to_contain_text(HOSTILE)
    usage_page.page.keyboard.press("Escape")
    [call] = download(usage_page.page, "Download CSV: all calls of the period", tmp_path)

    assert usage_page.rows("Busiest pages")[0][0] == HOSTILE.removeprefix("https://")
    assert usage_page.rows("Refused events")[0][1] == MARKUP
    assert usage_page.page.locator("img, script:not([src])").count() == 0
    assert call["call_id"] == "'=1+1"
    assert usage_page.complaints == []


def test_the_policy_stops_what_gets_in(usage_page: UsagePage, played: Owner, stack: Stack) -> None:
    """Even markup that somebody got into the page would neither run nor reach another host; no secret is in it."""
    usage_page.open(played)

    outcome = usage_page.page.evaluate(
        """async () => {
          const failed = [];
          try { document.body.innerHTML = "<img src=x>"; } catch { failed.push("markup"); }
          try { await fetch("/usage.min.js"); } catch { failed.push("another host"); }
          return failed;
        }"""
    )

    assert outcome == ["markup", "another host"]
    source = httpx.get(usage_page.site.address("/dashboard/"), timeout=60).text
    assert stack.publishable_key in source
    assert stack.secret_key not in source
    assert stack.keys.jwt_secret not in source


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(db: Connection, usage_page: UsagePage, played: Owner, scheme: Any) -> None:
    """axe finds nothing serious on the sign-in, on the page, or in a call, in light and in dark."""
    refuse(db, played.widget_id, "other.example")
    page = usage_page.page
    page.emulate_media(color_scheme=scheme)
    page.goto(usage_page.site.address("/dashboard/"))
    expect(page.get_by_label("Email")).to_be_visible()
    findings = axe(page)
    page.get_by_role("button", name="No password").click()
    findings += axe(page)

    usage_page.open(played)
    page.get_by_text("Show as a table").click()
    findings += axe(page)
    page.get_by_role("table", name="Calls", exact=True).get_by_role("button").first.click()
    expect(page.locator("dialog .reasons")).to_be_visible()
    findings += axe(page)

    assert findings == []


def test_it_fits_every_screen(usage_page: UsagePage, owner: Owner, db: Connection) -> None:
    """From a small phone to a big desk the page itself never scrolls sideways."""
    play_call(db, owner.widget_id, days_ago(1), 5, page_url=f"https://shop.example/{'long' * 40}")
    db.execute("select refresh_widget_health()")
    usage_page.open(owner)

    widths = {}
    for width in (320, 390, 768, 1280, 1920):
        usage_page.page.set_viewport_size({"width": width, "height": 800})
        widths[width] = usage_page.page.evaluate("document.documentElement.scrollWidth")

    assert widths == {width: width for width in widths}
