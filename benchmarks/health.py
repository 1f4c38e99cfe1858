"""How quick health is over a large ledger: reading it, keeping it up to date, and comparing it with the ledger.

scripts/bench-health --events 1000000
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from uuid import uuid4

import psycopg
from psycopg.types.json import Jsonb

from benchmarks.measure import execute, seconds_of
from local_stack.stack import Stack

DAYS = 60
WIDGETS = 20
OWNED = 5
NEW_EVENTS = 1000
SESSIONS_AT_ONCE = 2500

# What each session sends, and how many minutes after its first event.
SESSION = [
    ("widget_load", 0),
    ("widget_open", 0.5),
    ("call_start", 1),
    ("call_heartbeat", 1),
    ("call_heartbeat", 1.5),
    ("call_heartbeat", 2),
    ("call_heartbeat", 2.5),
    ("call_end", 3),
]

REFRESH = "select * from public.refresh_widget_health()"
Connection = psycopg.Connection[tuple[object, ...]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench-health", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args(arguments)

    with Stack(durable=True, gateway=False) as stack, psycopg.connect(stack.database_url, autocommit=True) as db:
        # Nothing comes in between by itself.
        db.execute("select cron.unschedule(jobid) from cron.job")
        owner_id = uuid4()
        db.execute("insert into auth.users (id, email) values (%s, 'owner@bench.example')", [owner_id])
        took = seconds_of(lambda: make_events(db, options.events, owner_id))
        [(events, calls)] = execute(
            stack, "select (select count(*) from public.widget_analytics), (select count(*) from public.widget_calls)"
        )
        print(
            f"{events:,} events of {WIDGETS} widgets in {DAYS} days, {calls:,} calls, written in {took:.0f} s",
            flush=True,
        )

        # They were received before now, and are all still to count.
        db.execute("update widget_internal.health_state set counted_to = default, counted_to_id = default")
        took, calls = first_count(db)
        print(f"first count of them all, 8 s a call: {calls} calls  {took:10.1f} s", flush=True)
        db.execute("vacuum analyze")

        print(f"refresh after {NEW_EVENTS:,} new events, median of 5   {1000 * new_events_refresh(db):8.0f} ms")
        print(f"refresh after none, median of 5                {median_of(db, REFRESH):8.0f} ms")
        read(stack, owner_id)
        for check in ("health_differences()", "widget_calls_differences()"):
            took = seconds_of(partial(db.execute, f"select from widget_internal.{check}".encode()))
            print(f"{check:<46} {took:10.1f} s", flush=True)
        alarms = median_of(db, "select * from public.widget_alarms()")
        print(f"widget_alarms(), median of 5                   {alarms:8.0f} ms", flush=True)
    return 0


def make_events(db: Connection, events: int, owner_id: object) -> None:
    """Make sessions with a call each, in the order of their receipt, spread evenly over the days up to now."""
    db.execute("select setseed(0.5)")
    db.execute(
        "insert into public.widgets (owner_id, name, allowed_domains)"
        " select case when n <= %s then %s::uuid end, 'Widget ' || n, '{*}' from generate_series(1, %s) n",
        [OWNED, owner_id, WIDGETS],
    )
    sessions = events // len(SESSION)
    for first in range(0, sessions, SESSIONS_AT_ONCE):
        db.execute(
            "insert into public.widget_analytics"
            " (id, widget_id, event_type, session_id, page_url, call_id, seq, timestamp, received_at, properties)"
            # Like UUIDs of version 7: in the order of time.
            " select"
            "   (lpad(to_hex((extract(epoch from e.at) * 1000)::bigint), 12, '0')"
            "     || substr(md5(random()::text), 13))::uuid,"
            "   e.widget_id, e.event_type, 'session-' || lpad(e.n::text, 9, '0'),"
            "   case when e.seq = 1 then 'https://shop.example/page/' || e.n %% 200 end,"
            "   case when e.event_type like 'call%%' then 'call-' || e.n end, e.seq, e.at, e.at,"
            "   case when e.seq > 1 then jsonb_build_object('rtt_ms', (20 + 200 * random() ^ 3)::int) end"
            " from ("
            "   select w.id as widget_id, n, s.event_type, s.seq,"
            "     now() - %s * interval '1 day' + n * %s * interval '1 second' + s.after * interval '1 minute' as at"
            "   from generate_series(%s::int, %s) n"
            "   join (select row_number() over (order by name) - 1 as place, id from public.widgets) w"
            "     on w.place = n %% %s"
            "   cross join unnest(%s::text[], %s::float[]) with ordinality s (event_type, after, seq)"
            # One in a hundred is lost on its way.
            "   where s.event_type = 'call_start' or (n * 8 + s.seq) %% 100 <> 17"
            " ) e order by e.at",
            [
                DAYS,
                (DAYS * 86400 - 600) / sessions,
                first,
                min(first + SESSIONS_AT_ONCE, sessions) - 1,
                WIDGETS,
                [event_type for event_type, _ in SESSION],
                [float(after) for _, after in SESSION],
            ],
        )
    db.execute("analyze")


def first_count(db: Connection) -> tuple[float, int]:
    """Count all events in calls of 8 seconds at most, as over REST: how long, and in how many calls."""
    began, calls, left = time.monotonic(), 0, 1
    db.execute("set statement_timeout = '8s'")
    while left:
        row = db.execute("select events_left from public.refresh_widget_health()").fetchone()
        assert row is not None
        calls, left = calls + 1, int(str(row[0]))
    db.execute("reset statement_timeout")
    return time.monotonic() - began, calls


def new_events_refresh(db: Connection) -> float:
    """Send sessions through the RPC, as browsers do, and time the refresh that counts them."""
    row = db.execute("select array_agg(id order by name) from public.widgets").fetchone()
    assert row is not None
    widgets: list[object] = row[0]  # type: ignore[assignment]  # an array of UUIDs
    took = []
    db.execute("""select set_config('request.headers', '{"origin": "https://shop.example"}', false)""")
    for _ in range(5):
        events = [
            {
                "widget_id": str(widgets[n % WIDGETS]),
                "event_type": event_type,
                "session_id": session_id,
                "event_id": str(uuid4()),
                "seq": seq,
                "age_ms": round(60_000 * (3 - after)),
                **({"call_id": "c"} if event_type.startswith("call") else {}),
            }
            for n in range(NEW_EVENTS // len(SESSION))
            for session_id in [str(uuid4())]
            for seq, (event_type, after) in enumerate(SESSION, start=1)
        ]
        answer = db.execute("select public.track_events(%s)", [Jsonb(events)]).fetchone()
        assert answer is not None
        assert answer[0]["accepted"] == len(events), answer  # type: ignore[index]  # a JSON object
        took.append(seconds_of(lambda: db.execute(REFRESH)))
    return statistics.median(took)


def read(stack: Stack, owner_id: object) -> None:
    """Read as the signed-in owner, through row level security."""
    with psycopg.connect(stack.database.url_of("authenticator"), autocommit=True) as owner:
        owner.execute("select set_config('role', 'authenticated', false)")
        owner.execute(
            "select set_config('request.jwt.claims', json_build_object('sub', %s::text, 'role', 'authenticated')::text,"
            " false)",
            [str(owner_id)],
        )
        queries = {
            "widget_health": "select * from public.widget_health where hour >= now() - interval '30 days'",
            "widget_rates()": "select * from public.widget_rates(now() - interval '30 days')",
        }
        for name, query in queries.items():
            rows = len(owner.execute(query.encode()).fetchall())
            what = f"{name}, 30 days of {OWNED} widgets, {rows:,} rows"
            print(f"{what:60} {median_of(owner, query):5.0f} ms", flush=True)


def median_of(db: Connection, query: str) -> float:
    """Milliseconds."""
    return 1000 * statistics.median(seconds_of(lambda: db.execute(query.encode()).fetchall()) for _ in range(5))


if __name__ == "__main__":
    sys.exit(main())
