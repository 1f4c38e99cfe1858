"""What it takes to archive a month and to bill it from its files, and what the check for archived sessions costs.

scripts/bench-archive --events 5000000
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psycopg
from psutil import Process

from local_stack.stack import Stack

MONTH, START, END = "2026-01", "2026-01-01", "2026-02-01"
EVENTS_IN_SESSION = 5
WIDGETS = 20
AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)

_SESSIONS = """
    create temp table made as
    select w.widget_id, n, t.at, overlay(
      gen_random_uuid()::text placing lpad(to_hex((extract(epoch from t.at) * 1000)::bigint), 12, '0') || '7'
      from 1 for 15
    )::uuid::text as session_id
    from generate_series(0, %s - 1) n
    cross join lateral (select %s::timestamptz + n * (interval '31 days' / %s) as at) t
    join (
      select row_number() over () - 1 as place, gen_random_uuid() as widget_id from generate_series(1, %s)
    ) w on w.place = n %% %s
"""

_EVENTS = """
    insert into public.widget_analytics
      (id, widget_id, event_type, session_id, call_id, seq, timestamp, received_at, page_url, user_agent)
    select widget_internal.uuid_v7(), m.widget_id, e.type, m.session_id, e.call_id, e.seq,
      m.at + e.after, m.at + e.after, case when e.seq = 1 then 'https://shop.example/products/' || m.n %% 500 end,
      case when e.seq = 1 then %s end
    from made m, (values
      ('widget_load', null, 1, interval '0'), ('widget_open', null, 2, '3 s'), ('call_start', 'call', 3, '5 s'),
      ('call_heartbeat', 'call', 4, '65 s'), ('call_end', 'call', 5, '125 s')
    ) e (type, call_id, seq, after)
"""

_CALLS = """
    insert into public.widget_calls (widget_id, session_id, call_id, started_at, ended_at, outcome, evidence)
    select widget_id, session_id, 'call', at + interval '5 s', at + interval '125 s',
      'completed', 'observed'
    from made
"""

_LINES = f"""
    insert into public.widget_statement_lines (
      period, usage_period, widget_id, session_id, call_id, started_at, ended_at, outcome, evidence, duration_seconds,
      old_seconds, new_seconds, rule
    )
    select '{START}', '{START}', widget_id, session_id, call_id, started_at, ended_at, outcome, evidence,
      duration_seconds, 0, duration_seconds, 'exact duration'
    from public.widget_calls where started_at < '{END}'
"""

_TRACK = """
    do $do$
    declare
      v_widget_id constant uuid := (select w.id from public.widgets w limit 1);
      v_session_id text;
      v_event record;
    begin
      perform set_config('request.headers', '{"origin":"https://shop.example","user-agent":"Mozilla/5.0"}', false);
      for v_session in 1..SESSIONS loop
        v_session_id := widget_internal.uuid_v7();
        for v_event in select * from (values
          (1, 'widget_load', null), (2, 'widget_open', null), (3, 'call_start', 'c'), (4, 'call_heartbeat', 'c'),
          (5, 'call_end', 'c')
        ) e (seq, type, call_id) loop
          perform public.track_event(
            v_widget_id, v_event.type, v_session_id, 'https://shop.example/', null, v_event.call_id, v_event.seq
          );
        end loop;
      end loop;
    end
    $do$
"""

_PERIOD = f"""
    insert into public.widget_billing_periods (period, period_start, period_end, as_of, closed_by, content_hash)
    values ('{START}', '{START}', '{END}', now(), 'benchmark', '')
