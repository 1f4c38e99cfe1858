"""A provider's call, the same call as a page reported it, and what is billed for it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from tests.provider_payloads import Told
from tests.support import Connection, Row, record


def told_call(**changes: object) -> Told:
    """A call of two minutes, ten minutes ago, whose times are no whole seconds."""
    started = datetime.now(UTC).replace(microsecond=300_000) - timedelta(minutes=10)
    told = Told(call_id=f"call-{uuid4()}", started_at=started, ended_at=started + timedelta(seconds=120.4))
    return replace(told, **changes)  # type: ignore[arg-type]


def browser_tells(db: Connection, widget_id: UUID, told: Told, session_id: str, *, late_by: float = 2) -> None:
    """The page passed the provider's id to callStart(), and its end was lost until a minute later."""
    record(db, widget_id, session_id, "call_start", told.started_at + timedelta(seconds=late_by), call_id=told.call_id)
    record(db, widget_id, session_id, "call_end", told.ended_at + timedelta(seconds=60), call_id=told.call_id)


def bill(db: Connection, widget_id: UUID) -> list[Row]:
    """The widget's calls of the last ten days, once the job has matched what waits."""
    db.execute("select public.match_widget_provider_records()")
    return db.execute(
        "select * from public.widget_billing_calls(now() - interval '10 days', now()) where widget_id = %s"
        " order by started_at",
        [widget_id],
    ).fetchall()


def records_of(db: Connection, told: Told) -> list[Row]:
    return db.execute(
        "select * from public.widget_provider_records where call_id = %s order by record_id", [told.call_id]
    ).fetchall()
