"""What goes in and what comes out: frozen, typed, with exact decimals and times that know their zone."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from widget_analytics._uuid7 import uuid7
from widget_analytics.errors import NotMigrated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class EventType(StrEnum):
    """What a widget reports."""

    WIDGET_LOAD = "widget_load"
    WIDGET_OPEN = "widget_open"
    CALL_START = "call_start"
    CALL_HEARTBEAT = "call_heartbeat"
    CALL_END = "call_end"
    CALL_ERROR = "call_error"


class Outcome(StrEnum):
    """What became of a call: ``failed`` means that it ended by ``call_error``."""

    OPEN = "open"
    COMPLETED = "completed"
    FAILED = "failed"


class Evidence(StrEnum):
    """How the end of a call is known.

    ``observed``: the browser or the company's server reported it. ``provider``: the call provider did.
    ``operator``: a person set it. ``heartbeat``: the last sign of life stands for it. ``assumed``: nothing was heard.
    """

    OBSERVED = "observed"
    PROVIDER = "provider"
    OPERATOR = "operator"
    HEARTBEAT = "heartbeat"
    ASSUMED = "assumed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One event of a widget, to be sent.

    Its ``event_id`` is made with it: sending the same ``Event`` again, any number of times, stores it once.

    Attributes:
        widget_id: the widget.
        event_type: what happened.
        session_id: groups the events of one page view, 1 to 255 characters.
        call_id: which call of the session, where the sender knows.
        seq: the sender's running number in its session, from 1.
        age_ms: how long ago it happened when the client is handed it, in milliseconds; waiting time in the client is
            added. At most seven days.
        page_url: where the widget was embedded; stored without query and fragment.
        properties: small extras, at most 4,096 bytes as JSON.
        event_id: the event's name for ever; a UUIDv7 unless given.
    """

    widget_id: UUID | str
    event_type: EventType | str
    session_id: str
    call_id: str | None = None
    seq: int | None = None
    age_ms: int = 0
    page_url: str | None = None
    properties: Mapping[str, Any] | None = None
    event_id: UUID = field(default_factory=uuid7)


@dataclass(frozen=True, slots=True)
class Rejection:
    """An event that was not taken: its place in the caller's list, from 0, and why (``field: what it must be``)."""

    index: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracked:
    """What became of the events sent. A duplicate is a success: the event was there already."""

    accepted: int
    duplicates: int
    rejected: tuple[Rejection, ...] = ()


class _Row:
    """Reads a row of the API by the types of a dataclass's fields."""

    __slots__ = ()

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Name the columns, in their stable order."""
        return tuple(_types(cls))

    @classmethod
    def select(cls) -> str:
        """Say how to ask the API for these columns.

        A ``numeric`` travels as text: as a JSON number it would pass through a float here, and in gateways before.
        """
        return ",".join(f"{name}::text" if "Decimal" in of_type else name for name, of_type in _types(cls).items())

    @classmethod
    def read(cls, rows: Iterable[Mapping[str, Any]]) -> Iterator[Self]:
        """Make one of each row of the API.

        Raises:
            NotMigrated: a row is not what this version knows.
        """
        readers = [(name, _READERS[of_type]) for name, of_type in _types(cls).items()]
        for row in rows:
            try:
                one = cls(**{name: read_value(row[name]) for name, read_value in readers})
            except (KeyError, TypeError, ValueError) as error:
                raise NotMigrated(
                    f"the database answers with a {cls.__name__} that this version does not know ({error}). "
                    "Bring the migrations and widget-analytics to the same version."
                ) from error
            yield one


def _types(model: type[_Row]) -> dict[str, str]:
    """Give the fields of a model with their annotations, which `from __future__ import annotations` keeps as text."""
    return {field.name: str(field.type) for field in fields(model)}  # type: ignore[arg-type]  # each is a dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Call(_Row):
    """One call and what is billed for it.

    Attributes:
        duration_seconds: end minus start; None while the call is open.
        billable_seconds: what the bill counts, by ``rule``.
        rule: why it is that.
    """

    widget_id: UUID
    session_id: str
    call_id: str
    started_at: datetime
    ended_at: datetime | None
    outcome: Outcome
    evidence: Evidence | None
    duration_seconds: Decimal | None
    billable_seconds: Decimal
    rule: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage(_Row):
    """One widget's usage in a period. The ``…_seconds`` are billable seconds; the pairs split them by evidence."""

    widget_id: UUID
    calls: int
    billable_seconds: Decimal
    observed_calls: int
    observed_seconds: Decimal
    provider_calls: int
    provider_seconds: Decimal
    operator_calls: int
    operator_seconds: Decimal
    heartbeat_calls: int
    heartbeat_seconds: Decimal
    assumed_calls: int
    assumed_seconds: Decimal
    open_calls: int
    failed_calls: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanupResult(_Row):
    """What one cleanup did: open calls older than its limit, how many of them it completed, how many are alive."""

    calls_checked: int
    calls_completed: int
    calls_still_active: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanupRun(_Row):
    """One run of the cleanup, as the database noted it. ``error`` says why it failed; None where it did not."""

    started_at: datetime
    finished_at: datetime | None
    calls_checked: int
    calls_completed: int
    calls_still_active: int
    error: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal(_Row):
    """Events that the door refused in one hour. ``widget_id`` is None for a widget that does not exist."""

    widget_id: UUID | None
    reason: str
    detail: str
    hour: datetime
    refusals: int


def _decimal(value: str) -> Decimal:
    if not isinstance(value, str):
        raise TypeError(f"a numeric must travel as text, not as {type(value).__name__}")
    return Decimal(value)


def _text(value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text expected, not {type(value).__name__}")
    return value


# By annotation.
_READERS: dict[str, Any] = {
    "UUID": UUID,
    "str": _text,
    "int": int,
    "datetime": datetime.fromisoformat,
    "Decimal": _decimal,
    "Outcome": Outcome,
    "Evidence": Evidence,
}
_READERS |= {
    f"{name} | None": lambda value, read=read: None if value is None else read(value) for name, read in _READERS.items()
}
