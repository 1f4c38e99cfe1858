"""Twilio: ``GET Calls.json``, whose pages name the next one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from widget_analytics._providers.api import ProviderApi
from widget_analytics._providers.records import ProviderRecord, Skipped, at, cost_in, instant, number, rows, text
from widget_analytics._providers.source import Source, required

_PAGE = 1000
_FAILED = ("busy", "failed", "no-answer", "canceled")
_ACCOUNT = "TWILIO_ACCOUNT_SID"


def _read(api: ProviderApi, since: datetime, until: datetime) -> Iterator[ProviderRecord | Skipped]:
    bounds = {"StartTime>": _utc(since), "StartTime<": _utc(until)}
    page = api.get(f"/2010-04-01/Accounts/{required(_ACCOUNT)}/Calls.json", **bounds, PageSize=_PAGE)
    while True:
        yield from map(record, rows(at(page, "calls")))
        following = at(page, "next_page_uri")
        if not following:
            return
        page = api.get(following)


def record(call: object) -> ProviderRecord | Skipped:
    # The visitor's browser calls in; a child leg is whom the company connects it with.
    if at(call, "parent_call_sid") or not str(at(call, "from")).startswith("client:"):
        return Skipped.NO_VISITOR
    status = at(call, "status")
    if status not in ("completed", *_FAILED):
        return Skipped.NOT_OVER
    price = number(at(call, "price"))
    return ProviderRecord(
        record_id=text(at(call, "sid")),
        call_id=text(at(call, "sid")),
        started_at=instant(at(call, "start_time")),
        ended_at=instant(at(call, "end_time")),
        has_failed=status in _FAILED,
        reason=text(status),
        agent=text(at(call, "to")),
        # What it costs is a negative price.
        **cost_in(str(at(call, "price_unit")), None if price is None else -price),
    )


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


TWILIO = Source(
    name="twilio",
    url="https://api.twilio.com",
    key_variable="TWILIO_AUTH_TOKEN",
    user_variable=_ACCOUNT,
    headers=lambda _: {},
    read=_read,
    is_exact=False,
)
