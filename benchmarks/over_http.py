"""The whole path of an event, from a request to the committed row: the tracker's requests, beside what a company would
have without this project, and beside RPCs that do less."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from urllib.parse import urlencode

import psycopg

from benchmarks.bench import WIDE_QUOTAS, Plan
from benchmarks.findings import Finding, at_least, figure, spread
from benchmarks.loads import FIRST_WIDGET, PAGE_URL, REQUESTS, SENT_HEADERS, TWO_MINUTES, Event
from benchmarks.measure import processor_seconds, take_turns
from local_stack.places import NODE, bare_environment
from local_stack.processes import Child
from local_stack.stack import Stack

_HERE = Path(__file__).parent
GENERATOR = _HERE / "http_load.mjs"
_PEERS = """
create function public.widget_bench_nothing() returns jsonb
language plpgsql volatile set search_path = '' as $$ begin return '{"accepted": 0}'; end $$;

-- The original table, with the index that finding a session takes.
create table public.widget_bench_analytics (
  id uuid primary key, widget_id uuid references public.widgets (id), event_type varchar(50), session_id varchar(255),
  page_url text, user_agent text, "timestamp" timestamptz
);
create index on public.widget_bench_analytics (widget_id, session_id);

create function public.widget_bench_insert(id uuid, widget_id uuid, event_type text, session_id text, page_url text)
returns jsonb
language plpgsql volatile security definer set search_path = '' as $$
begin
  insert into public.widget_bench_analytics values (
    widget_bench_insert.id, widget_bench_insert.widget_id, widget_bench_insert.event_type,
    widget_bench_insert.session_id, widget_bench_insert.page_url,
    current_setting('request.headers')::json ->> 'user-agent', now()
  );
  return '{"accepted": 1}';
end $$;
grant execute on function public.widget_bench_nothing() to anon;
grant execute on function public.widget_bench_insert(uuid, uuid, text, text, text) to anon;
"""
# Of a visit's events those that the original endpoint is sent.
_ITS_EVENTS = ("widget_load", "call_start", "call_end")
VISITS: Mapping[str, tuple[str, ...]] = {"load": ("load",), "a call of two minutes": TWO_MINUTES}


@dataclass(frozen=True)
class Sent:
    """What some seconds of one visit after the other gave."""

    per_second: float
    # The 50th, 95th and 99th, in milliseconds.
    percentiles: Sequence[float]
    # Microseconds of processor time per request, by the stack's part.
    processor: Mapping[str, float]


@dataclass(frozen=True)
class Way:
    """Where requests go, and how many of them are one visit."""

    name: str
    url: str
    headers: Mapping[str, str]
    bodies: Sequence[str]
    # The processes that it goes through before the database.
    parts: Mapping[str, int]


@contextmanager
def peers(settings: Mapping[str, str] | None = None) -> Iterator[tuple[Stack, str, int]]:
    """A stack that also offers the peers, the address of the original endpoint, and its process."""
    with Stack(durable=True, settings=settings) as stack:
        with psycopg.connect(stack.database_url, autocommit=True) as connection:
            connection.execute("select cron.unschedule(jobid) from cron.job")
            connection.execute(WIDE_QUOTAS.encode())
            connection.execute(_PEERS.encode())
            connection.execute(
                "insert into public.widgets (id, allowed_domains) values (%s, '{shop.example}')", [FIRST_WIDGET]
            )
        stack.restart_gateway()
        # Supabase's functions are clients of its gateway as well.
        given = json.dumps({"url": stack.api_url, "key": stack.secret_key})
        endpoint = Child(
            "the original endpoint",
            [NODE, _HERE / "original_endpoint.mjs", given],
            log=stack.logs / "original-endpoint.log",
            environment=bare_environment(),
        )
        try:
            port = endpoint.await_output(r"listening on (\d+)")[1]
            yield stack, f"http://127.0.0.1:{port}/api/analytics/track", endpoint.pid
        finally:
            endpoint.stop()


def ways(stack: Stack, endpoint_url: str, endpoint_pid: int, visit: str) -> list[Way]:
    """The tracker's way first."""
    headers = SENT_HEADERS | {"apikey": stack.publishable_key}
    rpc = f"{stack.api_url}/rest/v1/rpc"
    parts = {"gateway": stack.pids["gateway"]}
    requests = [REQUESTS[name] for name in VISITS[visit]]
    events = [event["event_type"] for request in requests for event in request if event["event_type"] in _ITS_EVENTS]
    rows = [
        {"widget_id": FIRST_WIDGET, "event_type": event, "session_id": "SESSION", "page_url": PAGE_URL}
        for event in events
    ]
    return [
        Way("the tracker's requests", f"{rpc}/track_events", headers, [_form(request) for request in requests], parts),
        Way(
            "the original endpoint, written with supabase-js",
            endpoint_url,
            headers | {"content-type": "application/json"},
            [json.dumps(row) for row in rows],
            {**parts, "endpoint": endpoint_pid},
        ),
        Way(
            "an RPC that inserts one bare row",
            f"{rpc}/widget_bench_insert",
            headers,
            [urlencode({"id": "EVENT1", **row}) for row in rows],
            parts,
        ),
        Way("an RPC that does nothing", f"{rpc}/widget_bench_nothing", headers, [""], parts),
    ]


