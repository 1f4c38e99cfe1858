"""The outbox in the database: every step of a push is one statement there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Any

from widget_analytics._push.charges import ChargeToPush, charges_of
from widget_analytics._push.target import Planned, Push, Settled
from widget_analytics._queries import Paging, Query
from widget_analytics._rest import RestTransport
from widget_analytics.models import Instant

_PLANNED_AT_ONCE = 500
HOLD = timedelta(minutes=2)


@dataclass(frozen=True, kw_only=True, slots=True)
class PushRow(Push):
    """A row of ``widget_pushes``."""

    account: str
    held_until: Instant | None
    answer: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed(Push):
    """A row that this push holds.

    Attributes:
        sent_before_seconds: since when the system may have it, None: it never was sent.
        may_be_known: it was sent under another account's name too, which may be the same account.
    """

    state: str = "sending"
    sent_before_seconds: float | None
    may_be_known: bool


class Outbox:
    """One month at one account of a billing system.

    Args:
        transport: the way to the database.
        target: the billing system's name.
        account: the account there; None to read the rows of all.
        month: the closed month's first day.
        hold: for how long a claimed row is this push's own. Longer than sending a batch takes.
    """

    def __init__(
        self, transport: RestTransport, target: str, account: str | None, month: date, *, hold: timedelta = HOLD
    ) -> None:
        self._transport = transport
        self._target, self._account, self._month, self._hold = target, account, month, hold

    def charges(self) -> Iterator[ChargeToPush]:
        """Yield what the month charges."""
        query = charges_of(self._month)
        return query.model.read(self._transport.rows(query))

    def plan(self, planned: Sequence[Planned]) -> None:
        """Freeze what is to be sent; what is frozen already stays as it is."""
        rows = iter(planned)
        while part := list(islice(rows, _PLANNED_AT_ONCE)):
            pushes = [
                {
                    "widget_id": str(each.charge.widget_id),
                    "usage_period": each.charge.usage_period.isoformat(),
                    "event_id": each.charge.event_id,
                    "customer": each.customer,
                    "payload": each.payload,
                    "refusal": each.refusal,
                }
                for each in part
            ]
            self._call("plan_widget_pushes", pushes=pushes)

    def claim(self, most: int) -> list[Claimed]:
        """Take what is to be sent next."""
        rows = self._call("claim_widget_pushes", most=most, hold=f"{self._hold.total_seconds()} seconds")
        return list(Claimed.read(rows))

    def settle(self, results: Sequence[Settled]) -> None:
        """Write down what became of rows."""
        if results:
            self._call(
                "settle_widget_pushes",
                results=[
                    {
                        "widget_id": str(each.push.widget_id),
                        "usage_period": each.push.usage_period.isoformat(),
                        "sent_at": each.push.sent_at.isoformat() if each.push.sent_at else None,
                        "was": each.push.state,
                        "state": each.state,
                        "answer": each.answer or None,
                    }
                    for each in results
                ],
            )

    def rows(self, state: str | None = None) -> Iterator[PushRow]:
        """Yield the outbox's rows, or those of a state."""
        where = [("target", "eq", self._target), ("period", "eq", self._month.isoformat())]
        if self._account is not None:
            where.append(("account", "eq", self._account))
        if state is not None:
            where.append(("state", "eq", state))
        query = Query(
            model=PushRow,
            relation="widget_pushes",
            where=tuple(where),
            key=("account", "widget_id", "usage_period"),
            paging=Paging.KEY,
        )
        return query.model.read(self._transport.rows(query))

    def held_until(self) -> datetime | None:
        """Until when the last of the rows is held that some push may be sending; None where none is."""
        return max((row.held_until for row in self.rows("sending") if row.held_until), default=None)

    def _call(self, function: str, **arguments: Any) -> Any:
        given = {"target": self._target, "account": self._account, "period": f"{self._month:%Y-%m}", **arguments}
        return self._transport.call(function, lambda: given)
