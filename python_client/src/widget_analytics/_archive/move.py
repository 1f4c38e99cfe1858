"""The command ``archive``: a month's events leave the ledger, and not one before its file was read back.

Each step can be repeated: if interrupted, run it again; it resumes.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import Error, sql

from widget_analytics._archive.files import CALLS, CHARGES, EVENTS, Content, read_sums, write_rows
from widget_analytics.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from widget_analytics._archive.place import Place

    Connection = psycopg.Connection[Any]
    # Told of each step before it is taken.
    OnStep = Callable[[str], object]

EVENTS_IN_FILE = 250_000

_UNBILLED = """
    select a.month, p.period_start, p.period_end, s.billed_to
    from public.widget_archives a
    join public.widget_billing_periods p on p.period = a.month
    cross join lateral (
      select coalesce(max(c.period), a.month) as billed_to
      from public.widget_statement_charges c where c.usage_period = a.month
    ) s
    where a.place = %s and s.billed_to is distinct from a.billed_to
    order by a.month
"""


@dataclass(frozen=True, kw_only=True)
class Archived:
    """What came of it: events that left the ledger now, and months whose calls and charges were written."""

    events: int
    bills: tuple[str, ...]


def archive_month(
    connection: Connection,
    place: Place,
    month: str,
    *,
    on_step: OnStep = lambda _step: None,
    events_in_file: int = EVENTS_IN_FILE,
) -> Archived:
    """Move a closed month's events to an archive, and bring the calls of all its months there up to date.

    Args:
        connection: as the tables' owner, in autocommit; it holds the archive's lock meanwhile.
        place: where to.
        month: such as ``2026-01``.
        on_step: told of each step.
        events_in_file: how many events at most move at a time.

    Raises:
        InputError, OutputError: a file cannot be read back, or stored; its events stay.
        psycopg.Error: the database refused. Another run is in progress; the month cannot move yet; a file does not hold
            what the ledger holds; or the connection's server process changes, as behind a transaction pooler.
    """
    connection.execute("set client_encoding = 'UTF8'")
    # Estimates over a large ledger would have each part's short query compiled, for ten times as long as it runs.
    connection.execute("set jit = off")
    connection.execute("select widget_internal.hold_archive(take => true)")
    try:
        first_day = date.fromisoformat(f"{month}-01")
        connection.execute("select widget_internal.start_archive(%s, %s)", [first_day, place.url])
        events = sum(_move_parts(connection, place, first_day, on_step, events_in_file))
        return Archived(events=events, bills=tuple(_write_bills(connection, place, on_step)))
    finally:
        # The server process of a closed connection may hold it a little longer, and the next run would be refused.
        with suppress(Error):
            connection.execute("select pg_advisory_unlock_all()")


def refuse_pooler(connection: Connection, other: Connection) -> None:
    """Refuse two connections to one address that share a server process, before one of them takes a lock there.

    Behind a transaction pooler, where the lock would outlive the command, the second gets the process that the first
    has just left, or the first gets another one the next time. Each step of the archive makes sure of it again.

    Raises:
        UsageError: they do.
    """

    def process(of: Connection) -> Any:
        return _row(of, "select pg_backend_pid()")

    first = process(connection)
    with other.transaction():
        if process(other) == first or process(connection) != first:
            raise UsageError(
                "the address is a transaction pooler's, where a lock is nobody's own: use that of the direct "
                "connection or of a session pooler (port 5432)"
            )


def _move_parts(
    connection: Connection, place: Place, month: date, on_step: OnStep, events_in_file: int
) -> Iterator[int]:
    on_step("marking calls")
    while part := _row(connection, "select part from widget_internal.next_archive_part(%s, %s)", month, events_in_file):
        (number,) = part
        on_step(f"writing part {number}")
        file = f"events/month={month:%Y-%m}/part-{number:05}.parquet"
        _store(connection, place, file, EVENTS, _events(month, number))
        on_step(f"reading part {number}")
        with place.stored(file) as stored:
            sums = read_sums(stored)
        on_step(f"deleting part {number}")
        connection.execute("select widget_internal.release_archive_part(%s, %s, %s, %s)", [month, number, *sums])
        yield sums[0]
        on_step("marking calls")


def _write_bills(connection: Connection, place: Place, on_step: OnStep) -> Iterator[str]:
    for month, start, end, billed_to in connection.execute(_UNBILLED, [place.url]).fetchall():
        on_step(f"writing the calls of {month:%Y-%m}")
        for content, function in ((CALLS, "widget_billing_calls"), (CHARGES, "widget_billing_usage")):
            rows = sql.SQL("public.{}({}, {})").format(sql.Identifier(function), start, end)
            _store(connection, place, f"{content.name}/month={month:%Y-%m}/{content.name}.parquet", content, rows)
        connection.execute("update public.widget_archives set billed_to = %s where month = %s", [billed_to, month])
        yield f"{month:%Y-%m}"


def _events(month: date, part: int) -> sql.Composed:
    kept = [name for name in EVENTS.columns if name != "properties"]
    return sql.SQL(
        "(select {}, widget_internal.billing_facts(e.source, e.properties) as properties"
        " from widget_internal.archived_events({}, {}) e)"
    ).format(sql.SQL(", ").join(sql.Identifier("e", name) for name in kept), month, part)


def _store(connection: Connection, place: Place, name: str, content: Content, rows: sql.Composable) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.parquet")
        write_rows(connection, content, rows, file)
        place.put(file, name)


def _row(connection: Connection, query: LiteralString, *parameters: Any) -> tuple[Any, ...] | None:
    return connection.execute(query, parameters).fetchone()
