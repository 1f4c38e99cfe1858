"""What every billing system can do for a push."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Any, Protocol
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import BeforeValidator

from widget_analytics._push.charges import ChargeToPush
from widget_analytics.errors import WidgetAnalyticsError
from widget_analytics.models import Instant, _Row


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


class Unclear(WidgetAnalyticsError):
    """Whether the system has an event cannot be told: a person has to look."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Push(_Row):
    """A row of the outbox that is to be sent, as it was frozen, and as it stood when it was read."""

    widget_id: UUID
    usage_period: date
    event_id: str
    customer: str
    payload: Annotated[Mapping[str, Any], BeforeValidator(json.loads)]
    refusals: int = 0
    state: str = "planned"
    sent_at: Instant | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """What a charge becomes at a billing system; ``refusal`` says why it cannot be sent there."""

    charge: ChargeToPush
    customer: str
    payload: Mapping[str, Any]
    refusal: str | None = None

    def as_push(self) -> Push:
        """Give what would be sent."""
        charge = self.charge
        return Push(
            widget_id=charge.widget_id,
            usage_period=charge.usage_period,
            event_id=charge.event_id,
            customer=self.customer,
            payload=self.payload,
        )


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a row: a state of the outbox, and the system's id or its reason."""

    push: Push
    state: str
    answer: str


def account_at(url: str | None) -> str:
    """Name the account of a system whose keys do not tell it: the server."""
    parts = urlsplit(url or "")
    return f"{parts.hostname or 'cloud'}{f':{parts.port}' if parts.port else ''}"


class Target(Protocol):
    """A billing system.

    Attributes:
        name: as the outbox knows it.
        account: tells apart the accounts there that the outbox has sent to.
        window: how long it is sure to know an event's name again; None for ever.
        batch: how many events it takes at once.
    """

    name: str
    account: str
    window: timedelta | None
    batch: int

    def plan(self, charges: Sequence[tuple[ChargeToPush, str]]) -> list[Planned]:
        """Make a month's charges into what is sent, nothing of which depends on when."""

    def send(self, pushes: Sequence[Push]) -> list[Settled]:
        """Send some, and say what became of each.

        Raises:
            Passing: it is not known whether they arrived.
        """

    def find(self, push: Push) -> str | None:
        """Look whether one has arrived: its id there, or None.

        Raises:
            Unclear: something has, of which it cannot be told.
        """
