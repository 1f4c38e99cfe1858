"""Figures as a terminal shows them: columns of text that can be pasted, and money and lengths as people read them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from widget_analytics.models import Usage

_GAP = "  "


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> Iterator[str]:
    """Align rows under their heads: the first columns, as many as ``left``, to the left, the others to the right."""
    cells = [list(head), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for number, row in enumerate(cells):
        aligned = (
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield _GAP.join(aligned).rstrip()
        if not number:
            yield _GAP.join("-" * width for width in widths)


def plain(text: str) -> str:
    """Take out what could steer a terminal: ids and names are anybody's to choose."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def number(value: Decimal) -> str:
    """Write a number with its digits, and no more."""
    text = f"{value:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def money(amount: Decimal | None, currency: str | None) -> str:
    """Write an amount; a dash where there is none."""
    return "-" if amount is None or not currency else f"{amount:,f} {currency}"


def price(amount: Decimal | None, currency: str | None) -> str:
    """Write a price, which may have more decimals than an amount; a dash where there is none."""
    if amount is None or not currency:
        return "-"
    exponent = amount.normalize().as_tuple().exponent
    return f"{amount:,.{max(2, -exponent if isinstance(exponent, int) else 0)}f} {currency}"


def minute(at: datetime) -> str:
    """Write a moment to the minute."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def second(at: datetime) -> str:
    """Write a moment to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def share(part: Decimal, whole: Decimal) -> str:
    """Write which part of a whole it is."""
    return f"{part * 100 / whole:.1f} %" if whole else "none"


def assumed_share(usages: Iterable[Usage]) -> str:
    """Say which part of the billable seconds rests on ends that are assumed."""
    usages = list(usages)
    zero = Decimal(0)
    assumed, all_of_it = sum((u.assumed_seconds for u in usages), zero), sum((u.billable_seconds for u in usages), zero)
    return share(assumed, all_of_it)


def count(many: int, noun: str) -> str:
    """Write how many."""
    return f"{many:,} {noun}" + ("" if many == 1 else "s")


class Sums:
    """Amounts added up by currency: euros are not added to dollars."""

    def __init__(self) -> None:
        self.amounts = defaultdict[str, Decimal](Decimal)

    def add(self, amount: Decimal | None, currency: str | None) -> None:
        """Add an amount, if there is one."""
        if amount is not None and currency:
            self.amounts[currency] += amount

    def __str__(self) -> str:
        return ", ".join(money(self.amounts[currency], currency) for currency in sorted(self.amounts)) or "no amount"
