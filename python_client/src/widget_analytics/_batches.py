"""Cuts a stream of events into calls of ``track_events``, which takes 1,000 events and about 64 KiB at once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from widget_analytics.models import Event

MAX_EVENTS = 1_000
#: Leaves room for the envelope, and for ages that grow while a batch waits to be sent again.
MAX_BYTES = 60_000


@dataclass(frozen=True, slots=True)
class Item:
    """An event on its way: its place in the caller's list, and when it was made."""

    index: int
    body: dict[str, Any]
    size: int
    made_at: float

    def to_send(self) -> dict[str, Any]:
        """Give the event's fields, its age as of now: the time that it waited to be sent must not shift the call."""
        # Never less than nothing: an event that another machine has made brings that machine's clock.
        waited_ms = max(0, round((time.monotonic() - self.made_at) * 1_000))
        return self.body | {"age_ms": self.body["age_ms"] + waited_ms}


def item(index: int, event: Event) -> Item:
    """Make an event ready to be sent."""
    body: dict[str, Any] = {
        "widget_id": str(event.widget_id),
        "event_type": str(event.event_type),
        "session_id": event.session_id,
        "call_id": event.call_id,
        "seq": event.seq,
        "age_ms": max(event.age_ms, 0),
        "page_url": event.page_url,
        "properties": None if event.properties is None else dict(event.properties),
        "event_id": str(event.event_id),
    }
    body = {name: value for name, value in body.items() if value is not None}
    size = len(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()) + len(",")
    return Item(index=index, body=body, size=size, made_at=event._made_at)


def batches(events: Iterable[Event]) -> Iterator[list[Item]]:
    """Group events in their order, as many to a batch as one call takes. One that is too large alone comes alone."""
    batch: list[Item] = []
    size = 0
    for index, event in enumerate(events):
        next_item = item(index, event)
        if batch and (len(batch) == MAX_EVENTS or size + next_item.size > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(next_item)
        size += next_item.size
    if batch:
        yield batch
