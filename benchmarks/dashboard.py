"""How soon the usage page shows its figures, in Chromium, with many calls behind it.

scripts/bench-dashboard --calls 1000000 --rounds 5
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import psycopg
from playwright.sync_api import Browser, Page, expect, sync_playwright

from benchmarks.screenshots import sign_in
from local_stack import demo_history
from local_stack.browsers.chromium import launch
from local_stack.demo_site import DemoSite
from local_stack.stack import Stack

OWNER = UUID("0de00000-0000-7000-8000-000000000001")

# A year of calls of 22 widgets; 61 of each 100 are of the two widgets of the owner who looks. Without triggers: calls
# alone are written, as nothing here computes them from events.
CALLS = """
    insert into widget_internal.call_states (
      widget_id, started_at, ended_at, session_id, call_id, outcome, evidence, start_claim, end_claim,
      first_event_at, last_event_at
    )
    select
      case when n %% 100 < 61
        then ('{11111111-1111-7111-8111-111111111111,22222222-2222-7222-8222-222222222222}'::uuid[])[1 + n %% 2]
        else md5((n %% 20)::text)::uuid end,
      t.at, e.at, 'session-' || n, 'call',
      case when n < 20 then 'open' when n %% 33 = 0 then 'failed' else 'completed' end,
      case when n >= 20 then ('{observed,observed,observed,provider,heartbeat,assumed}'::text[])[1 + n %% 6] end,
      array[2, 0, 1, -(extract(epoch from t.at) * 1000000)::bigint],
      case when n >= 20 then array[2, 0, 1, (extract(epoch from e.at) * 1000000)::bigint] end,
      t.at, coalesce(e.at, t.at)
    from generate_series(0, %(calls)s - 1) n
    cross join lateral (select now() - n * interval '365 days' / %(calls)s as at) t
    cross join lateral (select case when n >= 20 then t.at + make_interval(secs => 5 + n %% 300 + 0.25) end as at) e
"""

PLANS = """
    insert into public.widget_plans
      (widget_id, valid_from, name, included_seconds, price_per_minute, currency, monthly_fee)
    select w.id, date_trunc('month', now() - interval '13 months'), 'Pro', 30000, 0.09, 'EUR', 9.90
    from public.widgets w where w.owner_id = %(owner)s
"""

# Health as the refresh would have counted it: by widget and hour.
HEALTH = """
    insert into widget_internal.health_hours
      (widget_id, hour, events_received, loads, opens, sessions, events_numbered, events_expected)
    select c.widget_id, date_trunc('hour', c.started_at, 'UTC'), 20 * count(*), 5 * count(*), 2 * count(*),
      5 * count(*), 19 * count(*), 20 * count(*)
    from public.widget_calls c
    group by 1, 2;

    insert into widget_internal.health_pages
    select h.widget_id, (h.hour at time zone 'UTC')::date, 'https://shop.example/' || page, 'shop.example',
      sum(h.loads), sum(h.loads), sum(h.opens), sum(h.loads) / 5
    from widget_internal.health_hours h cross join generate_series(1, 20) page
    group by 1, 2, 3;
"""

CLOSE = """
    select close_widget_billing_period(to_char(m.month, 'YYYY-MM'))
    from widget_months_to_close() m order by m.month
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench-dashboard", description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)

    with Stack(durable=False, seed=True) as stack:
        began = time.monotonic()
        demo_history.set_passwords(stack.database_url)
        with psycopg.connect(stack.superuser_url, autocommit=True) as connection:
            connection.execute("set session_replication_role = replica")
            connection.execute(CALLS, {"calls": options.calls})
            connection.execute(PLANS, {"owner": OWNER})
            connection.execute(HEALTH)
            connection.execute("set session_replication_role = origin")
            connection.execute("vacuum analyze")
            connection.execute(CLOSE)
            connection.execute("vacuum analyze")
            owned = connection.execute(
                "select count(*) from public.widget_calls c join public.widgets w on w.id = c.widget_id"
                " where w.owner_id = %s and c.started_at >= now() - interval '60 days'",
                [OWNER],
            ).fetchone()
        assert owned is not None
        print(
            f"{options.calls:,} calls in a year, {owned[0]:,} of the owner's in 60 days,"
            f" written and closed in {time.monotonic() - began:.0f} s",
            flush=True,
        )
        with (
            DemoSite(url=stack.api_url, key=stack.publishable_key, widget_id=UUID(int=0)) as site,
            sync_playwright() as playwright,
            launch(playwright) as browser,
        ):
            measure(browser, site.address("/dashboard/"), options.rounds)
    return 0


def measure(browser: Browser, address: str, rounds: int) -> None:
    with browser.new_context(viewport={"width": 1280, "height": 1240}) as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        sign_in(page, address, demo_history.OWNERS[0], demo_history.PASSWORD)
        shown(page)
        page.close()

        print(f"{'what is seen, from opening the page':45} {'median':>8} {'slowest':>8}")
        times: dict[str, list[float]] = {}
        for _ in range(rounds):
            page = context.new_page()
            for name, taken in visit(page, address):
                times.setdefault(name, []).append(taken)
            page.close()
        for name, all_taken in times.items():
            print(f"{name:45} {statistics.median(all_taken):5.0f} ms {max(all_taken):5.0f} ms", flush=True)


def shown(page: Page) -> None:
    expect(page.locator(".figure")).to_have_count(4)
    expect(page.locator("[aria-busy=true]")).to_have_count(0)


def visit(page: Page, address: str) -> list[tuple[str, float]]:
    """Milliseconds by the page's own clock, which begins when it is opened."""
    page.add_init_script(OBSERVER)
    page.goto(address)
    shown(page)
    first_paint: float = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    marks: dict[str, float] = page.evaluate("window.seen")
    times = [("first paint", first_paint), *marks.items()]
    times.append(("30 days → 90 days: all panels", switch(page, lambda: choose(page, "90d"))))
    return times


def choose(page: Page, period: str) -> Any:
    return page.get_by_role("combobox", name="Period").select_option(period)


def switch(page: Page, act: Callable[[], Any]) -> float:
    began = time.monotonic()
    act()
    expect(page.locator("[aria-busy=true]").first).to_be_visible()
    shown(page)
    return (time.monotonic() - began) * 1000


OBSERVER = """
    window.seen = {};
    const look = () => {
      const mark = (name, holds) => { if (!(name in seen) && holds()) seen[name] = performance.now(); };
      mark("the list of calls", () => document.querySelector(".calls tbody tr"));
      mark("all panels", () => document.querySelector(".figure") && !document.querySelector("[aria-busy=true]"));
    };
    const everything = { subtree: true, childList: true, attributes: true, characterData: true };
    new MutationObserver(look).observe(document, everything);
"""


if __name__ == "__main__":
    sys.exit(main())
