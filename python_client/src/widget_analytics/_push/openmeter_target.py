"""OpenMeter: CloudEvents, by its REST API's own client."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from corehttp.exceptions import (
    BaseError,
    ClientAuthenticationError,
    HttpResponseError,
)
from openmeter import Client

from widget_analytics._push.charges import ChargeToPush, in_credit
from widget_analytics._push.target import Passing, Planned, Push, Settled, Unclear, account_at
from widget_analytics.errors import ConfigError, UsageError

# It logs a traceback for each error answer that is not JSON.
logging.getLogger("openmeter").setLevel(logging.ERROR)

SOURCE = "widget-analytics"
_LOST = "it is not known that OpenMeter bills a negative total as a credit: give the customer one by hand"
_TOO_MANY = 429
_BAD_REQUEST = 400


class OpenMeterTarget:
    """A customer's id here is the events' subject."""

    name = "openmeter"
    # It drops an event that it knows, by source and id, for 32 days unless set otherwise; a look costs little.
    window: timedelta | None = timedelta(hours=1)
    batch = 100

    def __init__(
        self,
        api_key: str | None,
        *,
        event_type: str,
        account: str | None = None,
        url: str | None = None,
        timeout: float = 30,
    ) -> None:
        self.account = account or account_at(url)
        self._type = event_type
        options = {"endpoint": url} if url else {}
        self._client = Client(token=api_key, retry_total=0, connection_timeout=timeout, read_timeout=timeout, **options)

    def plan(self, charges: Sequence[tuple[ChargeToPush, str]]) -> list[Planned]:
        creditors = in_credit(charges, lambda charge: charge.difference_seconds)
        return [
            Planned(charge, customer, self._event(charge, customer), _LOST if customer in creditors else None)
            for charge, customer in charges
        ]

    def _event(self, charge: ChargeToPush, customer: str) -> dict[str, Any]:
        amount = charge.difference_amount
        return {
            "specversion": "1.0",
            "id": charge.event_id,
            "source": SOURCE,
            "type": self._type,
            "subject": customer,
            # The last second of the statement's month, for adjustments too: their own month is invoiced.
            "time": (charge.period_end - timedelta(seconds=1)).isoformat(),
            "datacontenttype": "application/json",
            "data": {
                "seconds": f"{charge.difference_seconds:f}",
                "amount": None if amount is None else f"{amount:f}",
                "currency": charge.currency,
                "widget_id": str(charge.widget_id),
                "usage_period": f"{charge.usage_period:%Y-%m}",
            },
        }

    def send(self, pushes: Sequence[Push]) -> list[Settled]:
        events: Any = [dict(push.payload) for push in pushes]
        try:
            with _translated():
                self._client.events.ingest_events(events)
        except UsageError as error:
            if len(pushes) == 1:
                return [Settled(pushes[0], "refused", str(error))]
            # One of them: each goes alone, to tell which.
            return [settled for push in pushes for settled in self.send([push])]
        return [Settled(push, "accepted", push.event_id) for push in pushes]

    def find(self, push: Push) -> str | None:
        at = push.payload["time"]
        with _translated():
            # It looks for a part of an id, and by default in the last 72 hours alone.
            found = self._client.events.list(id=push.event_id, from_parameter=at, limit=100)
        for each in found:
            if (each.event["id"], each.event["source"]) == (push.event_id, SOURCE):
                if each.validation_error:
                    raise Unclear(f"OpenMeter has it, and does not count it: {each.validation_error}")
                return push.event_id
        return None


@contextmanager
def _translated() -> Iterator[None]:
    """Its client's errors as ours, without what they quote of the request."""
    try:
        yield
    except ClientAuthenticationError as error:
        raise ConfigError(f"OPENMETER_API_KEY: OpenMeter refuses the key ({error.status_code})") from None
    except HttpResponseError as error:
        if error.status_code == _BAD_REQUEST:
            raise UsageError("OpenMeter takes no such event (400)") from None
        response: Any = error.response
        wait = response.headers.get("Retry-After", "") if error.status_code == _TOO_MANY else ""
        retry_after = float(wait) if wait.isdecimal() else None
        raise Passing(f"OpenMeter did not answer well ({error.status_code})", retry_after) from None
    except BaseError as error:
        raise Passing(f"OpenMeter did not answer ({type(error).__name__})") from None