def _form(request: Sequence[Event]) -> str:
    events = [
        {"event_id": f"EVENT{number}", "widget_id": FIRST_WIDGET, "session_id": "SESSION"}
        | event
        | ({"call_id": "SESSION"} if "call_id" in event else {})
        for number, event in enumerate(request)
    ]
    return urlencode({"events": json.dumps(events, separators=(",", ":"))})


def send(stack: Stack, way: Way, *, connections: int, seconds: float) -> Sent:
    settings = {
        "url": way.url,
        "headers": dict(way.headers),
        "bodies": list(way.bodies),
        "connections": connections,
        "seconds": seconds,
    }
    before = processor_seconds(stack, way.parts)
    done = subprocess.run(
        [NODE, GENERATOR, json.dumps(settings)], env=bare_environment(), capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    if set(answer["statuses"]) != {"200"}:
        raise RuntimeError(f"{way.name}: not answered with 200 only: {answer['statuses']}")
    after = processor_seconds(stack, way.parts)
    taken = {part: 1e6 * (after[part] - before[part]) / answer["statuses"]["200"] for part in after}
    return Sent(answer["perSecond"], answer["percentiles"], taken)


def measure(plan: Plan, settings: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """In rounds, in each of which every way is played once."""
    with peers(settings) as (stack, endpoint_url, endpoint_pid):
        for visit in VISITS:
            for connections in plan.clients:
                played = ways(stack, endpoint_url, endpoint_pid, visit)
                for way in played:  # code gets compiled, and connections opened
                    send(stack, way, connections=connections, seconds=max(1, plan.seconds / 3))
                turns = [partial(send, stack, way, connections=connections, seconds=plan.seconds) for way in played]
                runs = take_turns(*turns, rounds=plan.rounds)
                yield from _findings(visit, connections, played, runs)


def _findings(visit: str, connections: int, played: Sequence[Way], runs: Sequence[Sequence[Sent]]) -> Iterator[Finding]:
    ours = runs[0]
    at = f"{visit}, {connections} connection{'' if connections == 1 else 's'}"
    targets = {1: 1.8, 2: 0.95}
    for place, (way, theirs) in enumerate(zip(played[1:], runs[1:], strict=True), start=1):
        ratios = [own.per_second / other.per_second for own, other in zip(ours, theirs, strict=True)]
        yield Finding(
            f"{at}, requests: {_rate(ours)}",
            f"{way.name}: {_rate(theirs)}",
            spread(ratios),
            *(at_least(ratios, targets[place]) if place in targets else ("–", None)),
        )
    for part in ("database", "gateway"):
        own, other = (_per_visit(sent, way, part) for way, sent in zip(played[:2], runs[:2], strict=True))
        yield Finding(
            f"{at}, processor time of the {part}, {len(played[0].bodies)} requests: {figure(median(own))} µs",
            f"the original endpoint, {len(played[1].bodies)} requests: {figure(median(other))} µs",
            spread([a / b for a, b in zip(own, other, strict=True)]),
            "–",
        )


def _rate(runs: Sequence[Sent]) -> str:
    percentiles = [figure(median(run.percentiles[place] for run in runs)) for place in range(3)]
    return f"{figure(median(run.per_second for run in runs))}/s, p50/p95/p99 {'/'.join(percentiles)} ms"


def _per_visit(runs: Sequence[Sent], way: Way, part: str) -> list[float]:
    return [run.processor[part] * len(way.bodies) for run in runs]
