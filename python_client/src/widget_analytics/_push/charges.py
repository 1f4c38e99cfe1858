"""What a closed month charges, as rows to send."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from uuid import UUID

from widget_analytics._queries import Paging, Query
from widget_analytics.errors import InputError, UsageError
from widget_analytics.models import Instant, _Row

_SHOWN = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ChargeToPush(_Row):
    """A row of ``widget_charges_to_push``: what a closed month charges a widget for a month of use."""

    period: date
    widget_id: UUID
    usage_period: date
    customer: str | None
    period_start: Instant
    period_end: Instant
    currency: str | None
    decimals: int | None
    old_seconds: Decimal
    new_seconds: Decimal
    old_amount: Decimal | None
    new_amount: Decimal | None
    difference_amount: Decimal | None

    @property
    def event_id(self) -> str:
        """The charge's name at every billing system: its primary key."""
        return f"widget-charge-{self.period:%Y-%m}-{self.usage_period:%Y-%m}-{self.widget_id}"

    @property
    def whole_seconds(self) -> int:
        """The difference in seconds, such that those of all statements add up to the rounded whole."""
        return rounded(self.new_seconds) - rounded(self.old_seconds)

    @property
    def difference_seconds(self) -> Decimal:
        """What the statement adds to the seconds or, below zero, takes off."""
        return self.new_seconds - self.old_seconds

    def describe(self) -> str:
        """Name the charge as an invoice does."""
        month = f"{self.usage_period:%Y-%m}"
        adjusted = f", adjusted with {self.period:%Y-%m}" if self.usage_period < self.period else ""
        return f"Calls {month}{adjusted}, widget {self.widget_id}"


def in_credit(
    charges: Iterable[tuple[ChargeToPush, str]], seconds: Callable[[ChargeToPush], Decimal | int]
) -> set[str]:
    """Give the customers whose charges together take seconds off: what bills a sum would floor it at nothing."""
    totals: dict[str, Decimal] = defaultdict(Decimal)
    for charge, customer in charges:
        totals[customer] += seconds(charge)
    return {customer for customer, total in totals.items() if total < 0}


def rounded(number: Decimal) -> int:
    """The nearest whole number, the even one of two."""
    return int(number.to_integral_value(ROUND_HALF_EVEN))


def charges_of(month: date) -> Query[ChargeToPush]:
    """Ask for a closed month's charges."""
    return Query(
        model=ChargeToPush,
        relation="widget_charges_to_push",
        where=(("period", "eq", month.isoformat()),),
        key=("widget_id", "usage_period"),
        paging=Paging.KEY,
    )


def customers_of(file: Path) -> dict[str, str]:
    """Read which customer reference is which id at the billing system: two columns of CSV, ``reference`` and ``id``.

    Raises:
        InputError: the file cannot be read so.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = [((row["reference"] or "").strip(), (row["id"] or "").strip()) for row in csv.DictReader(lines)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: {error}") from None
    except KeyError as error:
        raise InputError(f"{file}: the first line must be reference,id with a comma; {error} is missing") from None
    customers = {reference: customer for reference, customer in rows if customer}
    for reference, customer in rows:
        if customer and customers[reference] != customer:
            raise InputError(f"{file}: {reference} has two ids, {customer} and {customers[reference]}")
    return customers


def with_customers(
    charges: Iterable[ChargeToPush], customers: Mapping[str, str] | None
) -> list[tuple[ChargeToPush, str]]:
    """Find each charge's customer at the billing system: by the map, or the reference itself where there is none.

    Raises:
        UsageError: some charge has none. Nothing may be sent then.
    """
    found: list[tuple[ChargeToPush, str]] = []
    missing: dict[str, None] = {}
    for charge in charges:
        if charge.customer is None:
            missing[f"widget {charge.widget_id} has no customer reference"] = None
        elif customers is not None and charge.customer not in customers:
            missing[f"customer {charge.customer} is not in the file of --customers"] = None
        else:
            found.append((charge, charge.customer if customers is None else customers[charge.customer]))
    if missing:
        listed = list(missing)
        more = f"; and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
        raise UsageError(
            f"nothing was sent: {'; '.join(listed[:_SHOWN])}{more}. "
            "A widget's reference is set by: widget-analytics widget set NAME --customer REFERENCE"
        )
    return found
