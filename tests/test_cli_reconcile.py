"""The command `reconcile`, and what the report says of call providers."""

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
from pathlib import Path
from uuid import UUID

import pytest

from local_stack.stack import Stack
from tests.client_support import environment, run
from tests.conftest import NewOwner, NewWidget
from tests.provider_support import a_name, name_agent, tell
from tests.support import Connection, record
from widget_analytics import Period, WidgetAnalytics

MONTH = "2019-07"
START = datetime(2019, 7, 10, tzinfo=UTC)


@pytest.fixture
def provider(db: Connection, new_widget: NewWidget) -> Iterator[tuple[str, UUID]]:
    """A provider with a matched call, a hidden one and one that it missed, and their widget."""
    name, widget_id = a_name("p")[:10], new_widget(name="Bakery <voice>")
    name_agent(db, name, "*", widget_id)
    matched = a_name()
    for call_id, start in ((matched, START), ("missed", START + timedelta(hours=2))):
        record(db, widget_id, "s", "call_start", start, call_id=call_id)
        record(db, widget_id, "s", "call_end", start + timedelta(seconds=65), call_id=call_id)
    cost = {"cost": Decimal("1.25"), "cost_currency": "USD"}
    tell(db, name, matched, started_at=START, ended_at=START + timedelta(seconds=61), **cost)
    hidden = START + timedelta(hours=1)
    tell(db, name, a_name(), started_at=hidden, ended_at=hidden + timedelta(seconds=30), **cost)
    yield name, widget_id
    db.execute("delete from public.widget_provider_agents where provider = %s", [name])


def test_a_month_is_reconciled_as_a_table_and_as_rows(stack: Stack, tmp_path: Path, provider: tuple[str, UUID]) -> None:
    """For people without an option; as CSV and JSON Lines for programs. A month without any says so."""
    name, widget_id = provider
    env = environment(stack)

    table = run(env, tmp_path, "reconcile", "--month", MONTH)
    as_csv = run(env, tmp_path, "reconcile", "--month", MONTH, "--format", "csv")
    as_lines = run(env, tmp_path, "reconcile", "--month", MONTH, "--format", "jsonl", "-o", "rows.jsonl")
    nothing = run(env, tmp_path, "reconcile", "--month", "1999-01")
    no_month = run(env, tmp_path, "reconcile", "--month", "2019-13")

    (line,) = (line for line in table.stdout.splitlines() if name in line)
    assert " ".join(line.split()[1:]) == "Bakery <voice> 1 61.000000 61.000000 +0.000000 1 1 1 2.50 USD"
    (row,) = (row for row in csv.DictReader(as_csv.stdout.splitlines()) if row["provider"] == name)
    assert (row["widget_id"], row["provider_only_seconds"], row["costs"]) == (str(widget_id), "30.000000", "USD=2.50")
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    (found,) = (line for line in lines if line["provider"] == name)
    assert (found["matched_calls"], found["browser_only_seconds"], found["costs"]) == (1, 65, ["USD=2.50"])
    assert (as_lines.returncode, as_lines.stdout) == (0, "")
    assert nothing.stdout == "no calls of a provider, and no widget with one, in this month\n"
    assert (no_month.returncode, no_month.stderr.splitlines()[0][:26]) == (2, "widget-analytics: --month:")


def test_the_report_sets_providers_costs_beside_the_bill(
    stack: Stack, tmp_path: Path, provider: tuple[str, UUID]
) -> None:
    """A block of its own, names as text; a month without providers has none."""
    name, _ = provider
    env = environment(stack)

    run(env, tmp_path, "report", "--month", MONTH, "--output", "with.html")
    other = run(env, tmp_path, "report", "--month", "1999-01", "--output", "-").stdout

    page = (tmp_path / "with.html").read_text()
    block = page[page.index("<h2>Call providers</h2>") :]
    assert f'<td data-label="Provider">{name}</td>' in block
    assert '<td data-label="Its cost">2.50 USD</td>' in block, block
    assert "Bakery <voice>" in unescape(block)
    assert "Bakery <voice>" not in block
    assert "Call providers" not in other
    assert other.rstrip().endswith("</html>")


def test_an_owner_reads_no_reconciliation(stack: Stack, tmp_path: Path, new_owner: NewOwner) -> None:
    """It is refused; the client says so."""
    token = stack.token_for(new_owner())
    with (
        WidgetAnalytics(url=stack.api_url, publishable_key=stack.publishable_key, access_token=token) as client,
        pytest.raises(Exception, match="permission denied"),
    ):
        client.reconciliation(Period(START, START + timedelta(days=1)))
