"""ElevenLabs: ``GET /v1/convai/conversations``, with a cursor, then each conversation: the list lacks our ids."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from widget_analytics._providers.api import ProviderApi
from widget_analytics._providers.records import (
    ProviderRecord,
    Skipped,
    after,
    at,
    cost_in,
    instant_of_seconds,
    number,
    our_ids,
    rows,
    text,
)
from widget_analytics._providers.source import Source

_PATH = "/v1/convai/conversations"
_PAGE = 100


def _read(api: ProviderApi, since: datetime, until: datetime) -> Iterator[ProviderRecord | Skipped]:
    # Whether the bounds belong to it is nowhere said, so they are a second wider.
    bounds = {
        "call_start_after_unix": int(since.timestamp()) - 1,
        "call_start_before_unix": int(until.timestamp()) + 1,
    }
    cursor: str | None = None
    while True:
        page = api.get(_PATH, **bounds, page_size=_PAGE, cursor=cursor)
        for listed in rows(at(page, "conversations")):
            if at(listed, "status") not in ("done", "failed"):
                yield Skipped.NOT_OVER
                continue
            yield record(api.get(f"{_PATH}/{at(listed, 'conversation_id')}"))
        cursor = at(page, "next_cursor")
        if not at(page, "has_more") or not cursor:
            return


def record(conversation: object) -> ProviderRecord | Skipped:
    metadata = at(conversation, "metadata")
    if at(metadata, "phone_call"):
        return Skipped.NO_VISITOR
    started_at = instant_of_seconds(at(metadata, "start_time_unix_secs"))
    seconds = number(at(metadata, "call_duration_secs"))
    return ProviderRecord(
        record_id=text(at(conversation, "conversation_id")),
        call_id=text(at(conversation, "conversation_id")),
        started_at=started_at,
        ended_at=after(started_at, seconds),
        has_failed=at(conversation, "status") == "failed" and not seconds,
        reason=text(at(metadata, "termination_reason")),
        agent=text(at(conversation, "agent_id")),
        **our_ids(at(conversation, "conversation_initiation_client_data.dynamic_variables")),
        **cost_in("credits", at(metadata, "cost")),
    )


ELEVENLABS = Source(
    name="elevenlabs",
    url="https://api.elevenlabs.io",
    key_variable="ELEVENLABS_API_KEY",
    headers=lambda key: {"xi-api-key": key},
    read=_read,
)
