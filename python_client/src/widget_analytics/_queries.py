"""Which rows are read, whichever way: over the API or from the database itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

from widget_analytics.models import _Row
from widget_analytics.periods import Period

AnyRow = TypeVar("AnyRow", bound=_Row)


class Paging(Enum):
    """How rows are read that do not fit into one answer."""

    NONE = auto()
    """They do."""
    KEY = auto()
    """After the last row by `Query.key`, which is unique and has no nulls."""
    POSITION = auto()
    """After so many rows: for what people look at, where a row that comes meanwhile may shift others."""


@dataclass(frozen=True, kw_only=True)
class Query(Generic[AnyRow]):
    """Which rows to read.

    Attributes:
        relation: a table, or a function in ``public``.
        arguments: the function's; None of a table.
        where: column, operator of PostgREST and value.
        period: rows that it orders by their start are read part by part of it; None of others.
        key: orders the rows; a column may be followed by ``desc`` or ``nulls first``.
        most: how many rows are wanted by position; None for all.
        widgets: only theirs; None for all.
    """

    model: type[AnyRow]
    relation: str
    arguments: Mapping[str, Any] | None = None
    where: tuple[tuple[str, str, str], ...] = ()
    period: Period | None = None
    key: tuple[str, ...] = ()
    paging: Paging = Paging.NONE
    most: int | None = None
    widgets: frozenset[UUID] | None = None

    def between(self, start: datetime, end: datetime) -> Self:
        """Ask for this part of the period."""
        return replace(self, arguments={**(self.arguments or {}), **bounds(start, end)})


def bounds(start: datetime, end: datetime) -> dict[str, Any]:
    """Give a period as arguments."""
    return {"period_start": start.isoformat(), "period_end": end.isoformat()}
