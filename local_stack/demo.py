"""A day of a company's widgets, played over HTTP into the running stack, cleaned up, billed and exported.

The day ends now. Its events carry their age, as a browser's do that was offline, so nothing in the database is
backdated by hand. The same seed plays the same day.
"""

import json
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import httpx
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from local_stack import demo_history, supervisor
from local_stack.places import ROOT, RUN
from local_stack.supervisor import Running
from widget_analytics import Period, Usage, WidgetAnalytics

SEED = 7
CSV = RUN / "bill.csv"
AGENTS = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1"
    " Mobile/15E148 Safari/604.1",
]


@dataclass(frozen=True)
class Site:
    """A page with a widget, and how many sessions it has in the day."""

    widget_id: UUID
    name: str
    page: str
    sessions: int


BAKERY = UUID("11111111-1111-7111-8111-111111111111")
CHAT = UUID("22222222-2222-7222-8222-222222222222")
CLINIC = UUID("33333333-3333-7333-8333-333333333333")
PLAYGROUND = UUID("44444444-4444-7444-8444-444444444444")
SALES_DEMO = UUID("55555555-5555-7555-8555-555555555555")

SITES = [
    Site(BAKERY, "Bakery voice", "https://bakery.example/order", 60),
    Site(BAKERY, "Bakery voice", "https://cafe.bakery.example/", 30),
    Site(CHAT, "Bakery chat", "https://shop.bakery.example/cakes?utm_source=mail", 50),
    Site(CLINIC, "Clinic voice", "https://clinic.example/appointments", 70),
    Site(CLINIC, "Clinic voice", "https://clinic-copycat.example/", 8),  # refused: not an allowed domain
    Site(SALES_DEMO, "Sales demo", "https://company.example/demo", 10),  # taken, not stored
]


@dataclass
class Delivery:
    """One request of a browser: the events in it, and the moment at which it is sent."""

    site: Site
    agent: str
    at: datetime
    events: list[dict[str, Any]]


@dataclass
class Day:
    """What is to be sent, and what a bill should find in it."""

    deliveries: list[Delivery] = field(default_factory=list)
    true_seconds: defaultdict[UUID, float] = field(default_factory=lambda: defaultdict(float))
    troubles: Counter[str] = field(default_factory=Counter)


def main() -> int:
    console = Console(width=max(100, Console().width))
    stack = supervisor.running()
    if stack is None:
        print("No stack is running: scripts/demo starts it.", file=sys.stderr)
        return 1
    end = datetime.now(UTC)
    day = play(random.Random(SEED), end)  # noqa: S311 a simulation, not a secret

    console.rule("Two months of traffic before that")
    console.print(demo_history.fill(stack.database_url, until=end - timedelta(days=1)))

    console.rule("A day of traffic")
    answers = send(stack, day, console)
    troubles = ", ".join(f"{count} {what}" for what, count in sorted(day.troubles.items()))
    console.print(f"{len(day.deliveries)} requests over HTTP: {troubles}")
    console.print(f"answers: {', '.join(f'{count} {what}' for what, count in sorted(answers.items()))}")

    console.rule("Cleanup")
    cleanup = httpx.post(
        f"{stack.api_url}/functions/v1/cleanup",
        headers={"authorization": f"Bearer {stack.keys.cron_secret}"},
        timeout=60,
    )
    cleanup.raise_for_status()
    console.print_json(cleanup.text)

    period = Period((end - timedelta(days=1)).replace(second=0, microsecond=0), next_minute(end))
    console.rule("The bill")
    with WidgetAnalytics(url=stack.api_url, secret_key=stack.keys.secret_key) as analytics:
        console.print(bill(analytics, period, day))
    export(stack, period, console)
    demo_history.count(stack.database_url)
    introduce(stack, console)
    return 0


def next_minute(instant: datetime) -> datetime:
    return instant.replace(second=0, microsecond=0) + timedelta(minutes=1)


def play(dice: random.Random, end: datetime) -> Day:
    """Make up the day that ends at `end`."""
    day = Day()
    for site in SITES:
        for _ in range(site.sessions):
            _play_session(dice, day, site, end - timedelta(hours=dice.uniform(0.2, 22)))
    day.deliveries.sort(key=lambda delivery: delivery.at)
    return day


def _play_session(dice: random.Random, day: Day, site: Site, at: datetime) -> None:
    session_id = demo_history.uuid7(dice, at)
    events: list[dict[str, Any]] = []

    def happen(event_type: str, when: datetime, **fields: Any) -> None:
        events.append({
            "widget_id": str(site.widget_id), "event_type": event_type, "session_id": session_id,
            "event_id": demo_history.uuid7(dice, when), "seq": len(events) + 1, "at": when, **fields,
        })  # fmt: skip

    happen("widget_load", at, page_url=site.page)
    at += timedelta(seconds=dice.uniform(1, 40))
    happen("widget_open", at)
    calls = dice.choices([0, 1, 2, 3], [30, 55, 10, 5])[0]
    crashes = dice.random() < 0.08
    for number in range(1, calls + 1):
        at += timedelta(seconds=dice.uniform(2, 60))
        length = timedelta(seconds=dice.lognormvariate(4.6, 0.8))
        call_id = f"{session_id}-{number}"
        happen("call_start", at, call_id=call_id)
        beats = int(length / timedelta(seconds=30))
        for beat in range(beats + 1):
            happen("call_heartbeat", at + beat * timedelta(seconds=30), call_id=call_id)
        at += length
        if site.page.startswith("https://clinic-copycat") or site.widget_id == SALES_DEMO:
            pass  # these are nobody's bill
        elif dice.random() < 0.04:
            happen("call_error", at, call_id=call_id, properties={"code": "media-timeout"})
            day.troubles["failed calls"] += 1
            continue
        else:
            day.true_seconds[site.widget_id] += length.total_seconds()
        if crashes and number == calls:
            day.troubles["crashed browsers"] += 1
        else:
            happen("call_end", at, call_id=call_id)
    _deliver(dice, day, site, events)


