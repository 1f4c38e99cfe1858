"""The command ``bill``: the calls and the usage of an archived month, computed from its files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from uuid import UUID

from widget_analytics._archive.engines import EngineName, engine_for
from widget_analytics.models import Call, Evidence, Outcome, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from widget_analytics._archive.engines import Engine
    from widget_analytics._archive.manifest import ArchivedMonth
    from widget_analytics._archive.place import Place

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXACT = Context(prec=100, rounding=ROUND_HALF_UP)
_DECIMALS_OF_A_CALL = 6
_EVIDENCE = ("observed", "provider", "operator", "heartbeat", "assumed")


def archived_calls(place: Place, month: ArchivedMonth, *, engine: EngineName = EngineName.DUCKDB) -> Iterator[Call]:
    """Yield the calls that started in an archived month, each with its bill, in the order in which they started."""
    with engine_for(engine, place) as running:
        _rate(running, place, month)
        for row in running.rows("select * from rated_calls order by started_us, widget_id, session_id, call_id"):
            yield Call(
                widget_id=UUID(row["widget_id"]),
                session_id=row["session_id"],
                call_id=row["call_id"],
                started_at=_moment(row["started_us"]),
                ended_at=None if row["ended_us"] is None else _moment(row["ended_us"]),
                outcome=Outcome(row["outcome"]),
                evidence=row["evidence"] and Evidence(row["evidence"]),
                duration_seconds=None if row["duration_us"] is None else _seconds(row["duration_us"]),
                billable_seconds=_seconds(row["billable_us"]),
                rule=row["rule"],
                amount=_price(row["billable_us"], row["price_per_minute"], _DECIMALS_OF_A_CALL),
                currency=row["currency"],
            )


def archived_usage(place: Place, month: ArchivedMonth, *, engine: EngineName = EngineName.DUCKDB) -> Iterator[Usage]:
    """Yield each widget's usage of an archived month."""
    with engine_for(engine, place) as running:
        _rate(running, place, month)
        for row in running.rows(_sql("usage.sql")):
            charged = max(row["billable_us"] - (row["included_us"] or 0), 0)
            by_evidence: dict[str, Any] = {f"{e}_calls": row[f"{e}_calls"] for e in _EVIDENCE}
            by_evidence |= {f"{e}_seconds": _seconds(row[f"{e}_us"]) for e in _EVIDENCE}
            yield Usage(
                widget_id=UUID(row["widget_id"]),
                calls=row["calls"],
                billable_seconds=_seconds(row["billable_us"]),
                **by_evidence,
                open_calls=row["open_calls"],
                failed_calls=row["failed_calls"],
                charged_seconds=_seconds(charged),
                amount=_price(charged, row["price_per_minute"], row["decimals"]),
                currency=row["currency"],
            )


def _rate(engine: Engine, place: Place, month: ArchivedMonth) -> None:
    engine.read("archived_plans", [place.path(month.plans.name)])
    if month.files:
        engine.read("archived_events", [place.path(file.name) for file in month.files])
    else:
        engine.run(_NO_EVENTS)
    engine.run(
        _sql("rated_calls.sql")
        .replace("{microseconds}", engine.microseconds)
        .replace("{period_start}", str(_microseconds(month.period_start)))
        .replace("{period_end}", str(_microseconds(month.period_end)))
        .replace("{longest_call}", str(month.max_call_seconds * 1_000_000))
    )


_NO_EVENTS = (
    "create or replace temporary view archived_events as select p.widget_id, p.name as session_id, p.name as id,"
    " p.name as call_id, p.name as event_type, p.name as source, p.name as note, 1 as seq, 1 as stated_us,"
    " current_timestamp as `timestamp` from archived_plans p where 1 = 0"
)


def _sql(name: str) -> str:
    text = files("widget_analytics._archive").joinpath(name).read_text()
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))


def _price(microseconds: int, price_per_minute: str | None, decimals: int) -> Decimal | None:
    if price_per_minute is None:
        return None
    exact = _EXACT.divide(_EXACT.multiply(Decimal(microseconds), Decimal(price_per_minute)), Decimal(60_000_000))
    return exact.quantize(Decimal(1).scaleb(-decimals), context=_EXACT)


def _seconds(microseconds: int) -> Decimal:
    return Decimal(int(microseconds)).scaleb(-6)


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _microseconds(moment: str) -> int:
    return (datetime.fromisoformat(moment) - _EPOCH) // timedelta(microseconds=1)
