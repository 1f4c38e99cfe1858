"""The whole path of an event, from a request to the committed row, against a request that does nothing."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import psycopg

from benchmarks.bench import WIDE_QUOTAS
from benchmarks.loads import FIRST_WIDGET, HEADERS, REQUESTS
from benchmarks.pgbench import Run
from local_stack.places import NODE, bare_environment
from local_stack.stack import Stack

GENERATOR = Path(__file__).with_name("http_load.mjs")
_NOTHING = """
create function public.widget_bench_nothing() returns jsonb
language plpgsql volatile set search_path = '' as $$ begin return '{"accepted": 0}'; end $$;
grant execute on function public.widget_bench_nothing() to anon;
"""


@contextmanager
def stack_with_empty_rpc() -> Iterator[Stack]:
    """With a gateway that also offers a function which does nothing."""
    with Stack(durable=True) as stack:
        with psycopg.connect(stack.database_url, autocommit=True) as connection:
            connection.execute("select cron.unschedule(jobid) from cron.job")
            connection.execute(WIDE_QUOTAS.encode())
            connection.execute(_NOTHING.encode())
            connection.execute(
                "insert into public.widgets (id, allowed_domains) values (%s, '{shop.example}')", [FIRST_WIDGET]
            )
        stack.restart_gateway()
        yield stack


def tracker(stack: Stack, request: str, *, connections: int, seconds: float) -> Run:
    """One request of a tracker, form-encoded as the tracker sends it, in a session and a call of its own."""
    events = [
        {"event_id": f"EVENT{number}", "widget_id": FIRST_WIDGET, "session_id": "SESSION"}
        | event
        | ({"call_id": "SESSION"} if "call_id" in event else {})
        for number, event in enumerate(REQUESTS[request])
    ]
    form = urlencode({"events": json.dumps(events, separators=(",", ":"))})
    return _send(stack, "track_events", form, connections=connections, seconds=seconds)


def nothing(stack: Stack, *, connections: int, seconds: float) -> Run:
    return _send(stack, "widget_bench_nothing", "", connections=connections, seconds=seconds)


def _send(stack: Stack, function: str, body: str, *, connections: int, seconds: float) -> Run:
    left_out = {"host", "content-length"}
    settings = {
        "url": f"{stack.api_url}/rest/v1/rpc/{function}",
        "headers": {name: value for name, value in HEADERS.items() if name not in left_out}
        | {"apikey": stack.publishable_key},
        "body": body,
        "connections": connections,
        "seconds": seconds,
    }
    done = subprocess.run(
        [NODE, GENERATOR, json.dumps(settings)], env=bare_environment(), capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    if set(answer["statuses"]) != {"200"}:
        raise RuntimeError(f"{function} was not answered with 200 only: {answer['statuses']}")
    return Run(answer["perSecond"], answer["p95"], 0, answer["statuses"]["200"])
