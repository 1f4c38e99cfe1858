"""Months of history, the same in the ledger and in the original table: what the big sizes are measured on.

A million events is one calendar month of 100,000 calls, so a larger history is a longer one. Of ten events three are
loads, one an open, and six a call of two minutes: its start, four heartbeats and its end. Of one call in twenty the end
was inferred, at its last heartbeat. The rows are those that the tracker's events make. Triggers and foreign keys rest
meanwhile, and the calls are written beside the ledger.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg

from benchmarks.loads import PAGE_URL, USER_AGENT, WIDGETS
from local_stack.stack import Stack

EVENTS_A_MONTH = 1_000_000
CALLS_A_MONTH = EVENTS_A_MONTH // 10
CALL_SECONDS = 120
_INFERRED = "u.n %% 20 = 0"

# Random keys leave a b-tree's pages two thirds full. Building the indexes so, after the rows, takes minutes where
# growing them takes hours; all pages being alike at first, they split later than in one that grew.
_RANDOM_FILL = 69
_WITHOUT_ORIGINAL_KEY = "alter table original_baseline.widget_analytics drop constraint if exists widget_analytics_pkey"
_WITHOUT_ORIGINAL_INDEX = "drop index if exists original_baseline.widget_analytics_widget_id_session_id_idx"
_ORIGINAL_KEY = "alter table original_baseline.widget_analytics add primary key (id)"
_ORIGINAL_INDEX = (
    "create index widget_analytics_widget_id_session_id_idx"
    " on original_baseline.widget_analytics (widget_id, session_id)"
)

# One row for each event: u is a call and its time, e an event, v what follows from both. "offset 0": v's columns are
# computed once, however often they are used; and e, being asked for each u, keeps the rows in the order of their calls.
_EVENTS = f"""
  from (
    select n, %(began)s::bigint + (n - %(first)s::bigint) * %(step)s::bigint as milliseconds
    from generate_series(%(first)s::bigint, %(last)s::bigint) n
  ) u
  cross join lateral (select e.* from (values
    (0, 0, 0, 'widget_load', 1),
    (1, 1, 8000, 'widget_load', 1),
    (2, 2, 16000, 'widget_load', 1),
    (3, 2, 20000, 'widget_open', 2),
    (4, 2, 22000, 'call_start', 3),
    (5, 2, 22000, 'call_heartbeat', 4),
    (6, 2, 52000, 'call_heartbeat', 5),
    (7, 2, 82000, 'call_heartbeat', 6),
    (8, 2, 112000, 'call_heartbeat', 7),
    (9, 2, case when {_INFERRED} then 112000 else 142000 end, 'call_end', 8)
  ) e (place, session, after, event_type, seq) where u.n is not null offset 0) e
  cross join lateral (
    select
      timestamptz 'epoch' + (u.milliseconds + e.after) * interval '1 millisecond' as at,
      ('0' || to_hex(u.milliseconds + e.after) || '7' || left(h.event, 3) || '8' || right(h.event, 15))::uuid as id,
      ('0' || to_hex(u.milliseconds + e.session * 8000) || '7' || left(h.session, 3) || '8' || right(h.session, 15))
        ::uuid::text as session_id,
      h.session::uuid::text as random_session_id,
      ('00000000-0000-7000-8000-' || lpad((1 + (u.n * 3 + e.session) * 7919 %% {WIDGETS})::text, 12, '0'))::uuid
        as widget_id
    from (select md5(u.n || ' ' || e.place) as event, md5(u.n || ' session ' || e.session) as session offset 0) h
    offset 0
  ) v
"""
# Page and browser stand on a session's first event.
_OUR_EVENTS = f"""
insert into public.widget_analytics
  (id, widget_id, event_type, session_id, page_url, user_agent, "timestamp", call_id, seq, received_at, properties,
    source)
