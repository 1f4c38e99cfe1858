"""Ultravox: ``GET /api/calls``, whose pages name the next one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from widget_analytics._providers.api import ProviderApi
from widget_analytics._providers.records import ProviderRecord, Skipped, at, instant, our_ids, rows, text
from widget_analytics._providers.source import Source

_PAGE = 100
_TELEPHONES = ("twilio", "telnyx", "plivo", "exotel", "sip")


def _read(api: ProviderApi, since: datetime, until: datetime) -> Iterator[ProviderRecord | Skipped]:
    # The bounds are days.
    bounds = {"fromDate": f"{since:%Y-%m-%d}", "toDate": f"{until + timedelta(days=1):%Y-%m-%d}"}
    page = api.get("/api/calls", **bounds, pageSize=_PAGE)
    while True:
        for call in rows(at(page, "results")):
            created = instant(at(call, "created"))
            if created is None or since <= created <= until:
                yield record(call)
        following = at(page, "next")
        if not following:
            return
        page = api.get(following)


def record(call: object) -> ProviderRecord | Skipped:
    if any(at(call, f"medium.{medium}") is not None for medium in _TELEPHONES):
        return Skipped.NO_VISITOR
    if not at(call, "ended"):
        return Skipped.NOT_OVER
    started_at = instant(at(call, "joined"))
    return ProviderRecord(
        record_id=text(at(call, "callId")),
        call_id=text(at(call, "callId")),
        started_at=started_at,
        ended_at=instant(at(call, "ended")),
        has_failed=started_at is None,
        reason=text(at(call, "endReason")),
        agent=text(at(call, "agent.agentId") or at(call, "agentId")),
        **our_ids(at(call, "metadata")),
    )


ULTRAVOX = Source(
    name="ultravox",
    url="https://api.ultravox.ai",
    key_variable="ULTRAVOX_API_KEY",
    headers=lambda key: {"X-API-Key": key},
    read=_read,
)
