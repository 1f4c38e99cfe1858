"""Periods to bill: half-open, ``[start, end)``, in UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

_FIRST_YEAR, _LAST_YEAR = 1970, 9998


@dataclass(frozen=True, slots=True)
class Period:
    """The instants from ``start`` on, up to but without ``end``. Both are kept in UTC.

    Raises:
        ValueError: a time without a zone, or an end that is not after the start.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            instant: datetime = getattr(self, name)
            if instant.tzinfo is None:
                raise ValueError(f"the period's {name} has no time zone: {instant}")
            object.__setattr__(self, name, instant.astimezone(UTC))
        if self.end <= self.start:
            raise ValueError(f"the period is empty: its end, {self.end}, is not after its start, {self.start}")

    @classmethod
    def month(cls, text: str) -> Self:
        """Read a calendar month in UTC, written as ``2026-10``.

        Raises:
            ValueError: it is not written so, or there is no such month.
        """
        match = re.fullmatch(r"([0-9]{4})-(0[1-9]|1[0-2])", text)
        if not match or not _FIRST_YEAR <= int(match[1]) <= _LAST_YEAR:
            raise ValueError(f"{text!r} is not a month; write it as 2026-10")
        year, month = int(match[1]), int(match[2])
        return cls(datetime(year, month, 1, tzinfo=UTC), _first_of_next_month(year, month))

    @classmethod
    def month_of(cls, instant: datetime) -> Self:
        """Give the calendar month, in UTC, that an instant lies in."""
        utc = instant.astimezone(UTC)
        return cls.month(f"{utc:%Y-%m}")


def _first_of_next_month(year: int, month: int) -> datetime:
    return datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)


def parse_instant(text: str) -> datetime:
    """Read a date (its midnight) or an ISO 8601 timestamp; UTC where it names no zone.

    Raises:
        ValueError: it is neither.
    """
    try:
        instant = datetime.fromisoformat(text)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a date or time; write it as 2026-10-01 or 2026-10-01T08:30:00Z") from None
