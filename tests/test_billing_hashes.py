"""The hashes of statements: anyone can compute them again, no setting changes them, and a forged statement is found."""

import csv
import hashlib
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from local_stack.places import ROOT
from tests.billing_books import Open, add_plan, call, charges, close, correct, lines, new_widget, noon
from tests.support import Connection, record

HASHES = "select c.period, widget_internal.charge_hash(c) as hash from public.widget_statement_charges c"
ODD_SETTINGS = (
    "datestyle = 'SQL, DMY'",
    "intervalstyle = 'sql_standard'",
    "timezone = 'Asia/Kathmandu'",
    "extra_float_digits = -15",
    "bytea_output = 'escape'",
    "standard_conforming_strings = off",
    "escape_string_warning = off",
    "backslash_quote = off",
    "quote_all_identifiers = on",
    "transform_null_equals = on",
    "array_nulls = off",
    "xmlbinary = 'hex'",
    "lc_numeric = 'C'",
    "lc_monetary = 'C'",
    "lc_time = 'C'",
    "search_path = pg_temp",
)

pytest_plugins = ["tests.billing_plugin"]


@pytest.fixture
def db(books_db: Connection) -> Connection:
    return books_db


def iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def number(value: Decimal | int | None) -> str | None:
    text = None if value is None else f"{Decimal(value):f}"
    return text.rstrip("0").rstrip(".") if text and "." in text else text


def sha256(rows: list[list[Any]]) -> str:
    return hashlib.sha256("\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()).hexdigest()


def test_the_hashes_can_be_computed_from_the_rows(db: Connection, year: int) -> None:
    """A charge's hash is that of its row and lines, a month's that of its charges, as docs/billing.md says."""
    march, april = date(year, 3, 1), date(year, 4, 1)
    widget_id = new_widget(db)
    add_plan(db, widget_id, march, name='"Größe" \\ 1', price_per_minute=Decimal("0.1250"))
    call(db, widget_id, noon(march), 61.5)
    call(db, widget_id, noon(march), 100, session='tab\t"\x01é\U0001f600')
    call(db, new_widget(db), noon(march), 0.25)
    record(db, widget_id, "open", "call_start", noon(march), call_id="c")
    close(db, march)
    correct(db, widget_id, 10)
    close(db, april)

    for month in (march, april):
        hashes = []
        for charge in charges(db, month):
            rows: list[list[Any]] = [[
                str(charge["period"]), str(charge["widget_id"]), str(charge["usage_period"]),
                charge["plan_valid_from"] and str(charge["plan_valid_from"]), number(charge["monthly_fee"]),
                str(charge["included_seconds"]), number(charge["price_per_minute"]), charge["currency"],
                number(charge["old_seconds"]),
                number(charge["new_seconds"]), number(charge["old_amount"]), number(charge["new_amount"]),
            ]]  # fmt: skip
            own = [line for line in lines(db, month) if line["widget_id"] == charge["widget_id"]]
            own.sort(key=lambda line: (line["session_id"].encode(), line["call_id"].encode()))
            rows += [
                [
                    line["session_id"], line["call_id"], iso(line["started_at"]), iso(line["ended_at"]),
                    line["outcome"], line["evidence"], number(line["duration_seconds"]), number(line["old_seconds"]),
                    number(line["new_seconds"]), line["rule"], [str(event_id) for event_id in line["event_ids"]],
                ]
                for line in own
            ]  # fmt: skip
            assert sha256(rows) == charge["content_hash"]
            hashes.append(charge["content_hash"])
        period = db.execute("select * from public.widget_billing_periods where period = %s", [month]).fetchone()
        assert period is not None
        head = [str(month), iso(period["period_start"]), iso(period["period_end"]), iso(period["as_of"])]
        content = "\n".join([json.dumps(head), *hashes])
        assert hashlib.sha256(content.encode()).hexdigest() == period["content_hash"]


def as_csv(db: Connection, table: str) -> list[dict[str, str]]:
    with db.cursor().copy(f"copy (select * from public.{table}) to stdout (format csv, header)".encode()) as copy:
        text = b"".join(copy).decode()
    return list(csv.DictReader(io.StringIO(text)))


def test_the_docs_recompute_hashes_from_csv(db: Connection, year: int) -> None:
    """The program in docs/billing.md gives the hashes of all statements from their tables as CSV."""
    march, april = date(year, 3, 1), date(year, 4, 1)
    widget_id = new_widget(db)
    add_plan(db, widget_id, march, price_per_minute=Decimal("0.1250"), increment_seconds=6)
    call(db, widget_id, noon(march), 61.5)
    call(db, widget_id, noon(march), 0.25, session='a,"b"\n\\é')
    close(db, march)
    correct(db, widget_id, 10)
    close(db, april)
    program: dict[str, Any] = {}
    exec((ROOT / "docs" / "billing.md").read_text().split("```python\n")[1].split("```")[0], program)  # noqa: S102 (our own)

    months, charged, billed = (
        as_csv(db, table) for table in ("widget_billing_periods", "widget_statement_charges", "widget_statement_lines")
    )

    assert len(charged) >= 2
    assert [charge["content_hash"] for charge in charged] == [program["charge_hash"](c, billed) for c in charged]
    assert [month["content_hash"] for month in months] == [program["month_hash"](m, charged) for m in months]


def test_a_forged_statement_is_found(db: Connection, year: int) -> None:
    """Whoever switches the guards off and changes a line leaves a hash that does not fit."""
    march = date(year, 3, 1)
    widget_id = new_widget(db)
    call(db, widget_id, noon(march), 100)
    close(db, march)
    assert db.execute("select * from public.broken_widget_statements()").fetchall() == []

    with db.transaction(force_rollback=True):
        db.execute("alter table public.widget_statement_lines disable trigger user")
        db.execute(
            "update public.widget_statement_lines set new_seconds = 1, difference_seconds = 1 where widget_id = %s",
            [widget_id],
        )
        broken = db.execute("select * from public.broken_widget_statements()").fetchall()

    assert broken == [{"period": march, "widget_id": widget_id, "usage_period": march}]


def test_no_setting_changes_a_hash(open_db: Open, year: int) -> None:
    """Closed under odd settings and checked under the usual ones, and the other way round: one text is hashed."""
    march, april = date(year, 3, 1), date(year, 4, 1)
    usual, odd = open_db(), open_db()
    for setting in ODD_SETTINGS:
        odd.execute(f"set {setting}".encode())
    widget_id = new_widget(usual)
    add_plan(usual, widget_id, march, name="back\\slash", price_per_minute=Decimal("1234.50"), increment_seconds=6)
    call(usual, widget_id, noon(march), 61.000001)
    call(usual, widget_id, datetime(year, 4, 2, 3, 4, 5, 678, tzinfo=UTC), 7, session="april")
    hashes = "select content_hash from public.widget_billing_periods where period = %s"

    with usual.transaction(force_rollback=True):
        close(usual, march)
        computed = usual.execute(HASHES.encode()).fetchall()
    odd.execute("select month from public.close_widget_billing_period(%s)", [str(march)])
    correct(odd, widget_id, 10)
    close(usual, april)

    assert odd.execute("show datestyle").fetchone() == {"DateStyle": "SQL, DMY"}
    for connection in (usual, odd):
        assert connection.execute("select * from public.broken_widget_statements()").fetchall() == []
        again = connection.execute(HASHES.encode()).fetchall()
        assert [row for row in again if row["period"] == march] == [row for row in computed if row["period"] == march]
        assert connection.execute(hashes, [april]).fetchone() == usual.execute(hashes, [april]).fetchone()
