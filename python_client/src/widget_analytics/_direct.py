"""Reads what the API gives from the database itself: the same rows in the same order, many times as fast.

All of it in one transaction, so of one moment. Rows come by COPY as lines of CSV, whose cells are those of an exported
file; who wants them as models gets them made of these.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from psycopg import sql

from widget_analytics._copied import batches, cells
from widget_analytics._database import connected
from widget_analytics._parquet import ROWS_IN_GROUP
from widget_analytics._settings import DATABASE_URL, database_url
from widget_analytics.errors import WrongKey
from widget_analytics.models import BillingMonth, Call, Charge, Statement, StatementLine, Usage, _Row

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from datetime import date, datetime
    from uuid import UUID

    import psycopg

    from widget_analytics._selection import Selection
    from widget_analytics.periods import Period

Model = TypeVar("Model", bound=_Row)

# What came in within the last minute may not be all there, see WidgetAnalytics.settled_moment.
_SETTLING = timedelta(minutes=1)
# A period is asked for in parts of about so many calls, which the server computes and sorts without much of its disk.
_CALLS_IN_PART = 50_000
# A part has up to twice as many calls. While the server computes the next one, its batches are being written.
_BATCHES_AHEAD = 2 * _CALLS_IN_PART // ROWS_IN_GROUP
_FIRST_PART, _SHORTEST_PART = timedelta(days=1), timedelta(minutes=1)
# Like the API's: UTC, to the microsecond.
_TIME = 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
_TRANSACTION = """
begin isolation level repeatable read read only;
set local timezone = 'UTC';
set local datestyle = 'ISO, YMD';
set local work_mem = '64MB';
set local jit = off;
set local statement_timeout = 0;
"""


@contextmanager
def direct_reader(url: str | None) -> Iterator[DirectReader]:
    """Connect to a database, that of SUPABASE_DB_URL where none is named.

    Raises:
        ConfigError: there is no address, or it is none.
        Unreachable, WrongKey, NotMigrated, Refused: as of the API.
    """
    setting = "--database-url" if url else DATABASE_URL
    role = "a role that reads all widgets' rows, such as `postgres`"
    with connected(url or database_url(), setting=setting, role=role) as connection:
        # Also through a pooler that knows no prepared statements.
        connection.prepare_threshold = None
        connection.execute("set client_encoding = 'UTF8'")
        connection.execute(_TRANSACTION)
        # Rows that are hidden from a role would be missing without a word.
        (hides_rows,) = connection.execute("select row_security_active('public.widget_calls')").fetchone() or (True,)
        if hides_rows:
            raise WrongKey(f"{setting} must be of {role}")
        yield DirectReader(connection)


class DirectReader:
    """Reads as `WidgetAnalytics` does, with its methods and arguments, over a connection of its own."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    @property
    def host(self) -> str:
        """The database's host."""
        return self._connection.info.host

    def billing_month(self, month: str) -> BillingMonth:
        """Give the bounds of a month, such as ``2026-10``, in the time zone that the database bills in."""
        (bounds,) = self._read(BillingMonth, sql.SQL("public.widget_billing_period({}) r").format(month))
        return bounds

    def statement(self, month: date) -> Statement | None:
        """Give a closed month, by its first day; None where it is not closed."""
        rows = sql.SQL("public.widget_billing_periods r where r.period = {}").format(month)
        return next(self._read(Statement, rows), None)

    def settled_moment(self) -> datetime:
        """Give a moment whose events are all there, see `WidgetAnalytics.settled_moment`."""
        now: tuple[datetime] | None = self._connection.execute("select date_trunc('second', now())").fetchone()
        assert now is not None  # noqa: S101 (what else could it answer)
        return now[0] - _SETTLING

    def calls(
        self, period: Period, *, widgets: Iterable[UUID] | None = None, as_of: datetime | None = None
    ) -> Iterator[Call]:
        """Yield the calls of a period, by start, widget, session and call id."""
        return _models(Call, self.call_lines(period, widgets=widgets, as_of=as_of))

    def usage(
        self, period: Period, *, widgets: Iterable[UUID] | None = None, as_of: datetime | None = None
    ) -> Iterator[Usage]:
        """Yield each widget's usage in the period, by widget id."""
        rows = sql.SQL("public.widget_billing_usage({}, {}, {}) r where {} order by r.widget_id")
        return self._read(Usage, rows.format(period.start, period.end, as_of, _only(widgets)))

    def charges(self, month: date, *, widgets: Iterable[UUID] | None = None) -> Iterator[Charge]:
        """Yield what a closed month charges, by widget and month of use."""
        rows = sql.SQL(
            "public.widget_statement_charges r where r.period = {} and {} order by r.widget_id, r.usage_period"
        )
        return self._read(Charge, rows.format(month, _only(widgets)))

    def statement_lines(
        self, month: date, *, widgets: Iterable[UUID] | None = None, only_adjustments: bool = False
    ) -> Iterator[StatementLine]:
        """Yield a closed month's calls and adjustments, by widget, month of use, session and call."""
        rows = sql.SQL(
            "public.widget_statement_lines r where r.period = {} and {} and (r.usage_period < r.period or not {})"
            " order by r.widget_id, r.usage_period, r.session_id, r.call_id"
        )
        return self._read(StatementLine, rows.format(month, _only(widgets), only_adjustments))

    def call_lines(
        self, period: Period, *, widgets: Iterable[UUID] | None = None, as_of: datetime | None = None
    ) -> Generator[bytes, None, None]:
        """Yield what `calls` does as lines of CSV."""
        rows = sql.SQL(
            "public.widget_billing_calls({}, {}, {}) r where {}"
            " order by r.started_at, r.widget_id, r.session_id, r.call_id"
        )
        only = _only(widgets)
        # As of a moment the whole ledger is looked through, so once is better than part by part.
        start, width = period.start, period.end - period.start if as_of else _FIRST_PART
        while start < period.end:
            end = min(start + width, period.end)
            found = yield from self._lines(Call, rows.format(start, end, as_of, only))
            start = end
            width = width * 2 if found < _CALLS_IN_PART else max(width / 2, _SHORTEST_PART)

    def call_batches(self, selection: Selection) -> Generator[list[bytes], None, None]:
        """Yield the lines of a selection's calls, many at a time, and read on while these are being written."""
        lines = self.call_lines(selection.period, widgets=selection.widgets, as_of=selection.as_of)
        following = batches(lines)
        with closing(lines), ThreadPoolExecutor(max_workers=1) as thread:
            try:
                waiting = deque(thread.submit(next, following, None) for _ in range(_BATCHES_AHEAD))
                while batch := waiting.popleft().result():
                    waiting.append(thread.submit(next, following, None))
                    yield batch
            except BaseException:
                # Or who interrupts would wait until the database has computed what nobody wants any more.
                self._connection.cancel_safe(timeout=5)
                raise

    def _read(self, model: type[Model], rows: sql.Composed) -> Iterator[Model]:
        return _models(model, self._lines(model, rows))

    def _lines(self, model: type[_Row], rows: sql.Composed) -> Generator[bytes, None, int]:
        """Ask for rows, and yield a line for each, as COPY writes it: it ends with LF. Return how many they were."""
        columns = sql.SQL(", ").join(_cell(column, of_type) for column, of_type in model.annotations().items())
        query = sql.SQL("copy (select {} from {}) to stdout (format csv)").format(columns, rows)
        with self._connection.cursor() as cursor, cursor.copy(query) as copy:
            yield from map(bytes, copy)
            return cursor.rowcount


def _models(model: type[Model], lines: Iterable[bytes]) -> Iterator[Model]:
    values = [(column, _value_of(of_type)) for column, of_type in model.annotations().items()]
    return model.read(
        {column: value(cell) for (column, value), cell in zip(values, row, strict=True)} for row in cells(lines)
    )


def _value_of(of_type: str) -> Any:
    if of_type.startswith("tuple"):
        return str.split
    return (lambda cell: cell or None) if of_type.endswith("| None") else str


def _only(widgets: Iterable[UUID] | None) -> sql.Composable:
    return sql.SQL("true") if widgets is None else sql.SQL("r.widget_id = any({})").format(list(widgets))


def _cell(column: str, of_type: str) -> sql.Composable:
    """Say how a column's values are written."""
    name = sql.Identifier("r", column)
    if of_type.startswith("datetime"):
        return sql.SQL("to_char({}, {})").format(name, _TIME)
    if of_type.startswith("tuple"):
        return sql.SQL("array_to_string({}, ' ')").format(name)
    return name
