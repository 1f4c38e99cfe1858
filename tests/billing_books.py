"""What tests that close months share: a widget, its calls, and what its statements say."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from tests.support import Connection, Row, record

Open = Callable[[], Connection]


def new_widget(db: Connection, owner_id: UUID | None = None) -> UUID:
    if owner_id is not None:
        db.execute("insert into auth.users (id, email) values (%s, %s)", [owner_id, f"{owner_id}@owner.example"])
    row = db.execute("insert into public.widgets (owner_id) values (%s) returning id", [owner_id]).fetchone()
    assert row is not None
    widget_id: UUID = row["id"]
    return widget_id


def add_plan(db: Connection, widget_id: UUID, valid_from: date, **terms: Any) -> None:
    plan = {"name": "Pro", "price_per_minute": Decimal("0.10"), "currency": "EUR"} | terms
    db.execute(
        f"insert into public.widget_plans (widget_id, valid_from, {', '.join(plan)})"
        f" values (%s, %s{', %s' * len(plan)})",
        [widget_id, valid_from, *plan.values()],
    )


def call(db: Connection, widget_id: UUID, at: datetime, seconds: float, session: str = "s") -> None:
    record(db, widget_id, session, "call_start", at, call_id="c")
    record(db, widget_id, session, "call_end", at + timedelta(seconds=seconds), call_id="c")


def correct(db: Connection, widget_id: UUID, seconds: float, session: str = "s") -> None:
    db.execute(
        "select public.correct_widget_call(%s, %s, 'c', %s::numeric, 'agreed', 'bob')", [widget_id, session, seconds]
    )


def close(db: Connection, month: date | str) -> Row:
    row = db.execute("select * from public.close_widget_billing_period(%s)", [str(month)]).fetchone()
    assert row is not None
    return row


def lines(db: Connection, month: date) -> list[Row]:
    return db.execute(
        "select * from public.widget_statement_lines where period = %s"
        " order by usage_period, widget_id, session_id, call_id",
        [month],
    ).fetchall()


def charges(db: Connection, month: date) -> list[Row]:
    return db.execute(
        "select * from public.widget_statement_charges where period = %s order by widget_id, usage_period", [month]
    ).fetchall()


def pending(db: Connection, widget_id: UUID) -> list[Row]:
    return db.execute("select * from public.widget_pending_adjustments() where widget_id = %s", [widget_id]).fetchall()


def noon(month: date) -> datetime:
    return datetime(month.year, month.month, 10, 12, tzinfo=UTC)
