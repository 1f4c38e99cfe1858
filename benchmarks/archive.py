"""What it takes to archive a month, what stays of it, and what its bill takes: from Postgres and from the files.

scripts/bench-archive --events 200000
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psycopg

from benchmarks.measure import command, cpu_seconds, execute
from local_stack.stack import Stack

MONTH, START, END = "2026-01", "2026-01-01", "2026-02-01"
EVENTS_IN_SESSION = 5
WIDGETS = 20
AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)

_WIDGETS = "insert into public.widgets (name) select n::text from generate_series(0, %s::integer - 1) n"

# As the tracker sends them: a load, an opening, and a call of two minutes with a heartbeat; some seconds on their way.
_EVENTS = """
    insert into public.widget_analytics
      (id, widget_id, event_type, session_id, call_id, seq, timestamp, received_at, page_url, user_agent, properties)
    select
      overlay(gen_random_uuid()::text placing lpad(to_hex((extract(epoch from s.at + e.after) * 1000)::bigint), 12, '0')
        || '7' from 1 for 15)::uuid,
      w.id, e.type, s.session_id, e.call_id, e.seq, s.at + e.after, s.at + e.after + e.seq * interval '1.234567 s',
      case when e.seq = 1 then 'https://shop.example/products/' || s.n %% 500 end,
      case when e.seq = 1 then %s end, jsonb_build_object('rtt_ms', 20 + s.n %% 80)
    from (
      select n, t.at, overlay(
        gen_random_uuid()::text placing lpad(to_hex((extract(epoch from t.at) * 1000)::bigint), 12, '0') || '7'
        from 1 for 15
      ) as session_id
      from generate_series(%s::integer, %s::integer) n
      cross join lateral (select %s::timestamptz + n * (interval '30 days' / %s::integer) as at) t
      offset 0
    ) s
    join public.widgets w on w.name = (s.n %% %s::integer)::text
    cross join (values
      ('widget_load', null, 1, interval '0'), ('widget_open', null, 2, '3 s'), ('call_start', 'call', 3, '5 s'),
      ('call_heartbeat', 'call', 4, '65 s'), ('call_end', 'call', 5, '125 s')
    ) e (type, call_id, seq, after)
"""
_SESSIONS_AT_ONCE = 20_000


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench-archive", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    options = parser.parse_args(arguments)
    sessions = options.events // EVENTS_IN_SESSION

    with (
        Stack(durable=True, gateway=False, jobs=False) as stack,
        tempfile.TemporaryDirectory() as folder,
        psycopg.connect(stack.database_url, autocommit=True) as db,
    ):

        def number(query: str) -> int:
            return int(execute(stack, query)[0][0])

        fill(db, sessions)
        ledger = number("select pg_total_relation_size('public.widget_analytics')")
        print(f"{options.events:,} events of {sessions:,} sessions with a call each, in one month", flush=True)

        def bill() -> float:
            before = cpu_seconds(stack)
            db.execute("select count(*) from public.widget_billing_usage(%s, %s)", [START, END])
            return cpu_seconds(stack) - before

        kept = bill()
        moved = command(stack, "archive", "--month", MONTH, "--to", folder)
        print(
            f"archived {options.events / moved.seconds:,.0f} events a second; processor time for a million events: "
            f"{moved.server_seconds / options.events * 1e6:.0f} s in Postgres, "
            f"{moved.processor_seconds / options.events * 1e6:.0f} s in the command; "
            f"peak memory {moved.peak_megabytes:.0f} MB"
        )
        db.execute("vacuum widget_internal.call_states")
        size_of_states = "select pg_total_relation_size('widget_internal.call_states')"
        states = number(size_of_states)
        db.execute("vacuum full widget_internal.call_states")
        compact_states = number(size_of_states)
        lines = number("select pg_total_relation_size('public.widget_statement_lines')")
        for what, rows, size in (
            ("an event in the ledger, with its indexes", options.events, ledger),
            ("an event in Parquet", options.events, stored(folder, "events")),
            ("a call in Parquet", sessions, stored(folder, "calls")),
            ("a call that stays in Postgres, with its indexes, just after the move", sessions, states),
            ("the same without the space that later calls fill", sessions, compact_states),
            ("its line on a statement, with its indexes", sessions, lines),
        ):
            print(f"{size / rows:8.1f} bytes: {what}")
        left = number("select count(*) from public.widget_analytics")
        print(f"{left} events left in the ledger", flush=True)

        billed = command(stack, "bill", "--archive", folder)
        print(f"bill, Postgres:       {kept:.3f} s of processor time")
        print(f"the same, archived:   {bill():.3f} s")
        print(
            f"bill, files, DuckDB:  {billed.processor_seconds:.3f} s with the command's start, "
            f"peak memory {billed.peak_megabytes:.0f} MB"
        )
    return 0


def fill(db: psycopg.Connection[tuple[object, ...]], sessions: int) -> None:
    """Make a month through the ledger's own triggers, and close it."""
    db.execute("set synchronous_commit = off")
    db.execute(_WIDGETS, [WIDGETS])
    for first in range(0, sessions, _SESSIONS_AT_ONCE):
        last = min(first + _SESSIONS_AT_ONCE, sessions) - 1
        db.execute(_EVENTS, [AGENT, first, last, START, sessions, WIDGETS])
    db.execute("vacuum analyze public.widget_analytics, widget_internal.call_states")
    db.execute("select * from public.close_widget_billing_period(%s)", [MONTH])
    db.execute("analyze")


def stored(folder: str, content: str) -> int:
    return sum(file.stat().st_size for file in Path(folder, content).rglob("*.parquet"))


if __name__ == "__main__":
    sys.exit(main())
