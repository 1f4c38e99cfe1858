"""Which figures a file holds: what closed months charged, or what the ledger says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterable
from decimal import Decimal

from widget_analytics._lines import cells, utc
from widget_analytics._reader import Reader
from widget_analytics._selection import Kind, Selection
from widget_analytics.models import Usage


def state_of(reader: Reader, selection: Selection) -> str:
    """Tell it in a line."""
    if selection.month:
        month = f"{selection.month:%Y-%m}"
        if selection.is_pending:
            return f"{month} is open: these are pending, and would be on its statement if it were closed now"
        return f"{month} is closed: this is its statement, which never changes"
    period = selection.period
    closed = [one for one in reader.closed_months() if one.period_start < period.end and one.period_end > period.start]
    names = ", ".join(f"{one.period:%Y-%m}" for one in closed)
    if selection.as_of:
        said = f"as of {utc(selection.as_of)}: what the ledger said then"
        return f"{said}, not what was charged for {names}" if closed else said
    if not closed:
        return "open: this is what the ledger says now"
    start, is_whole = period.start, True
    for one in closed:
        is_whole = is_whole and one.period_start <= start
        start = one.period_end
    if is_whole and start >= period.end:
        return "closed: this is what was charged"
    return f"closed in part: of {names} this is what was charged, of the rest what the ledger says now"


class Pending:
    """What is pending beside the sums of usage, added up on the way."""

    def __init__(self, kind: Kind) -> None:
        columns = kind.file.columns()
        names = ("pending_calls", "pending_seconds", "pending_amount", "currency")
        self._places = [columns.index(name) for name in names] if kind.model is Usage else None
        self.calls, self.seconds, self.amounts = 0, Decimal(0), defaultdict[str, Decimal](Decimal)

    def noted(self, batches: Iterable[list[bytes]]) -> Generator[list[bytes], None, None]:
        """Pass lines on."""
        for batch in batches:
            if self._places:
                for row in cells(batch):
                    calls, seconds, amount, currency = (row[place] for place in self._places)
                    self.calls += int(calls)
                    self.seconds += Decimal(seconds)
                    if amount:
                        self.amounts[currency] += Decimal(amount)
            yield batch

    def sentence(self) -> str:
        """Tell it in half a line; nothing where nothing is pending."""
        if not self.calls:
            return ""
        parts = [f"{self.calls:,} call" + ("" if self.calls == 1 else "s"), f"{self.seconds:,f} seconds"]
        parts += [f"{amount:,f} {currency}" for currency, amount in sorted(self.amounts.items()) if amount]
        return f"; pending, and not in it: {', '.join(parts)}"
