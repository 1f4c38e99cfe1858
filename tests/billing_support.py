"""What tests of bills share: calls of May 2024, plans for them, and the bill."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from tests.support import Connection, Row, record

NOON = datetime(2024, 5, 10, 12, tzinfo=UTC)
MAY = (datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC))


def after(**past: float) -> datetime:
    return NOON + timedelta(**past)


def bill(db: Connection, widget_id: UUID, as_of: datetime | None = None) -> list[Row]:
    return db.execute(
        "select * from public.widget_billing_calls(%s, %s, %s) where widget_id = %s"
        " order by started_at, call_id, session_id",
        [*MAY, as_of, widget_id],
    ).fetchall()


def usage(db: Connection, widget_id: UUID, as_of: datetime | None = None) -> Row:
    row = db.execute(
        "select * from public.widget_billing_usage(%s, %s, %s) where widget_id = %s", [*MAY, as_of, widget_id]
    ).fetchone()
    assert row is not None
    return row


def add_plan(db: Connection, widget_id: UUID, **terms: Any) -> None:
    plan = {"valid_from": "2024-05-01", "name": "Pro", "price_per_minute": Decimal("0.10"), "currency": "EUR"} | terms
    db.execute(
        f"insert into public.widget_plans (widget_id, {', '.join(plan)}) values (%s{', %s' * len(plan)})",
        [widget_id, *plan.values()],
    )


def call(db: Connection, widget_id: UUID, seconds: float, session: str = "s", **end: Any) -> None:
    record(db, widget_id, session, "call_start", NOON, call_id="c")
    record(db, widget_id, session, end.pop("event_type", "call_end"), after(seconds=seconds), call_id="c", **end)


def correct(db: Connection, widget_id: UUID, seconds: float, reason: str = "agreed", by: str = "bob") -> Row:
    row = db.execute(
        "select public.correct_widget_call(%s, 's', 'c', %s::numeric, %s, %s) as call", [widget_id, seconds, reason, by]
    ).fetchone()
    assert row is not None
    call: Row = row["call"]
    return call
