"""Random histories in one ledger, archived month by month: what Postgres says of each month, and what the files say."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed
from psycopg.rows import tuple_row

from tests.archive_support import close_months, connect, database_copy, new_server, new_widget, rows
from tests.oracle.histories import NOW, History, Insert, rated_histories
from tests.oracle.model import Event
from tests.support import Connection, Row
from widget_analytics._archive.bill import archived_calls, archived_usage
from widget_analytics._archive.engines import EngineName
from widget_analytics._archive.manifest import ArchivedMonth
from widget_analytics._archive.move import archive_month
from widget_analytics._archive.place import Place

# Where the clocks change within the month, so that each midnight has an offset of its own.
ZONE, TURN = "Europe/Vienna", datetime(2025, 3, 31, 22, tzinfo=UTC)
MONTHS = ("2025-01", "2025-02", "2025-03", "2025-04", "2025-05")


@dataclass(frozen=True)
class Books:
    """Each month's calls and usage as Postgres told them before they left, and where they are now."""

    calls: dict[str, list[Row]]
    usage: dict[str, list[Row]]
    place: Place
    histories: int


@contextmanager
def archived_books(folder: Path, *, histories: int) -> Iterator[Books]:
    """Play histories, close their months, and archive them one after the other."""
    with new_server() as server, database_copy(server) as url:
        with connect(url) as db:
            play(db, random_histories(histories))
            close_months(db, *MONTHS)
            bounds = {month: f"public.widget_billing_period('{month}') p" for month in MONTHS}
            calls = {
                month: rows(db, f"select b.* from {of}, public.widget_billing_calls(p.period_start, p.period_end) b")
                for month, of in bounds.items()
            }
            usage = {
                month: rows(db, f"select b.* from {of}, public.widget_billing_usage(p.period_start, p.period_end) b")
                for month, of in bounds.items()
            }
            place = Place(str(folder))
            with psycopg.connect(url, autocommit=True, row_factory=tuple_row) as connection:
                for month in MONTHS:
                    archive_month(connection, place, month, chunks_in_file=1)
            assert rows(db, "select * from widget_internal.widget_calls_differences()") == []
            assert rows(db, "select * from public.widget_pending_adjustments()") == []
        yield Books(calls, usage, place, histories)


def random_histories(count: int) -> list[History]:
    made: list[History] = []

    @with_seed(11)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(rated_histories())
    def make(history: History) -> None:
        made.append(history)

    make()
    return made


def play(db: Connection, histories: list[History]) -> None:
    """Half of each history's events, a cleanup of all, the other half: late ends outrank inferred ones."""
    moved = TURN - NOW
    db.execute("update widget_internal.settings set billing_time_zone = %s, max_call_duration = '100 minutes'", [ZONE])
    halves: tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]] = ([], [])
    for history in histories:
        widget_id = new_widget(db)
        for months, plan in zip((-2, -1, 0), history.plans, strict=False):
            terms = vars(plan) | {"valid_from": date(2025, 4 + months, 1), "name": f'Plan "{months}"'}
            db.execute(
                f"insert into public.widget_plans (widget_id, {', '.join(terms)}) values (%s{', %s' * len(terms)})",
                [widget_id, *terms.values()],
            )
        events = [event for step in history.steps if isinstance(step, Insert) for event in step.events]
        for number, event in enumerate(events):
            halves[number % 2].append((widget_id, moved_event(event, moved)))
    for half in halves:
        with db.cursor() as cursor:
            cursor.executemany(
                "insert into public.widget_analytics (id, widget_id, session_id, event_type, timestamp, received_at,"
                " call_id, seq, source, properties) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
                " on conflict do nothing",
                [
                    (
                        *(event.id, widget_id, event.session_id, event.event_type, event.timestamp, event.received_at),
                        *(event.call_id, event.seq, event.source, properties(event)),
                    )
                    for widget_id, event in half
                ],
            )
        if half is halves[0]:
            db.execute("select * from public.complete_stale_sessions()")


def moved_event(event: Event, by: Any) -> Event:
    return replace(event, timestamp=event.timestamp + by, received_at=event.received_at + by)


def properties(event: Event) -> str | None:
    if event.stated is None:
        return None
    who = ', "corrected_by": "Ann", "reason": "said so"' if event.source == "operator" else ""
    return f'{{"duration_seconds": {event.stated.total_seconds()}{who}}}'


def assert_files_say_what_postgres_said(books: Books, engine: EngineName) -> None:
    for month in MONTHS:
        manifest = ArchivedMonth.read(books.place, month)
        calls = [as_row(call) for call in archived_calls(books.place, manifest, engine=engine)]
        usage = [as_row(one) for one in archived_usage(books.place, manifest, engine=engine)]
        assert in_order(calls) == in_order(books.calls[month]), month
        assert in_order(usage) == in_order(books.usage[month]), month


def as_row(model: Any) -> Row:
    return {column: getattr(model, column) for column in model.columns()}


def in_order(found: list[Row]) -> list[Row]:
    return sorted(found, key=lambda row: (str(row["widget_id"]), row.get("session_id"), row.get("call_id")))
