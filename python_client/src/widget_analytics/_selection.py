"""What an export holds: which rows, and how they are added up. A manifest remembers it, so they can be read again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Self, TypeAlias
from uuid import UUID

from widget_analytics._labels import Labels, file_model, names_of
from widget_analytics._lines import cells, utc
from widget_analytics._reader import Reader, Rows
from widget_analytics.book_models import PendingAdjustment
from widget_analytics.models import Call, Charge, StatementLine, Usage, _Row
from widget_analytics.periods import Period

ExportRow: TypeAlias = Call | Usage | Charge | StatementLine | PendingAdjustment


class Detail(StrEnum):
    """What a row is."""

    CALLS = "calls"
    USAGE = "usage"
    STATEMENTS = "statements"
    STATEMENT_LINES = "statement-lines"
    ADJUSTMENTS = "adjustments"


@dataclass(frozen=True)
class Kind:
    """How rows of one detail look.

    Attributes:
        model: a row of the database's.
        noun: what one is called.
        key: what tells one from another.
        summed: the columns that add up: seconds, and amount and currency where they have a price.
        is_closed: whether they are of a closed month, and so never change.
        is_labelled: whether a file has names and the period before the database's columns.
    """

    model: type[ExportRow]
    noun: str
    key: tuple[str, ...]
    summed: tuple[str, ...]
    is_closed: bool
    is_labelled: bool = True

    @property
    def file(self) -> type[_Row]:
        """A row of a file."""
        return file_model(self.model) if self.is_labelled else self.model  # type: ignore[arg-type]  # classes have hashes


_CALL = ("widget_id", "session_id", "call_id")
_BILLED = ("billable_seconds", "amount", "currency")
_CHARGED = ("difference_seconds", "difference_amount", "currency")
_LINE = ("difference_seconds",)
KINDS: dict[Detail, Kind] = {
    Detail.CALLS: Kind(Call, "call", _CALL, _BILLED, is_closed=False),
    Detail.USAGE: Kind(Usage, "widget", ("widget_id",), _BILLED, is_closed=False),
    Detail.STATEMENTS: Kind(Charge, "charge", ("widget_id", "usage_period"), _CHARGED, is_closed=True),
    Detail.STATEMENT_LINES: Kind(StatementLine, "line", (*_CALL, "usage_period"), _LINE, is_closed=True),
    Detail.ADJUSTMENTS: Kind(StatementLine, "adjustment", (*_CALL, "usage_period"), _LINE, is_closed=True),
}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which rows are meant.

    Attributes:
        period: when the calls started, or the closed month's bounds.
        month: the closed month's first day; None for calls and usage.
        as_of: count only events received by then; None for all, and for a closed month, which has its own.
        is_pending: of adjustments: the month is open, and its statement would have them.
    """

    detail: Detail
    period: Period
    month: date | None
    widgets: tuple[UUID, ...] | None
    as_of: datetime | None
    is_pending: bool = False

    @property
    def kind(self) -> Kind:
        """How its rows look."""
        return KINDS[self.detail]

    def rows(self, reader: Reader) -> Rows[Any]:
        """Read them."""
        if self.month is None:
            read = reader.calls if self.detail is Detail.CALLS else reader.usage
            return read(self.period, widgets=self.widgets, as_of=self.as_of)
        if self.detail is Detail.STATEMENTS:
            return reader.charges(self.month, widgets=self.widgets)
        if self.is_pending:
            return reader.pending_adjustments(self.month, widgets=self.widgets)
        only_adjustments = self.detail is Detail.ADJUSTMENTS
        return reader.statement_lines(self.month, widgets=self.widgets, only_adjustments=only_adjustments)

    def lines(self, reader: Reader) -> Generator[list[bytes], None, None]:
        """Read them as a file has them: labelled lines, many at a time."""
        labels = Labels(
            PendingAdjustment if self.is_pending else self.kind.model,
            names_of(reader),
            self.period,
            is_closed=not self.is_pending,
            month=self.month,
        )
        with closing(self.rows(reader).batches()) as batches:
            yield from labels.add(batches)

    def to_json(self) -> dict[str, Any]:
        """Write it down for a manifest."""
        return {
            "detail": self.detail,
            "from": utc(self.period.start),
            "to": utc(self.period.end),
            "month": self.month and f"{self.month:%Y-%m}",
            "widgets": self.widgets and sorted(map(str, self.widgets)),
            "as_of": self.as_of and utc(self.as_of),
        }

    @classmethod
    def from_json(cls, text: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        selection = cls(
            detail=Detail(text["detail"]),
            period=Period(datetime.fromisoformat(text["from"]), datetime.fromisoformat(text["to"])),
            month=None if text["month"] is None else date.fromisoformat(f"{text['month']}-01"),
            widgets=None if text["widgets"] is None else tuple(map(UUID, text["widgets"])),
            as_of=None if text["as_of"] is None else datetime.fromisoformat(text["as_of"]),
        )
        if (selection.month is not None) != selection.kind.is_closed or (selection.month is None) != bool(
            selection.as_of
        ):
            raise ValueError("neither of a closed month nor as of a moment")
        return selection


@dataclass
class Totals:
    """What the rows so far add up to. Seconds are exact.

    Calls' amounts are at six decimals each; what a month costs is in usage and statements. Of statements and their
    lines, it is the differences that add up: what this statement bills.
    """

    rows: int = 0
    billable_seconds: Decimal = Decimal(0)
    amounts: dict[str, Decimal] = field(default_factory=dict)

    def add(self, kind: Kind, lines: Sequence[bytes]) -> None:
        """Count rows by their lines (`_lines`)."""
        places = [kind.file.columns().index(name) for name in kind.summed]
        first = min(places)
        # Without a quote each comma parts two cells. And many rows are alike from the first that is summed on.
        ends = Counter(line.split(b",", first)[first] for line in lines if b'"' not in line)
        rows = [(row, ends[end]) for row, end in zip(cells(ends), ends, strict=True)]
        rows += [(row[first:], 1) for row in cells(line for line in lines if b'"' in line)]
        for row, times in rows:
            seconds, *price = (row[place - first] for place in places)
            self.rows += times
            self.billable_seconds += Decimal(seconds) * times
            if price and price[0]:
                amount, currency = price
                self.amounts[currency] = self.amounts.get(currency, Decimal(0)) + Decimal(amount) * times

    def to_json(self) -> dict[str, Any]:
        """Write them down for a manifest: numbers as text, so that no reader rounds them."""
        return {
            "rows": self.rows,
            "billable_seconds": f"{self.billable_seconds:f}",
            "amounts": {currency: f"{amount:f}" for currency, amount in sorted(self.amounts.items())},
        }

    def sentence(self, kind: Kind) -> str:
        """Tell them in a line."""
        parts = [
            f"{self.rows:,} {kind.noun}" + ("" if self.rows == 1 else "s"),
            f"{self.billable_seconds:,f} billable seconds",
        ]
        if kind.model is not Call:
            parts += [f"{amount:,f} {currency}" for currency, amount in sorted(self.amounts.items())]
        return ", ".join(parts)
