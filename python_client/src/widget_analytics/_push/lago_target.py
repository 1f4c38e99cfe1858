"""Lago: events of a billable metric, each with its amount as this project computed it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
from lago_python_client import Client
from lago_python_client.exceptions import LagoApiError, LagoRateLimitError
from lago_python_client.models import BatchEvent, Event

from widget_analytics._push.charges import ChargeToPush
from widget_analytics._push.target import Passing, Planned, Push, Settled
from widget_analytics.errors import ConfigError

_KNOWN = "value_already_exist"


class LagoTarget:
    """A customer's id here is the external id of its subscription."""

    name = "lago"
    # On Lago's PostgreSQL store a transaction id is known for ever; its ClickHouse store replaces the event by itself.
    window: timedelta | None = None
    settling = timedelta(0)
    batch = 100

    def __init__(self, api_key: str, *, code: str, url: str | None = None) -> None:
        self._code = code
        self._client = Client(api_key=api_key, api_url=url or "", max_retries=0, retry_on_rate_limit=False)

    def plan(self, charges: Sequence[tuple[ChargeToPush, str]]) -> list[Planned]:
        totals: dict[str, Decimal] = defaultdict(Decimal)
        for charge, customer in charges:
            totals[customer] += charge.new_seconds - charge.old_seconds
        return [
            Planned(
                charge,
                customer,
                self._event(charge, customer),
                None
                if totals[customer] >= 0
                else "Lago bills a negative total as nothing, so this credit would be lost: give the customer a credit "
                "note for it",
            )
            for charge, customer in charges
        ]

    def _event(self, charge: ChargeToPush, customer: str) -> dict[str, Any]:
        seconds = charge.new_seconds - charge.old_seconds
        amount = charge.difference_amount
        return {
            "transaction_id": charge.event_id,
            "external_subscription_id": customer,
            "code": self._code,
            # The last second of the statement's month, for adjustments too: their own month is invoiced.
            "timestamp": int(charge.period_end.timestamp()) - 1,
            "precise_total_amount_cents": None if amount is None else f"{amount.scaleb(charge.decimals or 0):f}",
            "properties": {
                "seconds": f"{seconds:f}",
                "widget_id": str(charge.widget_id),
                "usage_period": f"{charge.usage_period:%Y-%m}",
            },
        }

    def send(self, pushes: Sequence[Push]) -> list[Settled]:
        """A batch with one event that Lago knows or refuses is refused whole: without that one it goes again."""
        waiting = list(pushes)
        settled: list[Settled] = []
        while waiting:
            errors = self._create(waiting)
            if errors is None:
                return settled + [Settled(push, "confirmed", push.event_id) for push in waiting]
            for index, reasons in errors.items():
                is_known = _KNOWN in str(reasons)
                state, answer = ("confirmed", waiting[index].event_id) if is_known else ("refused", str(reasons))
                settled.append(Settled(waiting[index], state, answer))
            waiting = [push for index, push in enumerate(waiting) if index not in errors]
        return settled

    def _create(self, pushes: Sequence[Push]) -> dict[int, object] | None:
        """Give the errors by place in the batch, or None where it was taken."""
        try:
            self._client.events.batch_create(BatchEvent(events=[Event(**push.payload) for push in pushes]))
        except LagoRateLimitError as error:
            raise Passing("Lago asks to wait (429)", error.reset) from None
        except LagoApiError as error:
            details = error.response.get("error_details") if isinstance(error.response, Mapping) else None
            if error.status_code == httpx.codes.UNPROCESSABLE_ENTITY and isinstance(details, Mapping):
                by_place = {int(place): reasons for place, reasons in details.items() if str(place).isdecimal()}
                # Of a batch of one Lago names no place.
                return by_place or dict.fromkeys(range(len(pushes)), details)
            raise _error(error) from None
        except httpx.TransportError as error:
            raise Passing(f"Lago did not answer ({type(error).__name__})") from None
        return None

    def find(self, push: Push) -> str | None:
        try:
            event: Any = self._client.events.find(push.event_id)  # type: ignore[misc]  # its mixin's own types
        except LagoApiError as error:
            if error.status_code == httpx.codes.NOT_FOUND:
                return None
            raise _error(error) from None
        except httpx.TransportError as error:
            raise Passing(f"Lago did not answer ({type(error).__name__})") from None
        return str(event.transaction_id)


def _error(error: LagoApiError) -> Passing | ConfigError:
    if error.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return ConfigError(f"LAGO_API_KEY: Lago refuses the key ({error.status_code})")
    return Passing(f"Lago did not answer well ({error.status_code})")
