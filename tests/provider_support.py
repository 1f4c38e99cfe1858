"""What tests of providers' records share: records as the Edge Function hands them in, and the job that matches them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from tests.support import Connection, Row, calls_of

# Late enough for a browser's events to come still, and too late for them.
RECENT = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)
SETTLED = RECENT - timedelta(days=7)


def at(seconds: float, start: datetime = RECENT) -> datetime:
    return start + timedelta(seconds=seconds)


def a_name(kind: str = "call") -> str:
    return f"{kind}-{uuid4().hex}"


def tell(db: Connection, provider: str, record_id: str, **fields: Any) -> Row:
    """The answer to a record."""
    names = "".join(f", {name} => %({name})s" for name in fields)
    row = db.execute(
        f"select public.record_widget_provider_call(%(p)s, %(r)s{names}) as answer",
        {"p": provider, "r": record_id} | fields,
    ).fetchone()
    assert row is not None
    answer: Row = row["answer"]
    return answer


def match_records(db: Connection) -> Row:
    """What pg_cron does every five minutes."""
    row = db.execute("select * from public.match_widget_provider_records()").fetchone()
    assert row is not None
    return row


def name_agent(db: Connection, provider: str, agent: str, widget_id: UUID | None) -> None:
    db.execute(
        "insert into public.widget_provider_agents (provider, agent, widget_id) values (%s, %s, %s)",
        [provider, agent, widget_id],
    )


def lengths(db: Connection, widget_id: UUID) -> dict[str, tuple[Any, Any]]:
    """Of each call, by its session: how many seconds it has, and what says so."""
    return {c["session_id"]: (c["duration_seconds"], c["evidence"]) for c in calls_of(db, widget_id)}


def provider_call(db: Connection, provider: str, call_id: str) -> Row:
    row = db.execute(
        "select * from public.widget_provider_calls where provider = %s and call_id = %s", [provider, call_id]
    ).fetchone()
    assert row is not None
    return row


def alarms(db: Connection, provider: str) -> list[tuple[str, UUID | None]]:
    """Those about a provider, whose name no other test uses."""
    found = db.execute("select * from public.widget_alarms() where message like %s", [f"%{provider}%"]).fetchall()
    return [(row["alarm"], row["widget_id"]) for row in found]
