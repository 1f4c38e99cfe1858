"""How things stand: is the cleanup on time, what arrives, what is open, what was refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from widget_analytics.book_models import MonthToClose, PendingMonth
from widget_analytics.models import Alarm, CleanupRun, Rates
from widget_analytics.periods import Period

#: The cleanup runs every 30 minutes; five more are grace.
LATE_AFTER = timedelta(minutes=35)


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """From where on a rate of the last 24 hours is an alarm.

    Attributes:
        min_delivery: the least share of numbered events that must arrive.
        min_completion: the least share of calls that must end as somebody observed.
        min_cases: with fewer events or calls than this, no rate is judged.
    """

    min_delivery: Decimal = Decimal("0.95")
    min_completion: Decimal = Decimal("0.8")
    min_cases: int = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """How things stood at one moment.

    Attributes:
        at: that moment, by this machine's clock.
        last_run: the latest cleanup; None if there was none yet.
        open_calls: calls that have not ended.
        month: this calendar month, in UTC.
        month_calls: its calls so far.
        month_seconds: their billable seconds so far; ``month_assumed_seconds`` those of them whose end is assumed.
        refusals: events refused in the last 24 whole hours and this one, by reason, the most frequent first.
        rates: of all widgets together, of the last 24 whole hours and this one.
        months_to_close: the months that are over and wait to be closed, the earliest first.
        pending: what late arrivals changed in closed months and no statement shows yet, by month.
        alarms: what is wrong, by the database's clock: the cleanup, the counts behind the rates, the rates.
    """

    at: datetime
    last_run: CleanupRun | None
    open_calls: int
    month: Period
    month_calls: int
    month_seconds: Decimal
    month_assumed_seconds: Decimal
    refusals: dict[str, int]
    rates: Rates
    alarms: tuple[Alarm, ...]
    months_to_close: tuple[MonthToClose, ...] = ()
    pending: tuple[PendingMonth, ...] = ()

    @property
    def is_late(self) -> bool:
        """Whether the last cleanup started more than 35 minutes ago, or there was none."""
        return self.last_run is None or self.at - self.last_run.started_at > LATE_AFTER

    @property
    def has_failed(self) -> bool:
        """Whether the last cleanup failed."""
        return self.last_run is not None and self.last_run.error is not None