def _deliver(dice: random.Random, day: Day, site: Site, events: list[dict[str, Any]]) -> None:
    """Send each event as it happens, or late, or twice, or in the wrong order."""
    agent = dice.choice(AGENTS)
    sent = [Delivery(site, agent, event["at"], [event]) for event in events]
    if dice.random() < 0.1:
        day.troubles["offline for a while"] += 1
        at = events[-1]["at"] + timedelta(minutes=dice.uniform(1, 90))
        sent = [Delivery(site, agent, at, events)]
    elif dice.random() < 0.1:
        day.troubles["out of order"] += 1
        times = [delivery.at for delivery in sent]
        dice.shuffle(sent)
        latest = max(times)
        for place, delivery in enumerate(sent):
            delivery.at = latest + timedelta(seconds=place)
    if dice.random() < 0.1:
        day.troubles["sent twice"] += 1
        sent += [Delivery(site, agent, delivery.at + timedelta(seconds=5), delivery.events) for delivery in sent]
    day.deliveries += sent


def send(stack: Running, day: Day, console: Console) -> Counter[str]:
    """Send every delivery as a browser does, a form with the key in the query; returns how they were answered."""
    url = f"{stack.api_url}/rest/v1/rpc/track_events?apikey={stack.keys.publishable_key}"
    answers: Counter[str] = Counter()

    with httpx.Client(timeout=30) as http, Progress(console=console, transient=True) as progress:

        def one(delivery: Delivery) -> dict[str, Any]:
            now = datetime.now(UTC)
            events = [
                {name: value for name, value in event.items() if name != "at"}
                | {"age_ms": round((now - event["at"]) / timedelta(milliseconds=1))}
                for event in delivery.events
            ]
            origin = "/".join(delivery.site.page.split("/")[:3])
            answer = http.post(
                url,
                content=urlencode({"events": json.dumps(events)}),
                headers={
                    "content-type": "application/x-www-form-urlencoded",
                    "origin": origin,
                    "user-agent": delivery.agent,
                },
            )
            if answer.is_error:
                raise RuntimeError(f"{answer.status_code} {answer.text}")
            body: dict[str, Any] = answer.json()
            return body

        with ThreadPoolExecutor(8) as browsers:
            for body in progress.track(browsers.map(one, day.deliveries), len(day.deliveries), description="sending"):
                answers["events accepted"] += body["accepted"]
                answers["duplicates"] += body["duplicates"]
                answers["refused"] += len(body["rejected"])
    return answers


def bill(analytics: WidgetAnalytics, period: Period, day: Day) -> Table:
    """The bill per widget, beside what the callers really spoke."""
    names = {site.widget_id: site.name for site in SITES}
    table = Table(title=f"{period.start:%Y-%m-%d %H:%M} to {period.end:%Y-%m-%d %H:%M} UTC", box=box.SIMPLE)
    table.add_column("widget", no_wrap=True)
    for heading in ("calls", "observed", "heartbeat", "assumed", "failed", "billable seconds", "spoken"):
        table.add_column(heading, justify="right", no_wrap=True)
    for usage in sorted(analytics.usage(period), key=lambda usage: names[usage.widget_id]):
        table.add_row(
            names[usage.widget_id],
            *(str(n) for n in _counts(usage)),
            f"{usage.billable_seconds:,.3f}",
            f"{day.true_seconds[usage.widget_id]:,.3f}",
        )
    return table


def _counts(usage: Usage) -> Iterator[int]:
    yield usage.calls
    yield from (usage.observed_calls, usage.heartbeat_calls, usage.assumed_calls, usage.failed_calls)


def export(stack: Running, period: Period, console: Console) -> None:
    """Write the calls behind the bill, with the command that a billing script runs."""
    arguments = ["export", "--from", f"{period.start:%Y-%m-%dT%H:%M}", "--to", f"{period.end:%Y-%m-%dT%H:%M}"]
    arguments += ["--detail", "calls", "--output", str(CSV.relative_to(ROOT))]
    console.print(f"$ widget-analytics {' '.join(arguments)}", highlight=False)
    subprocess.run(
        [sys.executable, "-m", "widget_analytics", *arguments],
        cwd=ROOT,
        env={**os.environ, "SUPABASE_URL": stack.api_url, "SUPABASE_SECRET_KEY": stack.keys.secret_key},
        check=True,
    )


def introduce(stack: Running, console: Console) -> None:
    """Say what runs where, and how to try it."""
    console.rule("The stack goes on running; scripts/down stops it")
    for name, value in (
        ("API", stack.api_url),
        ("database", stack.database_url),
        ("publishable key", stack.keys.publishable_key),
        ("secret key", stack.keys.secret_key),
        ("cron secret", stack.keys.cron_secret),
        ("bill", str(CSV)),
        ("usage page", f"{stack.demo_site_url}dashboard/"),
        *(("sign in as", f"{owner} with password {demo_history.PASSWORD}") for owner in demo_history.OWNERS),
    ):
        console.print(f"{name:16} {value}", soft_wrap=True, highlight=False)
    console.print("\nTry:", highlight=False)
    console.print(
        f"curl '{stack.api_url}/rest/v1/rpc/track_event?apikey={stack.keys.publishable_key}'"
        f" -H 'Origin: https://any.example' -d widget_id={PLAYGROUND} -d event_type=call_start -d session_id=mine",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


if __name__ == "__main__":
    sys.exit(main())