select
  v.id, v.widget_id, e.event_type, v.session_id,
  case when e.event_type = 'widget_load' then %(page_url)s end,
  case when e.event_type = 'widget_load' then %(user_agent)s end,
  v.at, case when e.event_type like 'call%%' then v.session_id end, case when s.is_inferred then null else e.seq end,
  v.at + case when s.is_inferred then interval '45 minutes' else interval '80 milliseconds' end,
  case when e.place > 2 and not s.is_inferred then '{{"rtt_ms": 84}}'::jsonb end,
  case when s.is_inferred then 'inferred' else 'browser' end
{_EVENTS}
cross join lateral (select e.place = 9 and {_INFERRED} as is_inferred) s
"""
_OUR_CALLS = f"""
insert into widget_internal.call_states (
  widget_id, session_id, call_id, start_claim, heartbeat_at, end_claim, first_event_at, last_event_at,
  started_at, ended_at, outcome, evidence
)
select
  v.widget_id, v.session_id, v.session_id, widget_internal.claim('call_start', 'browser', v.at, v.at),
  v.at + interval '90 seconds',
  widget_internal.claim('call_end', case when {_INFERRED} then 'inferred' else 'browser' end, v.at, s.ended_at),
  v.at, s.ended_at, v.at, s.ended_at, 'completed', case when {_INFERRED} then 'heartbeat' else 'observed' end
{_EVENTS}
cross join lateral (
  select v.at + case when {_INFERRED} then interval '90 seconds' else interval '{CALL_SECONDS} seconds' end as ended_at
) s
where e.event_type = 'call_start'
"""
_ORIGINAL_ROWS = f"""
insert into original_baseline.widget_analytics (widget_id, event_type, session_id, page_url, user_agent, "timestamp")
select v.widget_id, e.event_type, v.random_session_id, %(page_url)s, %(user_agent)s, v.at
{_EVENTS}
"""
# After each month, as autovacuum would: what room a page has left is taken by the next month's small rows. Found all at
# the end, it would be taken by the rows that are measured, each on another page.
_VACUUM_OURS = ("vacuum (freeze) public.widget_analytics", "vacuum (freeze) widget_internal.call_states")
_VACUUM_ORIGINAL = "vacuum (freeze) original_baseline.widget_analytics"


def _parameters(began: datetime, every: timedelta, first: int, calls: int) -> dict[str, object]:
    return {
        "began": round(began.timestamp() * 1000),
        "step": every // timedelta(milliseconds=1),
        "first": first,
        "last": first + calls - 1,
        "page_url": PAGE_URL,
        "user_agent": USER_AGENT,
    }


def _month(moment: datetime, later: int) -> datetime:
    """The start of the month that is so many later than that of a moment."""
    year, month = divmod(moment.year * 12 + moment.month - 1 + later, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)


class History:
    """Fills both tables, further at each call, month by month; the last of them is the one before the present."""

    def __init__(self, stack: Stack, *, most_events: int) -> None:
        months = -(-most_events // EVENTS_A_MONTH)
        self._stack = stack
        self._first_month = _month(datetime.now(UTC), -months)
        self._calls = 0

    @property
    def events(self) -> int:
        return self._calls * 10

    @property
    def newest_month(self) -> tuple[datetime, datetime]:
        return self._month_of_call(self._calls - 1)

    def fill(self, events: int, say: Callable[[str], object]) -> None:
        """Go on until there are as many events in both tables."""
        with self._connect() as connection:
            self._set_durability(connection, "off")
            connection.execute(_WITHOUT_ORIGINAL_KEY)
            connection.execute(_WITHOUT_ORIGINAL_INDEX)
        try:
            while self.events < events:
                self._add(min(CALLS_A_MONTH - self._calls % CALLS_A_MONTH, events // 10 - self._calls))
                say(f"{self.events:,} events")
            with ThreadPoolExecutor() as pool:
                for built in [pool.submit(self._run, sql) for sql in self._finish()]:
                    built.result()
        finally:
            with self._connect() as connection:
                self._set_durability(connection, "on")
                connection.execute("checkpoint")
        say("indexes built")

    def _add(self, calls: int) -> None:
        start, end = self._month_of_call(self._calls)
        every = (end - start) / CALLS_A_MONTH
        parameters = _parameters(start + self._calls % CALLS_A_MONTH * every, every, self._calls, calls)
        with ThreadPoolExecutor() as pool:
            for added in [
                pool.submit(self._run, sql, parameters)
                for sql in ((_OUR_EVENTS, _OUR_CALLS, *_VACUUM_OURS), (_ORIGINAL_ROWS, _VACUUM_ORIGINAL))
            ]:
                added.result()
        self._calls += calls

    def _month_of_call(self, number: int) -> tuple[datetime, datetime]:
        month = number // CALLS_A_MONTH
        return _month(self._first_month, month), _month(self._first_month, month + 1)

    def _finish(self) -> Sequence[Sequence[str]]:
        fill = f" with (fillfactor = {_RANDOM_FILL})"
        return (
            ("analyze public.widget_analytics, widget_internal.call_states",),
            (_ORIGINAL_KEY + fill, _ORIGINAL_INDEX + fill, "analyze original_baseline.widget_analytics"),
        )

    def _run(self, statements: Sequence[str], parameters: dict[str, object] | None = None) -> None:
        with self._connect() as connection:
            connection.execute("set session_replication_role = replica")  # neither triggers nor foreign keys
            connection.execute("set maintenance_work_mem = '1GB'")
            for statement in statements:
                connection.execute(statement.encode(), parameters)

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self._stack.superuser_url, autocommit=True)

    @staticmethod
    def _set_durability(connection: psycopg.Connection[tuple[object, ...]], value: str) -> None:
        for setting in ("fsync", "full_page_writes", "synchronous_commit", "autovacuum"):
            connection.execute(f"alter system set {setting} = {value}".encode())
        connection.execute("select pg_reload_conf()")
