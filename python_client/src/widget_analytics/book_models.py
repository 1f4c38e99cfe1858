"""What the books hold beside bills: what is pending, plans, calls as the ledger and as call providers have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from uuid import UUID

from widget_analytics.models import Evidence, Instant, Outcome, _Row


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingAdjustment(_Row):
    """A call of a closed month that late arrivals changed, and that no statement shows yet; see `StatementLine`."""

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
class PendingMonth:
    """What late arrivals changed in one closed month and no statement shows yet.

    Attributes:
        seconds: the billable seconds that the next statement adds; below zero it takes them off.
        amounts: likewise by currency; empty without plans.
    """

    month: date
    calls: int
    seconds: Decimal
    amounts: Mapping[str, Decimal]


@dataclass(frozen=True, kw_only=True, slots=True)
class MonthToClose(_Row):
    """A month that is over, has calls or fees, and is not closed.

    Attributes:
        settled_at: until then browsers' events may come; closed earlier, more of it becomes adjustments.
        closes_at: from when on it is closed by itself; None where nothing is scheduled.
    """

    month: date
    period_start: Instant
    period_end: Instant
    settled_at: Instant
    has_calls: bool
    has_fees: bool
    closes_at: Instant | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Closing(_Row):
    """What closing a month answers: ``answer`` says whether it was closed just now."""

    month: date
    answer: str
    as_of: Instant
    closed_at: Instant
    closed_by: str
    content_hash: str
    calls: int
    adjustments: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan(_Row):
    """What a widget's calls cost from a month on, until its next plan; see docs/billing.md.

    Attributes:
        valid_from: the first day of a month.
        increment_seconds: a billed call is rounded up to a multiple of this; 0: exact.
        included_seconds: so many of a month's billable seconds cost nothing.
        assumed_calls: of calls whose end is assumed: ``full``, ``none``, or at most so many seconds.
    """

    widget_id: UUID
    valid_from: date
    name: str
    increment_seconds: int
    minimum_seconds: int
    included_seconds: int
    price_per_minute: Decimal
    currency: str
    bills_failed_calls: bool
    assumed_calls: str
    monthly_fee: Decimal


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownCall(_Row):
    """A call as the ledger has it now."""

    widget_id: UUID
    session_id: str
    call_id: str
    started_at: Instant
    ended_at: Instant | None
    outcome: Outcome
    evidence: Evidence | None
    duration_seconds: Decimal | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """What became of a record of a call; ``call`` is the call as it now is, None as long as it has no start."""

    accepted: int
    duplicates: int
    call: KnownCall | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconciliation(_Row):
    """What a provider carried of a widget's calls in a period, beside what is billed.

    Attributes:
        provider: None for calls that only browsers know, of a widget that several providers carry.
        widget_id: None for calls that only the provider knows and whose agent is nobody's.
        matched_calls: both sides know them.
        our_seconds: how long these were as billed, before any rounding.
        provider_seconds: how long these were as the provider says.
        seconds_apart: ours less theirs.
        provider_only_calls: no browser told of them; the provider did.
        made_calls: of these, how many are billed, as the agent is a widget's.
        browser_only_calls: no record of a provider told of them.
        costs: what the provider charges for its calls, by currency, such as ``USD=12.50``.
    """

    provider: str | None
    widget_id: UUID | None
    matched_calls: int
    our_seconds: Decimal
    provider_seconds: Decimal
    seconds_apart: Decimal
    provider_only_calls: int
    provider_only_seconds: Decimal
    made_calls: int
    browser_only_calls: int
    browser_only_seconds: Decimal
    costs: tuple[str, ...]

    @property
    def cost(self) -> str:
        """The costs to read, such as ``2.50 EUR, 12.50 USD``."""
        return ", ".join(" ".join(reversed(cost.split("="))) for cost in self.costs)
