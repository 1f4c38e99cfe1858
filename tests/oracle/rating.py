"""What a plan makes of calls, in plain Python and exact fractions: as independent of the product as the model of calls.

From the issue's paragraph on rating, and from what the product says of its plans in words.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

from tests.oracle.model import Call

# ISO 4217; every other currency that the histories use has two.
DECIMALS = {"JPY": 0, "KWD": 3}
DECIMALS_OF_A_CALL = 6
EVIDENCE = ("observed", "provider", "operator", "heartbeat", "assumed")


@dataclass(frozen=True)
class Plan:
    valid_from: date
    increment_seconds: int
    minimum_seconds: int
    included_seconds: int
    price_per_minute: str
    currency: str
    bills_failed_calls: bool
    assumed_calls: str

    @property
    def price_per_second(self) -> Fraction:
        return Fraction(self.price_per_minute) / 60


@dataclass(frozen=True)
class RatedCall:
    call: Call
    month: date
    plan: Plan | None
    billable_seconds: Decimal

    @property
    def amount(self) -> Decimal | None:
        if self.plan is None:
            return None
        return round_half_up(Fraction(self.billable_seconds) * self.plan.price_per_second, DECIMALS_OF_A_CALL)


@dataclass(frozen=True)
class Usage:
    calls: int
    billable_seconds: Decimal
    calls_by_evidence: dict[str, int]
    seconds_by_evidence: dict[str, Decimal]
    calls_by_outcome: dict[str, int]
    charged_seconds: Decimal
    amount: Decimal | None
    currency: str | None


def rate(
    calls: Iterable[Call],
    period_start: datetime,
    period_end: datetime,
    *,
    plans: Iterable[Plan] = (),
    time_zone: str = "UTC",
) -> list[RatedCall]:
    """The calls that started in [start, end); a call belongs to the month, there, in which it started."""
    by_start = sorted(plans, key=lambda plan: plan.valid_from)
    rated = []
    for call in calls:
        if period_start <= call.started_at < period_end:
            month = call.started_at.astimezone(ZoneInfo(time_zone)).date().replace(day=1)
            plan = next((plan for plan in reversed(by_start) if plan.valid_from <= month), None)
            rated.append(RatedCall(call, month, plan, billable_seconds(call, plan)))
    return rated


def billable_seconds(call: Call, plan: Plan | None) -> Decimal:
    nothing = Decimal(0)
    if call.duration_seconds is None:
        return nothing
    if plan is None:
        return call.duration_seconds if call.outcome == "completed" else nothing
    is_void = call.evidence in ("operator", "provider") and call.duration_seconds == 0
    if (
        is_void
        or (call.outcome == "failed" and not plan.bills_failed_calls)
        or (call.evidence == "assumed" and plan.assumed_calls == "none")
    ):
        return nothing
    seconds = max(call.duration_seconds, Decimal(plan.minimum_seconds))
    if plan.increment_seconds:
        steps = -(-Fraction(seconds) // plan.increment_seconds)
        seconds = Decimal(steps * plan.increment_seconds)
    return seconds


def sum_up(rated: list[RatedCall], before: list[RatedCall]) -> Usage:
    """`before`: the calls of the same months that started before the period."""
    charged, amount, currency = charge(rated, before)
    return Usage(
        calls=len(rated),
        billable_seconds=total_seconds(rated),
        calls_by_evidence={e: sum(one.call.evidence == e for one in rated) for e in EVIDENCE},
        seconds_by_evidence={e: total_seconds(one for one in rated if one.call.evidence == e) for e in EVIDENCE},
        calls_by_outcome={o: sum(one.call.outcome == o for one in rated) for o in ("open", "failed")},
        charged_seconds=charged,
        amount=amount,
        currency=currency,
    )


def total_seconds(rated: Iterable[RatedCall]) -> Decimal:
    return sum((one.billable_seconds for one in rated), Decimal(0))


def charge(rated: list[RatedCall], before: list[RatedCall]) -> tuple[Decimal, Decimal | None, str | None]:
    """Month by month, what exceeds the included seconds: to date at the period's end less to date at its start.

    No amount unless every month with calls has one, in one currency.
    """
    charged, amount = Decimal(0), Decimal(0)
    currencies: set[str | None] = set()
    for month in {one.month for one in rated}:
        of_month = [one for one in rated if one.month == month]
        plan = of_month[0].plan
        if plan is None:
            charged += total_seconds(of_month)
            currencies.add(None)
            continue
        at_start = total_seconds(one for one in before if one.month == month)
        beyond = [
            max(seconds - plan.included_seconds, Decimal(0))
            for seconds in (at_start, at_start + total_seconds(of_month))
        ]
        amounts = [round_half_up(Fraction(s) * plan.price_per_second, DECIMALS.get(plan.currency, 2)) for s in beyond]
        charged += beyond[1] - beyond[0]
        amount += amounts[1] - amounts[0]
        currencies.add(plan.currency)
    currency = currencies.pop() if len(currencies) == 1 else None
    return charged, None if currency is None else amount, currency


def round_half_up(exact: Fraction, decimals: int) -> Decimal:
    """Nothing here is below zero."""
    return Decimal(int(exact * 10**decimals + Fraction(1, 2))).scaleb(-decimals)
