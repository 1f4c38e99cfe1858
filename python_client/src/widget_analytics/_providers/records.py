"""What a provider says of a call, and how it is read out of lists of which nothing is certain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

_MOST_CHARACTERS = 255
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Skipped(StrEnum):
    """Why something listed is no record."""

    NOT_OVER = "not over yet"
    NO_VISITOR = "not of a visitor in a browser"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderRecord:
    """The parameters of ``record_widget_provider_call``, but for the provider's name."""

    record_id: str | None
    call_id: str | None
    started_at: datetime | None
    ended_at: datetime | None
    has_failed: bool = False
    reason: str | None = None
    agent: str | None = None
    widget_id: str | None = None
    session_id: str | None = None
    widget_call_id: str | None = None
    cost: Decimal | None = None
    cost_currency: str | None = None

    def arguments(self) -> dict[str, Any]:
        """Give them as JSON; those that are not known are left out."""
        known = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "has_failed"}
        sent = {name: value for name, value in known.items() if value is not None}
        sent |= {name: sent[name].isoformat() for name in ("started_at", "ended_at") if name in sent}
        sent |= {"cost": str(sent["cost"])} if "cost" in sent else {}
        return sent | {"outcome": "failed" if self.has_failed else "completed"}


def at(value: object, path: str) -> Any:
    """Give the value at a path such as ``metadata.cost``; None where the path ends early."""
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def rows(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def text(value: object) -> str | None:
    if not isinstance(value, str | int | Decimal):
        return None
    # As the webhooks' receiver writes it: what Postgres cannot hold becomes U+FFFD.
    storable = str(value).strip().replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return storable[:_MOST_CHARACTERS] or None


def number(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    try:
        read = Decimal(value)
    except InvalidOperation:
        return None
    return read if read.is_finite() else None


def instant(value: object) -> datetime | None:
    """Read a text with a date, in ISO 8601 or RFC 2822."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(str(value))
            utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            continue
        # To the millisecond, as the receiver of webhooks reads it: the same call must not look changed.
        return utc.replace(microsecond=utc.microsecond // 1000 * 1000)
    return None


def instant_of_seconds(value: object) -> datetime | None:
    seconds = number(value)
    return after(_EPOCH, seconds) if seconds else None


def instant_of_ms(value: object) -> datetime | None:
    ms = number(value)
    return after(_EPOCH, ms / 1000) if ms else None


def after(start: datetime | None, seconds: object) -> datetime | None:
    lasts = number(seconds)
    if start is None or lasts is None or lasts < 0:
        return None
    try:
        return start + timedelta(milliseconds=round(lasts * 1000))
    except OverflowError:
        return None


def our_ids(*places: object) -> dict[str, Any]:
    """Find our own ids, each in the first of several places that has it."""

    def first(key: str) -> str | None:
        return next(filter(None, (text(at(place, key)) for place in places)), None)

    return {"widget_id": first("widget_id"), "session_id": first("session_id"), "widget_call_id": first("call_id")}


def cost_in(currency: str, value: object) -> dict[str, Any]:
    cost = number(value)
    return {} if cost is None else {"cost": cost, "cost_currency": currency}
