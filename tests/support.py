"""What several tests share: a widget as it sends over HTTP, and rows written into the ledger by hand."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[DictRow]
Row = dict[str, Any]

AGENT = "Mozilla/5.0 (test)"


@dataclass(frozen=True)
class Browser:
    """A page on `origin` that holds the publishable key and sends events over REST."""

    http: httpx.Client
    key: str
    origin: str | None = "https://shop.example"

    def track(self, widget_id: UUID, event_type: str, session_id: str, **fields: Any) -> httpx.Response:
        return self.post("track_event", json=event(widget_id, event_type, session_id, **fields))

    def track_many(self, events: Any) -> httpx.Response:
        return self.post("track_events", json={"events": events})

    def post(self, function: str, headers: Mapping[str, str] | None = None, **body: Any) -> httpx.Response:
        sent = {"apikey": self.key, "user-agent": AGENT} | ({"origin": self.origin} if self.origin else {})
        return self.http.post(f"/rest/v1/rpc/{function}", headers=sent | dict(headers or {}), **body)


def event(widget_id: UUID, event_type: str, session_id: str, **fields: Any) -> Row:
    """An event as `track_events` takes it."""
    return {"widget_id": str(widget_id), "event_type": event_type, "session_id": session_id, **fields}


def session_name() -> str:
    return f"session-{uuid4()}"


def record(db: Connection, widget_id: UUID, session_id: str, event_type: str, at: datetime, **columns: Any) -> UUID:
    """Write an event into the ledger as a person in the SQL editor would, and return its id."""
    if isinstance(columns.get("properties"), dict):
        columns["properties"] = Jsonb(columns["properties"])
    row = {"widget_id": widget_id, "session_id": session_id, "event_type": event_type, "timestamp": at, **columns}
    names = ", ".join(f'"{name}"' for name in row)
    marks = ", ".join("%s" for _ in row)
    stored = db.execute(
        f"insert into public.widget_analytics ({names}) values ({marks}) returning id",
        list(row.values()),
    ).fetchone()
    assert stored is not None
    event_id: UUID = stored["id"]
    return event_id


def wait_until_blocked(db: Connection, connection: Connection) -> None:
    """Wait until another transaction holds up what this connection is running."""
    pid = connection.info.backend_pid
    for _ in range(500):
        row = db.execute("select cardinality(pg_blocking_pids(%s)) > 0 as is_blocked", [pid]).fetchone()
        assert row is not None
        if row["is_blocked"]:
            return
        time.sleep(0.01)
    raise AssertionError("nothing blocks it")


def calls_of(db: Connection, widget_id: UUID) -> list[Row]:
    """The calls kept for a widget, in the order in which they started."""
    return db.execute(
        """
        select session_id, call_id, started_at, ended_at, outcome, evidence, duration_seconds
        from public.widget_calls where widget_id = %s order by started_at, call_id
        """,
        [widget_id],
    ).fetchall()


def events_of(db: Connection, widget_id: UUID) -> list[Row]:
    return db.execute(
        "select * from public.widget_analytics where widget_id = %s order by received_at, id", [widget_id]
    ).fetchall()


def differences(db: Connection, widget_id: UUID) -> list[Row]:
    """Where the kept calls are not what the ledger gives; none is right."""
    return db.execute(
        "select * from widget_internal.widget_calls_differences() where widget_id = %s", [widget_id]
    ).fetchall()


def clean_up(db: Connection, stale_after: timedelta = timedelta(minutes=30)) -> Row:
    row = db.execute("select * from public.complete_stale_sessions(%s)", [stale_after]).fetchone()
    assert row is not None
    return row


def listed_rights(db: Connection) -> dict[str, dict[str, set[str]]]:
    """Of each table, view and function, by its qualified name: which role may do what, as the list of rights says."""
    rights: dict[str, dict[str, set[str]]] = {}
    listed = "select * from widget_internal.rights where object not like 'schema %' and privileges <> ''"
    for right in db.execute(listed).fetchall():
        name = right["object"].split(" ", 1)[1].split("(")[0]
        if right["privileges"]:
            of_role = rights.setdefault(name, {}).setdefault(right["grantee"], set())
            of_role.update(right["privileges"].upper().split(", "))
    return rights
