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

from widget_analytics._push.charges import ChargeToPush, in_credit
from widget_analytics._push.target import Passing, Planned, Push, Settled, account_at
from widget_analytics.errors import ConfigError

_KNOWN = "value_already_exist"
_REFUSALS = (httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY)
_LOST = "Lago bills a negative total as nothing, so this credit would be lost: give the customer a credit note for it"
_NO_SECONDS = "Lago bills no seconds as nothing, so this amount would be lost: bill the customer for it there by hand"


class LagoTarget:
    """A customer's id here is the external id of its subscription."""

    name = "lago"
    # On Lago's PostgreSQL store a transaction id is known for ever; in its ClickHouse store an event of the same id and
    # time replaces itself.
    window: timedelta | None = None
    batch = 100

    def __init__(self, api_key: str, *, code: str, account: str | None = None, url: str | None = None) -> None:
        self.account = account or account_at(url)
        self._code = code
        self._client = Client(api_key=api_key, api_url=url or "", max_retries=0, retry_on_rate_limit=False)

    def plan(self, charges: Sequence[tuple[ChargeToPush, str]]) -> list[Planned]:
        creditors = in_credit(charges, lambda charge: charge.difference_seconds)
        seconds, amounts = defaultdict[str, Decimal](Decimal), defaultdict[str, Decimal](Decimal)
        for charge, customer in charges:
            seconds[customer] += charge.difference_seconds
            amounts[customer] += charge.difference_amount or 0
        refusals = {customer: _NO_SECONDS for customer in seconds if not seconds[customer] and amounts[customer]}
        refusals |= dict.fromkeys(creditors, _LOST)
        return [
            Planned(charge, customer, self._event(charge, customer), refusals.get(customer))
            for charge, customer in charges
        ]

    def _event(self, charge: ChargeToPush, customer: str) -> dict[str, Any]:
        amount = charge.difference_amount
        return {
            "transaction_id": charge.event_id,
            "external_subscription_id": customer,
            "code": self._code,
            # The last second of the statement's month, for adjustments too: their own month is invoiced.
            "timestamp": int(charge.period_end.timestamp()) - 1,
            "precise_total_amount_cents": None if amount is None else f"{amount.scaleb(charge.decimals or 0):f}",
            "properties": {
                "seconds": f"{charge.difference_seconds:f}",
                "widget_id": str(charge.widget_id),
                "usage_period": f"{charge.usage_period:%Y-%m}",
            },
        }

    def send(self, pushes: Sequence[Push]) -> list[Settled]:
        """A batch goes in. Whether it is stored shows later: Lago's ClickHouse store takes it from a queue.

        A batch with one event that Lago knows or refuses is refused whole: without that one it goes again.
        """
        waiting = list(pushes)
        settled: list[Settled] = []
        while waiting:
            errors = self._create(waiting)
            if errors is None:
                return settled + [Settled(push, "accepted", push.event_id) for push in waiting]
            if not errors:
                # No place is named: each goes alone, to tell which.
                return settled + [each for push in waiting for each in self.send([push])]
            for index, reasons in errors.items():
                is_known = _KNOWN in str(reasons)
                state, answer = ("accepted", waiting[index].event_id) if is_known else ("refused", _words(reasons))
                settled.append(Settled(waiting[index], state, answer))
            waiting = [push for index, push in enumerate(waiting) if index not in errors]
        return settled

    def _create(self, pushes: Sequence[Push]) -> dict[int, object] | None:
        """Give the errors by place in the batch, none where it was refused without one, or None where it was taken."""
        try:
            self._client.events.batch_create(BatchEvent(events=[Event(**push.payload) for push in pushes]))
        except LagoRateLimitError as error:
            raise Passing("Lago asks to wait (429)", error.reset) from None
        except LagoApiError as error:
            details = error.response.get("error_details") if isinstance(error.response, Mapping) else None
            if error.status_code not in _REFUSALS:
                raise _error(error) from None
            places = details if isinstance(details, Mapping) else {}
            by_place = {int(place): reasons for place, reasons in places.items() if str(place).isdecimal()}
            if by_place or len(pushes) > 1:
                return by_place
            return {0: details or error.detail}
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


def _words(reasons: object) -> str:
    """Give Lago's reasons, {field: [code]}, as a line."""
    if not isinstance(reasons, Mapping):
        return str(reasons)
    return "; ".join(
        f"{name}: {', '.join(map(str, codes)) if isinstance(codes, list) else codes}" for name, codes in reasons.items()
    )


def _error(error: LagoApiError) -> Passing | ConfigError:
    if error.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return ConfigError(f"LAGO_API_KEY: Lago refuses the key ({error.status_code})")
    return Passing(f"Lago did not answer well ({error.status_code})")
