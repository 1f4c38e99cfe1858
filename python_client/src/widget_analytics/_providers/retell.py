"""Retell: ``POST /v3/list-calls``, with a cursor."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from widget_analytics._providers.api import ProviderApi
from widget_analytics._providers.records import (
    ProviderRecord,
    Skipped,
    at,
    cost_in,
    instant_of_ms,
    number,
    our_ids,
    rows,
    text,
)
from widget_analytics._providers.source import Source, bearer

_PAGE = 1000


def _read(api: ProviderApi, since: datetime, until: datetime) -> Iterator[ProviderRecord | Skipped]:
    started = {"type": "range", "op": "bt", "value": [_ms(since), _ms(until)]}
    asked: dict[str, object] = {
        "filter_criteria": {"start_timestamp": started},
        "sort_order": "ascending",
        "limit": _PAGE,
    }
    while True:
        page = api.post("/v3/list-calls", asked)
        yield from map(record, rows(at(page, "items")))
        key = at(page, "pagination_key")
        if not at(page, "has_more") or not key:
            return
        asked["pagination_key"] = key


def record(call: object) -> ProviderRecord | Skipped:
    if at(call, "call_type") == "phone_call":
        return Skipped.NO_VISITOR
    if at(call, "call_status") not in ("ended", "error", "not_connected", None) or not at(call, "end_timestamp"):
        return Skipped.NOT_OVER
    started_at = instant_of_ms(at(call, "start_timestamp"))
    cents = number(at(call, "call_cost.combined_cost"))
    return ProviderRecord(
        record_id=text(at(call, "call_id")),
        call_id=text(at(call, "call_id")),
        started_at=started_at,
        ended_at=instant_of_ms(at(call, "end_timestamp")),
        has_failed=started_at is None,
        reason=text(at(call, "disconnection_reason")),
        agent=text(at(call, "agent_id")),
        **our_ids(at(call, "metadata"), at(call, "retell_llm_dynamic_variables")),
        **cost_in("USD", None if cents is None else cents / 100),
    )


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


RETELL = Source(
    name="retell", url="https://api.retellai.com", key_variable="RETELL_API_KEY", headers=bearer, read=_read
)
