"""Daily: ``GET /meetings``, each with its participants."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from widget_analytics._providers.api import ProviderApi
from widget_analytics._providers.records import ProviderRecord, Skipped, after, at, instant_of_seconds, rows, text
from widget_analytics._providers.source import Source, bearer

_PAGE = 100


def _read(api: ProviderApi, since: datetime, until: datetime) -> Iterator[ProviderRecord | Skipped]:
    bounds = {"timeframe_start": int(since.timestamp()), "timeframe_end": int(until.timestamp()) + 1}
    last: str | None = None
    while True:
        meetings = rows(at(api.get("meetings", **bounds, limit=_PAGE, starting_after=last), "data"))
        if not meetings:
            return
        for meeting in meetings:
            for participant in rows(at(meeting, "participants")):
                yield record(meeting, participant)
        last = at(meetings[-1], "id")


def record(meeting: object, participant: object) -> ProviderRecord | Skipped:
    # This list does not say who owns a room: a visitor's leg is one whose token names a session.
    user = text(at(participant, "user_id"))
    if user in (None, "staff"):
        return Skipped.NO_VISITOR
    if at(meeting, "ongoing"):
        return Skipped.NOT_OVER
    started_at = instant_of_seconds(at(participant, "join_time"))
    return ProviderRecord(
        record_id=text(at(participant, "participant_id")),
        call_id=text(at(meeting, "id")),
        started_at=started_at,
        ended_at=after(started_at, at(participant, "duration")),
        agent=text(at(meeting, "room")),
        session_id=user,
    )


DAILY = Source(
    name="daily",
    url="https://api.daily.co/v1/",
    key_variable="DAILY_API_KEY",
    headers=bearer,
    read=_read,
    is_exact=False,
)
