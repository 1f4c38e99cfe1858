"""The command ``bill``: calls and usage of archived months, from the files alone."""

from __future__ import annotations

from decimal import Decimal
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from widget_analytics._archive.engines import EngineName, query_files
from widget_analytics.errors import InputError
from widget_analytics.models import Call, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from widget_analytics._archive.place import Place

# Times as text: the engines' ways to hand them to Python differ.
_CALLS = """
    select c.widget_id, c.session_id, c.call_id, cast(c.started_at as string) as started_at,
      cast(c.ended_at as string) as ended_at, c.outcome, c.evidence, c.duration_seconds, c.billable_seconds, c.rule,
      c.amount, c.currency, true as is_closed
    from archived_calls c
    order by c.started_at, c.widget_id, c.session_id, c.call_id
"""


def archived_months(place: Place) -> list[str]:
    """Name the months that an archive has the calls of.

    Raises:
        InputError: it has none, or cannot be read.
    """
    names = sorted(name.split("=", 1)[1] for name in place.folders("calls") if name.startswith("month="))
    if not names:
        raise InputError(f"{place.url} has no archived month")
    return names


def archived_calls(place: Place, months: Sequence[str], *, engine: EngineName = EngineName.DUCKDB) -> Iterator[Call]:
    """Yield the calls of archived months as they were billed, in the order in which they started."""
    return Call.read(map(_row, query_files(engine, place, _views(months), _CALLS)))


def archived_usage(place: Place, months: Sequence[str], *, engine: EngineName = EngineName.DUCKDB) -> Iterator[Usage]:
    """Yield each widget's usage of archived months, and what was charged for it."""
    query = files("widget_analytics._archive").joinpath("usage.sql").read_text()
    return Usage.read(map(_row, query_files(engine, place, _views(months), query)))


def _views(months: Sequence[str]) -> dict[str, list[str]]:
    return {
        f"archived_{name}": [f"{name}/month={month}/{name}.parquet" for month in months]
        for name in ("calls", "charges")
    }


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """As the API writes it: models are read in one way, wherever their rows come from."""
    return {name: _text(name, value) for name, value in row.items()}


def _text(name: str, value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if name in {"started_at", "ended_at"} and value:
        # Spark leaves the zone out.
        return f"{value}+00:00" if "+" not in value else value
    return value
