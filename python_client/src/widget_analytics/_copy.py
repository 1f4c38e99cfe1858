"""Reads what the API gives from the database itself: the same rows in the same order, many times as fast.

All of it in one transaction, so of one moment. Rows come by COPY as lines of CSV, whose cells are those of an exported
file; who wants them as models gets them made of these.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg import sql

from widget_analytics._database import connected
from widget_analytics._lines import ahead, batches, from_lines
from widget_analytics._queries import Query
from widget_analytics._reader import Reader
from widget_analytics._settings import DATABASE_URL, database_url
from widget_analytics.errors import Unreachable, WrongKey

if TYPE_CHECKING:
    import psycopg

# A period is asked for in parts of about so many calls, which the server computes and sorts without much of its disk.
_CALLS_IN_PART = 50_000
_LINES_IN_BATCH = 16_384
# A part has up to twice as many calls. While the server computes the next one, its batches are being written.
_BATCHES_AHEAD = 2 * _CALLS_IN_PART // _LINES_IN_BATCH
_FIRST_PART, _SHORTEST_PART = timedelta(days=1), timedelta(minutes=1)
# What came in within the last minute may not be all there, see Reader.settled_moment. A standby may take another one
# to find out that its primary is gone.
_SETTLING, _SETTLING_ON_STANDBY = timedelta(minutes=1), timedelta(minutes=2)
_STANDBY_PATIENCE = 60.0  # seconds
# Like the API's: UTC, to the microsecond.
_TIME = 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
_OPERATORS = {"eq": "=", "lt": "<"}
_TRANSACTION = """
begin isolation level repeatable read read only;
set local timezone = 'UTC';
set local datestyle = 'ISO, YMD';
set local work_mem = '64MB';
set local jit = off;
set local statement_timeout = 0;
"""


@contextmanager
def direct_reader(url: str | None) -> Iterator[Reader]:
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
        is_standby = _await_replay(connection)
        connection.execute(_TRANSACTION)
        # Rows that are hidden from a role would be missing without a word.
        (hides_rows,) = connection.execute("select row_security_active('public.widget_analytics')").fetchone() or (
            True,
        )
        if hides_rows:
            raise WrongKey(f"{setting} must be of {role}")
        yield Reader(CopyTransport(connection, _SETTLING_ON_STANDBY if is_standby else _SETTLING))


def _await_replay(connection: psycopg.Connection[Any]) -> bool:
    """Say whether this is a standby; of one wait until it has replayed what it has received by now.

    Raises:
        Unreachable: it lags, or nothing streams to it: its rows are too few, and nothing in them would say so.
    """
    ask = (
        "select pg_is_in_recovery(), pg_last_wal_replay_lsn() >= coalesce(%s, pg_last_wal_receive_lsn()),"
        " pg_last_wal_receive_lsn()::text, exists (select from pg_stat_wal_receiver),"
        " to_char(pg_last_xact_replay_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS')"
    )
    goal: str | None = None
    deadline = time.monotonic() + _STANDBY_PATIENCE
    while True:
        row = connection.execute(ask, [goal]).fetchone()
        assert row is not None  # noqa: S101 (it has no FROM)
        is_standby, has_replayed, received, is_streaming, replayed_to = row
        if not is_standby or (has_replayed and is_streaming):
            return bool(is_standby)
        goal = goal or received
        if not is_streaming or time.monotonic() > deadline:
            since = f"{replayed_to} UTC" if replayed_to else "its backup"
            raise Unreachable(
                f"the database is a standby that lags: what came after {since} is missing. "
                "Ask the primary, or try again later."
            )
        time.sleep(0.1)


class CopyTransport:
    """Reads over a connection, in its transaction.

    Args:
        connection: the database's.
        settling: how long ago a moment is whose events are all there.
    """

    def __init__(self, connection: psycopg.Connection[Any], settling: timedelta) -> None:
        self._connection = connection
        self._settling = settling

    @property
    def host(self) -> str:
        """The database's host."""
        return self._connection.info.host

    def settled_moment(self) -> datetime:
        """Give a moment whose events are all there, by the database's clock."""
        now: tuple[datetime] | None = self._connection.execute("select date_trunc('second', now())").fetchone()
        assert now is not None  # noqa: S101 (what else could it answer)
        return now[0] - self._settling

    def rows(self, query: Query[Any]) -> Iterator[Mapping[str, Any]]:
        """Yield rows as columns with text."""
        return from_lines(query.model, self._lines(query))

    def batches(self, query: Query[Any]) -> Generator[list[bytes], None, None]:
        """Yield lines, many at a time."""
        # Or who interrupts would wait until the database has computed what nobody wants any more.
        stop = partial(self._connection.cancel_safe, timeout=5)
        return ahead(batches(self._lines(query), _LINES_IN_BATCH), _BATCHES_AHEAD, stop=stop)

    def _lines(self, query: Query[Any]) -> Generator[bytes, None, None]:
        period = query.period
        if period is None:
            yield from self._copied(query)
            return
        # As of a moment the whole ledger is looked through, so once is better than part by part.
        start, width = period.start, period.end - period.start if "as_of" in (query.arguments or {}) else _FIRST_PART
        while start < period.end:
            end = min(start + width, period.end)
            found = yield from self._copied(query.between(start, end))
            start = end
            width = width * 2 if found < _CALLS_IN_PART else max(width / 2, _SHORTEST_PART)

    def _copied(self, query: Query[Any]) -> Generator[bytes, None, int]:
        """Ask for rows, and yield a line for each, as COPY writes it. Return how many they were."""
        with self._connection.cursor() as cursor, cursor.copy(_statement(query)) as copy:
            yield from map(bytes, copy)
            return cursor.rowcount


def _statement(query: Query[Any]) -> sql.Composed:
    relation: sql.Composable = sql.Identifier("public", query.relation)
    if query.arguments is not None:
        named = [sql.SQL("{} => {}").format(sql.Identifier(name), value) for name, value in query.arguments.items()]
        relation = sql.SQL("{}({})").format(relation, sql.SQL(", ").join(named))
    conditions = [
        sql.SQL("{} {} {}").format(sql.Identifier("r", column), sql.SQL(_OPERATORS[operator]), value)
        for column, operator, value in query.where
    ]
    if query.widgets is not None:
        conditions.append(sql.SQL("r.widget_id = any({})").format(list(query.widgets)))
    parts = [
        sql.SQL("select {} from {} r").format(
            sql.SQL(", ").join(_cell(column, kind) for column, kind in query.model.annotations().items()), relation
        )
    ]
    if conditions:
        parts.append(sql.SQL("where {}").format(sql.SQL(" and ").join(conditions)))
    if query.key:
        keys = sql.SQL(", ").join(sql.Identifier("r", column) for column in query.key)
        parts.append(sql.SQL("order by {}").format(keys))
    return sql.SQL("copy ({}) to stdout (format csv)").format(sql.SQL(" ").join(parts))


def _cell(column: str, kind: str) -> sql.Composable:
    """Say how a column's values are written."""
    name = sql.Identifier("r", column)
    if kind.startswith("Instant"):
        return sql.SQL("to_char({}, {})").format(name, _TIME)
    if kind.startswith("tuple"):
        return sql.SQL("array_to_string({}, ' ')").format(name)
    if kind == "bool":
        return sql.SQL("{}::text").format(name)
    return name
