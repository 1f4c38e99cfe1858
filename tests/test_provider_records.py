"""A call provider's own records: kept once, matched with the calls that browsers reported, billed once."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from tests.conftest import NewWidget
from tests.support import Connection, Row, calls_of, differences, record

# A browser's events may still come for these.
NOW = datetime.now(UTC).replace(microsecond=0)
START = NOW - timedelta(days=2)


def at(seconds: float, start: datetime = START) -> datetime:
    return start + timedelta(seconds=seconds)


def tell(db: Connection, record_id: str, /, provider: str = "vapi", **fields: Any) -> Row:
    """A record, as the Edge Function hands it in."""
    names = ", ".join(f"{name} => %({name})s" for name in fields)
    row = db.execute(
        f"select public.record_widget_provider_call(%(p)s, %(r)s{names and ', ' + names}) as answer",
        {"p": provider, "r": record_id} | fields,
    ).fetchone()
    assert row is not None
    answer: Row = row["answer"]
    return answer


def match(db: Connection) -> Row:
    row = db.execute("select * from public.match_widget_provider_records()").fetchone()
    assert row is not None
    return row


def lengths(db: Connection, widget_id: UUID) -> dict[str, tuple[Any, Any]]:
    """Of each call, by its session: how long it was, and what says so."""
    return {c["session_id"]: (c["duration_seconds"], c["evidence"]) for c in calls_of(db, widget_id)}


def name() -> str:
    return f"call-{uuid4()}"


def test_a_record_bills_the_call_of_its_id(db: Connection, new_widget: NewWidget) -> None:
    """The page passed the provider's id to callStart(): its record says when the call began and ended."""
    widget_id, call_id = new_widget(), name()
    record(db, widget_id, "s", "call_start", at(0), call_id=call_id)
    record(db, widget_id, "s", "call_end", at(300), call_id=call_id)

    answer = tell(db, call_id, started_at=at(2), ended_at=at(290))
    again = tell(db, call_id, started_at=at(2), ended_at=at(290), cost=Decimal("0.42"), cost_currency="USD")
    repeat = tell(db, call_id, started_at=at(2), ended_at=at(290), cost=Decimal("0.42"), cost_currency="USD")

    match_of = {"matched": True, "widget_id": str(widget_id), "session_id": "s", "call_id": call_id}
    assert answer == {"record": "stored"} | match_of
    assert again == {"record": "changed"} | match_of
    assert repeat == {"record": "duplicate"} | match_of
    assert lengths(db, widget_id) == {"s": (288, "provider")}
    assert differences(db, widget_id) == []
