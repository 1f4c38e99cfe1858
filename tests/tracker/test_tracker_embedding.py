"""What docs/embedding.md tells to paste works as it stands."""

import re

from local_stack.browsers import Tab
from local_stack.demo_site import DemoSite
from local_stack.demo_site import Page as SitePage
from local_stack.places import ROOT
from local_stack.stack import Stack
from local_stack.unreliable_proxy import UnreliableProxy
from tests.tracker.ledger import Ledger
from tests.tracker.pages import WATCH

DOCUMENT = (ROOT / "docs" / "embedding.md").read_text()


def test_snippet(tab: Tab, stack: Stack, site: DemoSite, proxy: UnreliableProxy, ledger: Ledger) -> None:
    """Pasted, with the four placeholders filled in, it tracks a visit."""
    [snippet] = re.findall(r"```html\n(.*?)```", DOCUMENT, re.DOTALL)
    for placeholder, value in {
        "https://cdn.your-company.example/usage.min.js": "/usage.min.js",
        "https://YOUR-PROJECT.supabase.co": proxy.url,
        "sb_publishable_YOUR_KEY": stack.publishable_key,
        "YOUR-WIDGET-ID": str(ledger.widget_id),
    }.items():
        assert placeholder in snippet
        snippet = snippet.replace(placeholder, value)
    site.pages["/snippet"] = SitePage(f"<!doctype html><title>A shop</title>{snippet}")
    tab.goto(site.address("/snippet"))

    tab.click("#call")
    tab.click("#hang-up")

    ledger.wait_for("widget_load", "widget_open", "call_start", "call_end")


def test_snippet_of_the_readme(tab: Tab, stack: Stack, site: DemoSite, proxy: UnreliableProxy, ledger: Ledger) -> None:
    """The README's shorter form, with its placeholders filled in, reports a call."""
    [snippet] = re.findall(r"```html\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for placeholder, value in {
        "https://YOUR-REF.supabase.co": proxy.url,
        "sb_publishable_…": stack.publishable_key,
        'widget-id="…"': f'widget-id="{ledger.widget_id}"',
    }.items():
        assert placeholder in snippet
        snippet = snippet.replace(placeholder, value)
    site.pages["/snippet"] = SitePage(f"<!doctype html><title>A shop</title>{snippet}")

    tab.goto(site.address("/snippet"))

    ledger.wait_for("widget_load", "call_start", "call_end")


def test_snippet_without_the_script(tab: Tab, site: DemoSite) -> None:
    """Where a blocker keeps the script away, the widget's buttons still work."""
    [snippet] = re.findall(r"```html\n(.*?)```", DOCUMENT, re.DOTALL)
    snippet = snippet.replace("https://cdn.your-company.example", "/blocked")
    site.pages["/snippet"] = SitePage(f"<!doctype html><title>A shop</title>{WATCH}{snippet}")
    tab.goto(site.address("/snippet"))

    tab.click("#call")
    tab.click("#hang-up")

    assert tab.evaluate("troubles") == []


def test_every_option_is_documented() -> None:
    """The table of options is the options' type."""
    source = (ROOT / "tracker" / "src" / "types.ts").read_text()
    [body] = re.findall(r"interface TrackerOptions \{(.*?)\n\}", source, re.DOTALL)
    options = set(re.findall(r"^  (\w+)\??:", body, re.MULTILINE))

    [table] = re.findall(r"## Options\n(.*?)\n## ", DOCUMENT, re.DOTALL)
    documented = {
        name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }

    assert documented == options


def test_every_field_is_documented(tab: Tab, site: DemoSite, proxy: UnreliableProxy, ledger: Ledger) -> None:
    """A privacy notice copied from the page leaves out nothing that is on the wire."""
    tab.goto(site.address(heartbeat_seconds=0.2))
    tab.click("#open")
    tab.click("#start")
    ledger.wait_until(lambda events: any(event["event_type"] == "call_heartbeat" for event in events))
    tab.click("#fail")
    ledger.wait_for("widget_load", "widget_open", "call_start", "call_error")

    sent: set[str] = set()
    for request in proxy.seen:
        for event in request.events():
            sent |= event.keys() - {"properties"}
            sent |= {f"properties.{name}" for name in event.get("properties", {})}

    [table] = re.findall(r"## What is sent\n(.*?)\n## ", DOCUMENT, re.DOTALL)
    assert sent == set(re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE))
