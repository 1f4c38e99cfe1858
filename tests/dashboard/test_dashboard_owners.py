"""How somebody becomes a user of the page: a password by mail, an invitation, a widget that has sent nothing yet."""

from typing import Any

import httpx
import pytest
from playwright.sync_api import Request, expect

from local_stack.demo_site import DemoSite, Page
from local_stack.stack import Stack
from tests.conftest import NewWidget
from tests.dashboard.conftest import PASSWORD, Owner, UsagePage, axe
from tests.support import Connection

NEW_PASSWORD = "correct horse battery staple"
# As GoTrue answers a link that was used already.
USED_LINK = "#error=access_denied&error_code=otp_expired&error_description=Email+link+is+invalid+or+has+expired"


def reset_link(db: Connection, stack: Stack, site: DemoSite, owner: Owner) -> str:
    """The link of the mail. The local Auth sends its own address as the place to return to, a hosted one the page's."""
    [row] = db.execute("select recovery_token from auth.users where id = %s", [owner.user_id]).fetchall()
    return (
        f"{stack.api_url}/auth/v1/verify?type=recovery&token={row['recovery_token']}"
        f"&redirect_to={site.address('/dashboard/')}&apikey={stack.publishable_key}"
    )


def sign_in(usage_page: UsagePage, owner: Owner, password: str) -> None:
    usage_page.page.get_by_label("Email").fill(owner.email)
    usage_page.page.get_by_label("Password").fill(password)
    usage_page.page.get_by_role("button", name="Sign in").click()


def choose_password(usage_page: UsagePage, owner: Owner) -> None:
    page = usage_page.page
    expect(page.get_by_role("heading", name="Choose a password")).to_be_visible()
    expect(page.get_by_text(f"For {owner.email}.")).to_be_visible()
    assert "access_token" not in page.url
    page.get_by_label("New password").fill(NEW_PASSWORD)
    page.get_by_role("button", name="Save the password").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def test_a_forgotten_password(db: Connection, stack: Stack, usage_page: UsagePage, owner: Owner) -> None:
    """Asked for on the page, a link leads to a new password, which is the one from then on."""
    page = usage_page.page
    page.goto(usage_page.site.address("/dashboard/"))
    page.get_by_role("button", name="No password, or forgotten it?").click()
    page.get_by_label("Email").fill(owner.email)
    with page.expect_request("**/auth/v1/recover*") as asked:
        page.get_by_role("button", name="Send the link").click()
    assert httpx.URL(asked.value.url).params["redirect_to"] == usage_page.site.address("/dashboard/")
    expect(page.get_by_role("status")).to_contain_text(f"If {owner.email} has an account here")

    page.goto(reset_link(db, stack, usage_page.site, owner))
    choose_password(usage_page, owner)

    page.get_by_role("button", name="Sign out").click()
    sign_in(usage_page, owner, PASSWORD)
    expect(page.get_by_role("alert")).to_contain_text("Invalid login credentials")
    sign_in(usage_page, owner, NEW_PASSWORD)
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def test_an_invited_owner(stack: Stack, http: httpx.Client, usage_page: UsagePage, owner: Owner) -> None:
    """The link of an invitation asks for a password before anything else."""
    session = http.post(
        "/auth/v1/token?grant_type=password",
        headers={"apikey": stack.publishable_key},
        json={"email": owner.email, "password": PASSWORD},
    ).json()
    fields = {name: session[name] for name in ("access_token", "refresh_token", "expires_in", "token_type")}

    usage_page.page.goto(f"{usage_page.site.address('/dashboard/')}#{httpx.QueryParams(fields | {'type': 'invite'})}")

    choose_password(usage_page, owner)


def test_a_link_that_was_used(usage_page: UsagePage) -> None:
    """The page says so, and offers to send another."""
    usage_page.page.goto(usage_page.site.address("/dashboard/") + USED_LINK)

    expect(usage_page.page.get_by_role("heading", name="This link does not work any more")).to_be_visible()
    expect(usage_page.page.get_by_text("Email link is invalid or has expired.")).to_be_visible()
    expect(usage_page.page.get_by_role("button", name="Send the link")).to_be_visible()
    assert "error" not in usage_page.page.url


def test_an_empty_widget_waits_for_its_first_event(usage_page: UsagePage, sign_up: Any, new_widget: NewWidget) -> None:
    """Its snippet, put on a page as it stands, brings the first event, which appears by itself."""
    email = "empty@owner.example"
    user_id = sign_up(email)
    widget_id = new_widget(user_id, ("127.0.0.1",), name="New voice")
    owner = Owner(user_id, email, widget_id, "New voice")
    usage_page.sign_in(owner)
    page = usage_page.page
    setup = page.get_by_role("region", name="Set up")
    expect(setup).to_contain_text("Events are taken from 127.0.0.1 alone")
    expect(setup).to_contain_text("Waiting for the first event.")
    expect(page.locator(".figure")).to_have_count(0)
    expect(page.get_by_text("every page")).to_have_count(0)
    assert axe(page) == []

    snippet = setup.locator("pre").inner_text()
    assert str(widget_id) in snippet
    usage_page.site.pages["/new"] = Page(f"<!doctype html><title>shop</title><body>{snippet}</body>")
    shop = page.context.new_page()
    shop.goto(usage_page.site.address("/new"))

    expect(page.get_by_role("heading", name="The first event of New voice has arrived")).to_be_visible()
    expect(page.get_by_text("a page loaded the widget")).to_be_visible()
    expect(page.locator(".figure")).to_have_count(4)
    assert usage_page.complaints == []


def test_a_hidden_page_does_not_ask(usage_page: UsagePage, owner: Owner) -> None:
    """While nobody sees the page it does not look for a first event; shown again, it looks at once."""
    looks: list[Request] = []
    page = usage_page.page
    page.on("request", lambda request: looks.append(request) if "/widget_analytics?" in request.url else None)
    usage_page.sign_in(owner)
    expect(page.get_by_text("Waiting for the first event.")).to_be_visible()

    with page.expect_request("**/widget_calls?*"):  # a look is under way no more
        pass
    show(page, hidden=True)
    before = len(looks)
    page.wait_for_timeout(3_500)
    while_hidden = len(looks) - before
    with page.expect_request("**/widget_analytics?*"):
        show(page, hidden=False)

    assert while_hidden == 0


def show(page: Any, *, hidden: bool) -> None:
    page.evaluate(
        """(hidden) => {
          Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


@pytest.mark.counts_answers
def test_a_widget_that_no_page_may_use(usage_page: UsagePage, sign_up: Any, new_widget: NewWidget) -> None:
    """The page says that, and whom to ask; a refused event shows up while it waits."""
    email = "closed@owner.example"
    user_id = sign_up(email)
    widget_id = new_widget(user_id, (), name="Closed voice")

    usage_page.sign_in(Owner(user_id, email, widget_id, "Closed voice"))

    setup = usage_page.page.get_by_role("region", name="Set up")
    expect(setup).to_contain_text("No page may send its events yet: ask billing@company.example")
    expect(usage_page.panel("Refused events")).to_contain_text("None in this period.")
    url = f"{usage_page.site.options['url']}/rest/v1/rpc/track_event"
    httpx.post(
        url,
        headers={"apikey": usage_page.site.options["key"], "origin": "https://new-shop.example"},
        json={"widget_id": str(widget_id), "event_type": "widget_load", "session_id": "s"},
        timeout=30,
    )
    expect(usage_page.panel("Refused events")).to_contain_text("add new-shop.example to the widget's allowed domains")
