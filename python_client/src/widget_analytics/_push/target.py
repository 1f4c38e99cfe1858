"""What every billing system can do for a push."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Protocol
from uuid import UUID

from widget_analytics._push.charges import ChargeToPush
from widget_analytics.errors import WidgetAnalyticsError


class Passing(WidgetAnalyticsError):
    """The billing system did not say yes or no: worth trying again, as it may have taken the events all the same.

    Attributes:
        retry_after: seconds to wait first; None where it did not say.
    """

    exit_code = 4
    is_passing = True

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Push:
    """A row of the outbox that is to be sent, as it was frozen."""

    widget_id: UUID
    usage_period: date
    event_id: str
    customer: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Planned:
    """What a charge becomes at a billing system; ``refusal`` says why it cannot be sent there."""

    charge: ChargeToPush
    customer: str
    payload: Mapping[str, Any]
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a row: ``accepted``, ``confirmed`` or ``refused``, and the system's id or its reason."""

    push: Push
    state: str
    answer: str


class Target(Protocol):
    """A billing system.

    Attributes:
        name: as the outbox knows it.
        window: how long it is sure to know an event's name again; None for ever.
        settling: how long after it took an event a look may miss it.
        batch: how many events it takes at once.
    """

    name: str
    window: timedelta | None
    settling: timedelta
    batch: int

    def plan(self, charges: Sequence[tuple[ChargeToPush, str]]) -> list[Planned]:
        """Make a month's charges into what is sent, nothing of which depends on when."""

    def send(self, pushes: Sequence[Push]) -> list[Settled]:
        """Send some, and say what became of each.

        Raises:
            Passing: it is not known whether they arrived.
        """

    def find(self, push: Push) -> str | None:
        """Look whether one has arrived: its id there, or None."""
