"""Random histories about the turns of months in one ledger, under plans, archived month by month."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.archive_support import calls, close_months, connect, database_copy, move, new_server, new_widget, rows, usage
from tests.support import Connection, Row, record
from widget_analytics._archive.bill import archived_calls, archived_usage
from widget_analytics._archive.engines import EngineName
from widget_analytics._archive.place import Place

# The clocks change within March, so that its two midnights have offsets of their own.
ZONE = "Europe/Vienna"
MONTHS = ("2026-01", "2026-02", "2026-03", "2026-04")
_TURNS = [datetime(2026, month, 1, tzinfo=UTC) - timedelta(hours=1 if month < 4 else 2) for month in (2, 3, 4)]


@dataclass(frozen=True)
class Books:
    """A database whose months were archived, where to, and what it said of them before."""

    db: Connection
    url: str
    place: Path
    calls: dict[str, list[Row]]
    usage: dict[tuple[str, ...], list[Row]]


@contextmanager
def archived_books(folder: Path, *, sessions: int) -> Iterator[Books]:
    """Play histories, close their months, and archive them one after the other."""
    with new_server() as server, database_copy(server) as url, connect(url) as db:
        db.execute("update widget_internal.settings set billing_time_zone = %s", [ZONE])
        play(db, random.Random(11), sessions)  # noqa: S311
        close_months(db, *MONTHS)
        books = Books(
            db,
            url,
            folder,
            {month: calls(db, month) for month in MONTHS},
            {months: usage(db, *months) for months in [*((month,) for month in MONTHS), MONTHS]},
        )
        for month in MONTHS:
            move(url, folder, month, events_in_file=100)
        yield books


def play(db: Connection, chance: random.Random, sessions: int) -> None:
    """Half of each session's events, a cleanup, and the other half: late ends outrank inferred ones."""
    widgets = [new_widget(db) for _ in range(4)]
    for widget_id, plan in zip(widgets, (("2026-01-01", 60, 0, 0), ("2026-02-01", 0, 30, 500)), strict=False):
        db.execute(
            "insert into public.widget_plans (widget_id, name, price_per_minute, currency, monthly_fee, valid_from,"
            " increment_seconds, minimum_seconds, included_seconds)"
            " values (%s, 'P', 0.125, 'EUR', 9.9, %s, %s, %s, %s)",
            [widget_id, *plan],
        )
    events = [event for number in range(sessions) for event in history(chance, chance.choice(widgets), f"s{number}")]
    for half in (0, 1):
        for number, event in enumerate(events):
            if number % 2 == half:
                record(db, **event)
        if not half:
            db.execute("select * from public.complete_stale_sessions()")


def history(chance: random.Random, widget_id: UUID, session_id: str) -> Iterator[Row]:
    """A session with a load and some calls, named or not, that are ended, cut off, failed, reported or corrected."""
    at = chance.choice(_TURNS) + timedelta(seconds=chance.randrange(-20_000, 20_000))
    is_named = chance.random() < 0.6

    def event(event_type: str, after: int, source: str = "browser", **columns: Any) -> Row:
        moment = at + timedelta(seconds=after)
        received_at = moment + timedelta(seconds=chance.choice((0, 1, 90_000)))
        where = {"widget_id": widget_id, "session_id": session_id, "event_type": event_type, "at": moment}
        return where | {"received_at": received_at, "source": source} | columns

    yield event("widget_load", 0, page_url="https://shop.example/a", user_agent="A", properties={"x": 1})
    for number in range(chance.randrange(3)):
        call: Row = {"call_id": f"c{number}"} if is_named else {}
        at += timedelta(seconds=chance.randrange(1, 3_000))
        yield event("call_start", 0, **call)
        for beat in range(chance.randrange(3)):
            yield event("call_heartbeat", 60 * (beat + 1), **call)
        if chance.random() < 0.6:
            yield event(chance.choice(("call_end", "call_end", "call_error")), chance.randrange(30, 9_000), **call)
        if is_named and chance.random() < 0.3:
            yield event("call_end", chance.randrange(30, 9_000), chance.choice(("server", "provider")), **call)
        if is_named and chance.random() < 0.1:
            decided = event("call_start", 0, "operator", **call)
            told = {"properties": {"corrected_by": "Ann", "reason": "said so"}}
            yield decided
            yield event("call_end", 77, "operator", **call) | {"received_at": decided["received_at"]} | told


def assert_files_say_what_postgres_says(books: Books, engine: EngineName = EngineName.DUCKDB) -> None:
    place = Place(str(books.place))
    for month, there in books.calls.items():
        assert [asdict(call) for call in archived_calls(place, [month], engine=engine)] == there, month
    for months, sums in books.usage.items():
        assert [asdict(one) for one in archived_usage(place, months, engine=engine)] == sums, months


def assert_postgres_says_the_same(books: Books) -> None:
    assert {month: calls(books.db, month) for month in MONTHS} == books.calls
    assert {months: usage(books.db, *months) for months in books.usage} == books.usage
    assert rows(books.db, "select * from widget_internal.widget_calls_differences()") == []
    assert rows(books.db, "select * from public.widget_pending_adjustments()") == []