"""


@dataclass(frozen=True)
class Run:
    """What one command took."""

    seconds: float
    processor_seconds: float
    peak_megabytes: float
    said: str


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench-archive", description=__doc__)
    parser.add_argument("--events", type=int, default=5_000_000)
    options = parser.parse_args(arguments)
    sessions = options.events // EVENTS_IN_SESSION

    with (
        Stack(durable=True, gateway=False) as stack,
        tempfile.TemporaryDirectory() as folder,
        psycopg.connect(stack.database_url, autocommit=True) as db,
    ):
        fill(db, sessions)
        size = number(db, "select pg_total_relation_size('public.widget_analytics')")
        calls = sessions / 1e6
        usage = f"select count(*) from public.widget_billing_usage('{START}', '{END}'%s)"
        print(f"{options.events:,} events of {sessions:,} sessions with a call each, in one month", flush=True)
        kept = server_seconds(db, usage % "")
        print(f"bill, Postgres, calls as they are kept:     {kept / calls:8.1f} s a million calls", flush=True)
        afresh = server_seconds(db, usage % ", now() - interval '1 second'")
        print(f"bill, Postgres, as of a moment, from events:{afresh / calls:8.1f} s a million calls", flush=True)

        before = ended_servers_seconds(stack)
        moved = command(stack, "archive", "--month", MONTH, "--to", folder)
        worked = ended_servers_seconds(stack) - before
        stored = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
        print(moved.said.strip())
        print(
            f"archive: {options.events / moved.seconds:,.0f} events/s; processor time for a million events: "
            f"{worked / options.events * 1e6:.0f} s in Postgres, "
            f"{moved.processor_seconds / options.events * 1e6:.0f} s in the command; "
            f"peak memory {moved.peak_megabytes:.0f} MB, "
            f"{stored / options.events:.1f} bytes an event in Parquet, "
            f"{size / options.events:.0f} in the ledger with its indexes",
            flush=True,
        )
        keys = number(db, "select pg_total_relation_size('widget_internal.archived_sessions')")
        print(f"what stays: {keys / sessions:.0f} bytes a session, {keys / options.events:.1f} an event", flush=True)
        billed = command(stack, "bill", "--archive", folder, "--month", MONTH)
        print(
            f"bill, archive, DuckDB, from events:         {billed.processor_seconds / calls:8.1f} s a million calls, "
            f"peak memory {billed.peak_megabytes:.0f} MB",
            flush=True,
        )
        tracked = 1_000
        seconds = server_seconds(db, _TRACK.replace("SESSIONS", str(tracked)))
        print(
            f"track_event: {seconds / tracked / EVENTS_IN_SESSION * 1e6:.0f} µs an event in Postgres, without network"
        )
        for what, name in (("UUIDv7", "widget_internal.uuid_v7()::text"), ("other", "'session-' || n")):
            print(f"the check, session ids {what}: {check_costs(db, name):.2f} µs an event", flush=True)
    return 0


def fill(db: psycopg.Connection[tuple[object, ...]], sessions: int) -> None:
    """Make the month as it would be. The triggers rest: what they would write is written beside the ledger."""
    db.execute("set synchronous_commit = off")
    db.execute(_SESSIONS, [sessions, START, sessions, WIDGETS, WIDGETS])
    db.execute("insert into public.widgets (id, allowed_domains) select distinct widget_id, '{*}'::text[] from made")
    db.execute("alter table public.widget_analytics disable trigger user")
    db.execute(_EVENTS, [AGENT])
    db.execute("alter table public.widget_analytics enable trigger user")
    db.execute("alter table public.widget_analytics disable trigger divert_archived_events")
    db.execute(_CALLS)
    db.execute("vacuum analyze public.widget_analytics, public.widget_calls")
    with db.transaction():
        db.execute(_LINES)
        db.execute(f"select widget_internal.write_charges('{START}')")
        db.execute(_PERIOD)
    db.execute("analyze")


def check_costs(db: psycopg.Connection[tuple[object, ...]], session_id: str, events: int = 10_000) -> float:
    """Microseconds that the trigger adds to an event, by the median of pairs, one after the other."""
    (widget_id,) = db.execute("select id from public.widgets limit 1").fetchone() or (None,)
    insert = (
        "insert into public.widget_analytics (widget_id, event_type, session_id)"
        f" select '{widget_id}', 'widget_load', {session_id} from generate_series(1, {events}) n"
    )
    costs = []
    for _ in range(5):
        db.execute("alter table public.widget_analytics disable trigger divert_archived_events")
        without = server_seconds(db, insert)
        db.execute("alter table public.widget_analytics enable trigger divert_archived_events")
        costs.append(server_seconds(db, insert) - without)
    return median(costs) / events * 1e6


def number(db: psycopg.Connection[tuple[object, ...]], query: str) -> int:
    row = db.execute(query.encode()).fetchone()
    assert row is not None
    assert isinstance(row[0], int)
    return row[0]


def server_seconds(db: psycopg.Connection[tuple[object, ...]], query: str) -> float:
    """The processor time that the server takes for a query: what else the machine does makes no difference."""
    process = Process(db.info.backend_pid)
    before = process.cpu_times()
    db.execute(query.encode())
    after = process.cpu_times()
    return float(after.user - before.user + after.system - before.system)


def ended_servers_seconds(stack: Stack) -> float:
    """The processor time of all connections that are over."""
    times = Process(stack.database.pid).cpu_times()
    return float(times.children_user + times.children_system)


def command(stack: Stack, *arguments: str) -> Run:
    """Run the command as a process of its own, and tell what it took."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "widget_analytics", *arguments],
        env=kept | {"SUPABASE_DB_URL": stack.database_url},
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - began
    assert process.stderr is not None
    with process.stderr as stderr:
        said = stderr.read().decode()
    if process.returncode:
        raise RuntimeError(said)
    kilobytes = usage.ru_maxrss / 1024 if sys.platform == "darwin" else usage.ru_maxrss
    return Run(
        seconds=seconds,
        processor_seconds=usage.ru_utime + usage.ru_stime,
        peak_megabytes=kilobytes * 1024 / 1e6,
        said=said,
    )


if __name__ == "__main__":
    sys.exit(main())
