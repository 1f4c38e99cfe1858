"""What the database holds of one widget."""

import time
from collections.abc import Callable
from uuid import UUID

import psycopg
from psycopg.rows import DictRow


class Ledger:
    """Reads, and waits for what is on its way."""

    def __init__(self, db: psycopg.Connection[DictRow], widget_id: UUID) -> None:
        self.db = db
        self.widget_id = widget_id

    def events(self) -> list[DictRow]:
        """In the order in which the pages numbered them, session by session."""
        return self.db.execute(
            "select * from widget_analytics where widget_id = %s order by session_id, seq, received_at",
            [self.widget_id],
        ).fetchall()

    def types(self) -> list[str]:
        return [event["event_type"] for event in self.events()]

    def calls(self) -> list[DictRow]:
        return self.db.execute(
            "select * from widget_calls where widget_id = %s order by started_at", [self.widget_id]
        ).fetchall()

    def wait_until(self, holds: Callable[[list[DictRow]], bool], *, seconds: float = 60) -> list[DictRow]:
        """The events, once they fulfil a condition."""
        deadline = time.monotonic() + seconds
        while not holds(events := self.events()):
            if time.monotonic() > deadline:
                found = [(event["seq"], event["event_type"], event["properties"]) for event in events]
                raise AssertionError(f"not in the ledger after {seconds} s; there is {found}")
            time.sleep(0.02)
        return events

    def wait_for(self, *types: str, seconds: float = 60) -> list[DictRow]:
        """The events, once they are exactly of these types, heartbeats aside."""
        found = self.wait_until(
            lambda events: [e["event_type"] for e in events if e["event_type"] != "call_heartbeat"] == list(types),
            seconds=seconds,
        )
        return [event for event in found if event["event_type"] != "call_heartbeat"]
