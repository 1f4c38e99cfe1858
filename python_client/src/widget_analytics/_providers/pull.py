"""Reads a provider's list and hands each call to the database, through the door that webhooks use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from widget_analytics._providers.daily import DAILY
from widget_analytics._providers.elevenlabs import ELEVENLABS
from widget_analytics._providers.records import Skipped
from widget_analytics._providers.retell import RETELL
from widget_analytics._providers.source import Source
from widget_analytics._providers.twilio import TWILIO
from widget_analytics._providers.ultravox import ULTRAVOX
from widget_analytics._providers.vapi import VAPI
from widget_analytics._rest import RestTransport
from widget_analytics.errors import Refused, TooManyRequests

SOURCES = {source.name: source for source in (DAILY, ELEVENLABS, RETELL, TWILIO, ULTRAVOX, VAPI)}

#: Providers that send webhooks and list no calls, and why.
WITHOUT_LIST = {
    "livekit": "a LiveKit server keeps no list of past calls, and LiveKit Cloud's names participants by identity, not "
    "by the leg that its webhooks name. What no webhook brought stays as the browser told it"
}

_MOST_REFUSALS = 10


@dataclass(slots=True)
class Pulled:
    """What a pull has done so far."""

    listed: int = 0
    new: int = 0
    changed: int = 0
    known: int = 0
    refused: int = 0
    skipped: Counter[Skipped] = field(default_factory=Counter)
    refusals: list[str] = field(default_factory=list)

    def refuse(self, why: str) -> None:
        self.refused += 1
        if len(self.refusals) < _MOST_REFUSALS:
            self.refusals.append(why)

    def sentence(self) -> str:
        counts = [f"{getattr(self, name):,} {name}" for name in ("new", "changed", "known", "refused")]
        counts += [f"{count:,} {why}" for why, count in sorted(self.skipped.items())]
        return f"{self.listed:,} listed: {', '.join(counts)}"


def pull(
    source: Source, transport: RestTransport, since: datetime, until: datetime, *, on_step: Callable[[Pulled], object]
) -> Pulled:
    """Record the provider's calls of a period. What is recorded already stays as it is, so it can run at any time.

    Raises:
        ConfigError: the key of the provider's API is not set.
        WidgetAnalyticsError: the provider or the database does not answer. What was recorded until then is kept.
    """
    pulled = Pulled()
    api = source.connect()
    try:
        for record in source.read(api, since, until):
            pulled.listed += 1
            if isinstance(record, Skipped):
                pulled.skipped[record] += 1
            else:
                _store(transport, source, record.arguments(), pulled)
            on_step(pulled)
    finally:
        api.close()
    return pulled


def _store(transport: RestTransport, source: Source, arguments: dict[str, Any], pulled: Pulled) -> None:
    if "record_id" not in arguments:
        pulled.refuse("a call without an id")
        return
    sent = arguments | {"provider": source.name}
    if not source.is_exact:
        sent |= _known_times(transport, source.name, arguments["record_id"])
    try:
        answer = transport.call("record_widget_provider_call", lambda: sent)
    except TooManyRequests:
        raise
    except Refused as error:
        # About this record alone; the others may fit.
        pulled.refuse(f"{arguments['record_id']}: {error}")
        return
    # Changed: it is longer now, or something was added, such as the cost.
    count = {"stored": "new", "changed": "changed"}.get(str(answer["record"]), "known")
    setattr(pulled, count, getattr(pulled, count) + 1)


def _known_times(transport: RestTransport, provider: str, record_id: str) -> dict[str, str]:
    found = transport.answer(
        lambda api: (
            api.from_("widget_provider_records")
            .select("started_at,ended_at")
            .eq("provider", provider)
            .eq("record_id", record_id)
        )
    )
    return {name: time for row in found for name, time in row.items() if time is not None}
