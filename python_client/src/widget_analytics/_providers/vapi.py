"""Vapi: ``GET /call``, the latest first. A page has no cursor: the next one is of calls created no later."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from widget_analytics._providers.api import ProviderApi
from widget_analytics._providers.records import ProviderRecord, Skipped, at, cost_in, instant, our_ids, rows, text
from widget_analytics._providers.source import Source, bearer

_PAGE = 100
_BROWSER_CALLS = ("webCall", "vapi.websocketCall")
_NEVER_CAME_ABOUT = re.compile(r"call\.start\.error|customer-did-not-give-microphone-permission")


def _read(api: ProviderApi, since: datetime, until: datetime) -> Iterator[ProviderRecord | Skipped]:
    bound, latest, seen = "createdAtLe", until.isoformat(), set[object]()
    while page := rows(api.get("/call", limit=_PAGE, createdAtGe=since.isoformat(), **{bound: latest})):
        new = [call for call in page if at(call, "id") not in seen]
        yield from map(record, new)
        # Calls of the last one's millisecond may be on two pages: it is asked for until it brings nothing new.
        bound = "createdAtLe" if new else "createdAtLt"
        latest, seen = str(at(page[-1], "createdAt")), {at(call, "id") for call in page}


def record(call: object) -> ProviderRecord | Skipped:
    if at(call, "type") not in (*_BROWSER_CALLS, None):
        return Skipped.NO_VISITOR
    if at(call, "status") not in ("ended", None) or not at(call, "endedAt"):
        return Skipped.NOT_OVER
    started_at, reason = instant(at(call, "startedAt")), text(at(call, "endedReason"))
    return ProviderRecord(
        record_id=text(at(call, "id")),
        call_id=text(at(call, "id")),
        started_at=started_at,
        ended_at=instant(at(call, "endedAt")),
        has_failed=started_at is None or bool(_NEVER_CAME_ABOUT.match(reason or "")),
        reason=reason,
        agent=text(at(call, "assistantId") or at(call, "squadId")),
        **our_ids(
            at(call, "assistantOverrides.metadata"),
            at(call, "assistantOverrides.variableValues"),
            at(call, "assistant.metadata"),
            at(call, "artifact.variableValues"),
        ),
        **cost_in("USD", at(call, "cost")),
    )


VAPI = Source(name="vapi", url="https://api.vapi.ai", key_variable="VAPI_API_KEY", headers=bearer, read=_read)
