"""The worked examples in docs/billing.md are what the database bills."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from local_stack.places import ROOT
from tests.conftest import NewWidget
from tests.support import Connection, record
from widget_analytics._selection import KINDS

START = datetime(2024, 5, 10, 12, tzinfo=UTC)
HEAD = "| plan | calls | billable_seconds | charged_seconds | amount |\n|---|---|---|---|---|\n"
COLUMNS = {"increment": "increment_seconds", "minimum": "minimum_seconds", "included": "included_seconds"}


def examples() -> list[list[str]]:
    table = (ROOT / "docs" / "billing.md").read_text().partition(HEAD)[2].partition("\n\n")[0]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]


def plan(terms: str) -> dict[str, object]:
    """Read a plan such as `0.10 EUR, minimum 30, failed`."""
    price, *others = terms.split(", ")
    columns: dict[str, object] = dict(zip(("price_per_minute", "currency"), price.split(), strict=True))
    for term in others:
        name, _, value = term.partition(" ")
        if name == "failed":
            columns["bills_failed_calls"] = True
        elif name == "assumed":
            columns["assumed_calls"] = value
        elif name == "fee":
            columns["monthly_fee"] = value
        else:
            columns[COLUMNS[name]] = int(value)
    return columns


def add_call(db: Connection, widget_id: object, session: str, seconds: float, mark: str) -> None:
    """Add a call: ! failed, ? assumed, = corrected."""
    record(db, widget_id, session, "call_start", START, call_id="c")  # type: ignore[arg-type]
    event_type = "call_error" if mark == "!" else "call_end"
    source = "inferred" if mark == "?" else "browser"
    end = START + timedelta(seconds=999 if mark == "=" else seconds)
    record(db, widget_id, session, event_type, end, call_id="c", source=source)  # type: ignore[arg-type]
    if mark == "=":
        db.execute(
            "select public.correct_widget_call(%s, %s, 'c', %s::numeric, 'why', 'who')", [widget_id, session, seconds]
        )


def test_the_columns_of_exports_are_those_that_are_documented() -> None:
    """Names and order, for each detail, the common ones first."""
    section = (ROOT / "docs" / "billing.md").read_text().partition("\n## Exports\n")[2].partition("\n## ")[0]
    (common,) = (re.findall("`([a-z_]+)`", line) for line in section.splitlines() if line.startswith("`widget_name`"))
    rows = re.findall(r"^\| ([a-z-]+) \| [^|]+ \| (`.*`) \|$", section, re.MULTILINE)

    documented = {detail: (*common, *re.findall("`([a-z_]+)`", columns)) for detail, columns in rows}

    assert documented == {str(detail): kind.file.columns() for detail, kind in KINDS.items()}


def test_there_are_examples() -> None:
    """The table is found, and is not a short one."""
    assert len(examples()) >= 14


@pytest.mark.parametrize(("terms", "calls", "billable", "charged", "amount"), examples())
def test_worked_example(
    db: Connection, new_widget: NewWidget, terms: str, calls: str, billable: str, charged: str, amount: str
) -> None:
    """Each row of the table: plan and calls in, seconds and amount out."""
    widget_id = new_widget()
    if terms != "(none)":
        ended = {"widget_id": widget_id, "valid_from": "2024-06-01", "name": "Ended"} | plan("0 EUR")
        for columns in (ended, {"widget_id": widget_id, "valid_from": "2024-05-01", "name": "Example"} | plan(terms)):
            db.execute(
                f"insert into public.widget_plans ({', '.join(columns)}) values (%s{', %s' * (len(columns) - 1)})",
                list(columns.values()),
            )
    for session, (seconds, mark) in enumerate(re.findall(r"([0-9.]+)([!?=]?)", calls)):
        add_call(db, widget_id, str(session), float(seconds), mark)

    row = db.execute(
        "select billable_seconds, charged_seconds, amount from public.widget_billing_usage('2024-05-01', '2024-06-01')"
        " where widget_id = %s",
        [widget_id],
    ).fetchone()

    assert row is not None
    assert (row["billable_seconds"], row["charged_seconds"]) == (Decimal(billable), Decimal(charged))
    assert ("" if row["amount"] is None else str(row["amount"])) == amount
