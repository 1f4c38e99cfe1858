"""Stripe: invoice items, or events of a meter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import stripe

from widget_analytics._push.charges import ChargeToPush, in_credit, rounded
from widget_analytics._push.target import Passing, Planned, Push, Settled, Unclear
from widget_analytics.errors import ConfigError, UsageError

# https://docs.stripe.com/currencies: what Stripe counts unlike ISO 4217.
_DECIMALS = {"ISK": 2, "MGA": 0, "UGX": 2}
_LAST_DIGIT_ZERO = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
_KEY = "widget_charge"
_MINUTES = 28 * 24 * 60


def minor_units(amount: Decimal, currency: str, decimals: int) -> int:
    """An amount as Stripe counts it."""
    units = amount.scaleb(_DECIMALS.get(currency, decimals))
    return 10 * rounded(units / 10) if currency in _LAST_DIGIT_ZERO else rounded(units)


class StripeTarget:
    """Sends one charge a request, as Stripe takes no more at once."""

    name = "stripe"
    # Both kinds of keys are kept for at least a day.
    window: timedelta | None = timedelta(hours=23)
    batch = 20

    def __init__(
        self,
        api_key: str,
        *,
        meter: str | None,
        account: str | None = None,
        url: str | None = None,
        timeout: float = 30,
    ) -> None:
        # A restricted key may not be allowed to ask for its account; the mode shows in the key.
        self.account = account or ("test" if "_test_" in api_key else "live")
        self._meter = meter
        self._meter_ids: dict[str, str] = {}
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": url} if url else None,
            max_network_retries=0,
            http_client=stripe.RequestsClient(timeout=timeout),
        )

    def plan(self, charges: Sequence[tuple[ChargeToPush, str]]) -> list[Planned]:
        if self._meter is None:
            return [Planned(charge, customer, self._item(charge, customer)) for charge, customer in charges]
        creditors = in_credit(charges, lambda charge: charge.whole_seconds)
        if len(charges) > _MINUTES:
            raise UsageError(
                f"nothing was sent: a meter has minutes for {_MINUTES:,} charges a month. Leave out --meter"
            )
        planned = []
        # A charge's minute depends on no customer: one that was refused may be planned anew for another.
        for minute, (charge, customer) in enumerate(charges, start=1):
            # A meter floors a customer's negative total at nothing, so that a credit would be lost.
            payload = (
                self._meter_event(charge, customer, minute)
                if customer not in creditors
                else self._item(charge, customer, because="a meter would lose a credit larger than the month's usage")
            )
            planned.append(Planned(charge, customer, payload))
        return planned

    def _item(self, charge: ChargeToPush, customer: str, *, because: str | None = None) -> dict[str, Any]:
        if charge.currency is None or charge.decimals is None or charge.new_amount is None:
            raise UsageError(
                f"nothing was sent: widget {charge.widget_id} has no plan in {charge.usage_period:%Y-%m}, and so no "
                "amount. Give it a plan before the month is closed, or push its seconds: --meter NAME"
            )
        old, new = (
            minor_units(amount or Decimal(0), charge.currency, charge.decimals)
            for amount in (charge.old_amount, charge.new_amount)
        )
        item = {
            "customer": customer,
            "amount": new - old,
            "currency": charge.currency.lower(),
            "description": charge.describe(),
            "period": {"start": int(charge.period_start.timestamp()), "end": int(charge.period_end.timestamp()) - 1},
            "metadata": {_KEY: charge.event_id},
        }
        return {"item": item} | ({"because": because} if because else {})

    def _meter_event(self, charge: ChargeToPush, customer: str, minute: int) -> dict[str, Any]:
        # Each charge has a minute of its own, counted back from the month's end, where it is found again.
        at = charge.period_end - timedelta(minutes=minute)
        event = {
            "event_name": self._meter,
            "identifier": charge.event_id,
            "timestamp": int(at.timestamp()) // 60 * 60,
            "payload": {"stripe_customer_id": customer, "value": str(charge.whole_seconds)},
        }
        return {"meter_event": event}

    def send(self, pushes: Sequence[Push]) -> list[Settled]:
        return [self._send(push) for push in pushes]

    def _send(self, push: Push) -> Settled:
        # The same key for the same payload: one that was heard, and its answer lost, is answered as it was then.
        # So is one that was refused; planned anew, it has another key.
        digest = hashlib.sha256(json.dumps(push.payload, sort_keys=True).encode()).hexdigest()[:12]
        options: Any = {"idempotency_key": f"{push.event_id}-{digest}-{push.refusals}"}
        try:
            with _translated():
                if "item" in push.payload:
                    item: Any = push.payload["item"]
                    return Settled(push, "confirmed", self._client.v1.invoice_items.create(item, options).id)
                event: Any = push.payload["meter_event"]
                self._client.v1.billing.meter_events.create(event, options)
        except stripe.IdempotencyError as error:
            # Something was sent under this key that is not in the outbox, as one restored from a backup may have it.
            return Settled(push, "unclear", error.user_message or str(error.code))
        except stripe.InvalidRequestError as error:
            if "already exists with identifier" not in str(error):
                return Settled(push, "refused", error.user_message or str(error.code))
        # Checked later: a customer that it does not know shows only in its meter.
        return Settled(push, "accepted", push.event_id)

    def find(self, push: Push) -> str | None:
        try:
            with _translated():
                return self._find_item(push) if "item" in push.payload else self._find_meter_event(push)
        except stripe.InvalidRequestError as error:
            if error.code == "resource_missing":  # the customer
                return None
            raise Unclear(f"Stripe does not say whether it has it: {error.user_message or error.code}") from None

    def _find_item(self, push: Push) -> str | None:
        # A month is pushed after its end, so that none of the years before is read.
        ended = push.payload["item"]["period"]["end"]
        items = self._client.v1.invoice_items.list({"customer": push.customer, "created": {"gte": ended}, "limit": 100})
        for item in items.auto_paging_iter():
            metadata: Mapping[str, str] = item.metadata.to_dict() if item.metadata else {}
            if metadata.get(_KEY) == push.event_id:
                return str(item.id)
        return None

    def _find_meter_event(self, push: Push) -> str | None:
        event: Mapping[str, Any] = push.payload["meter_event"]
        start = event["timestamp"]
        summaries = self._client.v1.billing.meters.event_summaries.list(
            self._meter_id(event["event_name"]),
            {"customer": push.customer, "start_time": start, "end_time": start + 60},
        )
        counted = sum(Decimal(str(summary.aggregated_value)) for summary in summaries.auto_paging_iter())
        if counted not in (0, Decimal(event["payload"]["value"])):
            raise Unclear(
                f"the meter counts {counted} s in the minute of this charge of {event['payload']['value']} s: "
                "does something else send to it?"
            )
        return push.event_id if counted or not Decimal(event["payload"]["value"]) else None

    def _meter_id(self, event_name: str) -> str:
        if event_name not in self._meter_ids:
            meters = self._client.v1.billing.meters.list({"limit": 100})
            self._meter_ids |= {each.event_name: each.id for each in meters.auto_paging_iter()}
        if event_name not in self._meter_ids:
            raise UsageError(f"--meter: Stripe has no meter of the event name {event_name}")
        return self._meter_ids[event_name]


@contextmanager
def _translated() -> Iterator[None]:
    """Stripe's errors as ours, without what they quote of the request; a refusal of the event passes through."""
    try:
        yield
    except stripe.RateLimitError as error:
        raise Passing("Stripe asks to wait (429)", _retry_after(error)) from None
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        raise ConfigError(f"STRIPE_API_KEY: Stripe refuses the key ({error.http_status})") from None
    except (stripe.InvalidRequestError, stripe.IdempotencyError):
        raise
    except stripe.StripeError as error:
        raise Passing(f"Stripe did not answer well ({error.http_status or type(error).__name__})") from None


def _retry_after(error: stripe.StripeError) -> float | None:
    value = str((error.headers or {}).get("retry-after", ""))
    return float(value) if value.isdecimal() else None
