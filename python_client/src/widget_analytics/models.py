"""What goes in and what comes out: frozen, typed, with exact decimals and times that know their zone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from functools import cache, partial
from typing import Annotated, Any, Self, TypeAlias, TypeVar
from uuid import UUID

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from widget_analytics._uuid7 import uuid7
from widget_analytics.errors import NotMigrated

Model = TypeVar("Model")


def _moment(value: object) -> object:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


#: Postgres's own way to write a time, with a blank and a zone of two digits, is read too.
Instant: TypeAlias = Annotated[datetime, BeforeValidator(_moment)]


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
        age_ms: how long before this object was made it happened, in milliseconds; the time until it is sent, and sent
            again after an error, is added. At most seven days.
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
    _made_at: float = field(default_factory=time.monotonic, init=False, repr=False, compare=False)


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
    """A row of a table or of a function's answer: its columns are a dataclass's fields."""

    __slots__ = ()

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Name the columns, in their stable order."""
        return tuple(cls.annotations())

    @classmethod
    def annotations(cls) -> dict[str, str]:
        """Name the columns with their types, as they are written below."""
        return {field.name: str(field.type) for field in fields(cls)}  # type: ignore[arg-type]  # each is a dataclass

    @classmethod
    def read(cls, rows: Iterable[Mapping[str, Any]]) -> Iterator[Self]:
        """Make one of each row, whose values may be text.

        Raises:
            NotMigrated: a row is not what this version knows.
        """
        return map(partial(read_as, cls), rows)


def read_as(model: type[Model], answer: object) -> Model:
    """Read what the database answered as a dataclass.

    Raises:
        NotMigrated: it is not what this version knows.
    """
    try:
        read: Model = _validator(model).validate_python(answer)  # type: ignore[arg-type]  # classes have hashes
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise NotMigrated.unknown(model, what) from error
    return read


@cache
def _validator(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


@dataclass(frozen=True, kw_only=True, slots=True)
class Call(_Row):
    """One call and what is billed for it.

    Attributes:
        duration_seconds: end minus start; None while the call is open.
        billable_seconds: what the bill counts, by ``rule``.
        rule: why it is that.
        amount: these seconds at the plan's price, to six decimals; what a month costs is in `Usage`, as a plan may
            include seconds. None without a plan.
        is_closed: whether it is as a closed month's statements have it; otherwise as the ledger has it.
    """

    widget_id: UUID
    session_id: str
    call_id: str
    started_at: Instant
    ended_at: Instant | None
    outcome: Outcome
    evidence: Evidence | None
    duration_seconds: Decimal | None
    billable_seconds: Decimal
    rule: str
    amount: Decimal | None
    currency: str | None
    is_closed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage(_Row):
    """One widget's usage in a period. The ``…_seconds`` are billable seconds; the pairs split them by evidence.

    Attributes:
        charged_seconds: what exceeds the seconds that the plan includes.
        amount: what they cost, and the fees; None where a month has no plan, or not all are in one currency.
        fees: the plans' monthly fees in it.
        months: how many months of the period had calls or fees; of these ``closed_months`` count what was charged.
        pending_calls: calls of closed months that late arrivals changed since; ``pending_seconds`` and
            ``pending_amount`` say by how much, and are not in the sums.
        is_closed: whether all of its months are closed.
    """

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
    charged_seconds: Decimal | None
    amount: Decimal | None
    currency: str | None
    fees: Decimal | None
    months: int
    closed_months: int
    pending_calls: int
    pending_seconds: Decimal
    pending_amount: Decimal | None
    is_closed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement(_Row):
    """A closed month. Nothing changes it, its charges or its lines.

    Attributes:
        period: the first day of the month, in the billing time zone.
        as_of: what was received by then is in it, and nothing else.
        content_hash: SHA-256 of the month and of the hashes of its charges.
    """

    period: date
    period_start: Instant
    period_end: Instant
    as_of: Instant
    closed_at: Instant
    closed_by: str
    content_hash: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Charge(_Row):
    """What a closed month charges a widget: for the month itself, or for an earlier month that late arrivals changed.

    Attributes:
        usage_period: the month in which the calls started; before ``period`` for an adjustment.
        old_seconds: that month's billable seconds on all statements before; ``old_amount`` likewise.
        difference_amount: what is to be paid or, below zero, credited; None without a plan.
    """

    period: date
    widget_id: UUID
    usage_period: date
    plan_valid_from: date | None
    monthly_fee: Decimal | None
    included_seconds: int
    price_per_minute: Decimal | None
    currency: str | None
    old_seconds: Decimal
    new_seconds: Decimal
    difference_seconds: Decimal
    old_amount: Decimal | None
    new_amount: Decimal | None
    difference_amount: Decimal | None
    content_hash: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StatementLine(_Row):
    """A call on a closed month's statement: one of the month, or the adjustment of a call of an earlier month.

    Attributes:
        usage_period: the month in which the call started; before ``period`` for an adjustment.
        outcome: None where the call is no longer one of that month.
        old_seconds: its billable seconds on all statements before.
        event_ids: of an adjustment: the call's events received since it was last billed.
    """

    period: date
    usage_period: date
    widget_id: UUID
    session_id: str
    call_id: str
    started_at: Instant
    ended_at: Instant | None
    outcome: Outcome | None
    evidence: Evidence | None
    duration_seconds: Decimal | None
    old_seconds: Decimal
    new_seconds: Decimal
    difference_seconds: Decimal
    rule: str
    event_ids: tuple[UUID, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class BillingMonth(_Row):
    """The bounds of a month in the billing time zone: [period_start, period_end)."""

    period_start: Instant
    period_end: Instant
    time_zone: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Widget(_Row):
    """A widget, how people call it, and whom it is billed to.

    Attributes:
        customer_reference: the customer's number in the company's own books.
        owner_email: None where there is no owner, or the address may not be read.
        allowed_domains: the hosts whose pages may send its events.
    """

    id: UUID
    name: str
    customer_reference: str | None
    owner_id: UUID | None
    owner_email: str | None
    allowed_domains: tuple[str, ...]
    is_active: bool
    is_demo: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanupResult(_Row):
    """What one cleanup did: open calls older than its limit, how many of them it completed, how many are alive."""

    calls_checked: int
    calls_completed: int
    calls_still_active: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanupRun(_Row):
    """One run of the cleanup, as the database noted it. ``error`` says why it failed; None where it did not."""

    started_at: Instant
    finished_at: Instant | None
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
    hour: Instant
    refusals: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates(_Row):
    """How well tracking went in a period, of one widget, or of all where ``widget_id`` is None.

    Attributes:
        delivery_rate: which share of the events that senders numbered arrived; None where none was numbered.
        completion_rate: which share of the calls that are over ended as somebody observed; None where none is over.
        response_ms_median: how long senders waited for answers, by their own clocks; None where none said.
    """

    widget_id: UUID | None
    events_received: int
    events_numbered: int
    events_expected: int
    delivery_rate: Decimal | None
    calls_started: int
    calls_open: int
    calls_observed: int
    completion_rate: Decimal | None
    orphan_ends: int
    refusals: int
    response_ms_median: int | None
    response_ms_p95: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm(_Row):
    """Something that is wrong; ``widget_id`` is None where it concerns the project, or all widgets together.

    ``alarm`` is one of the names that the comment on ``widget_alarms()`` lists.
    """

    alarm: str
    widget_id: UUID | None
    message: str
