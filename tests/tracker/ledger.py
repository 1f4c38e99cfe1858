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
        """The events, once they are exactly of these types, heartbeats and repeated farewells aside."""
        found = self.wait_until(
            lambda events: [event["event_type"] for event in _essential(events)] == list(types), seconds=seconds
        )
        return _essential(found)


def _essential(events: list[DictRow]) -> list[DictRow]:
    """Without heartbeats, and without the second farewell of a leave: where Firefox kills the first one after it was
    noted and before it was sent, both arrive.
    """
    kept: list[DictRow] = []
    for event in events:
        is_farewell = (event["properties"] or {}).get("cause") == "pagehide"
        before = kept[-1] if kept else None
        if is_farewell and before and before["call_id"] == event["call_id"] and before["event_type"] == "call_end":
            kept[-1] = event
        elif event["event_type"] != "call_heartbeat":
            kept.append(event)
    return kept
