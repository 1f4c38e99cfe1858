"""What each request of a tracker costs the database: the server's processor time, in bare inserts of one row."""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psycopg

from benchmarks import loads
from benchmarks.bench import Bench
from benchmarks.findings import Finding, at_most, figure, spread
from benchmarks.pgbench import LOGIN

Connection = psycopg.Connection[tuple[object, ...]]
# In bare inserts of one row, what the JSON costs to read taken off.
TARGETS = {"load": 2.0, "start with heartbeat": 4.5, "heartbeat": 4.0, "end": 4.0, "twenty loads": 5.0}
TARGET_OF_A_CALL = 24.0
_PART = 100
_TRACK = "select public.track_events(%s::text::jsonb)"
_READ = "select jsonb_typeof(%s::text::jsonb)"
_NOTHING = "select length(%s::text)"


class Meter:
    """One connection as the anonymous role, and the processor time that its server process takes for a statement."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._schedstat = Path(f"/proc/{connection.info.backend_pid}/schedstat")

    def microseconds(self, statement: str, parameters: list[str]) -> float:
        before = self._taken()
        self._connection.execute(statement.encode(), parameters)
        return (self._taken() - before) / 1000

    def _taken(self) -> int:
        """In nanoseconds; only Linux says it so exactly."""
        return int(self._schedstat.read_text().split()[0])


@contextmanager
def _connected(bench: Bench, role: str) -> Iterator[Meter]:
    with psycopg.connect(bench.stack.database.url_of(LOGIN), autocommit=True, prepare_threshold=1) as connection:
        # The commit's write to disk is the same for both sides, and another process's time.
        for name, value in {**loads.REQUEST, "role": role, "synchronous_commit": "off"}.items():
            connection.execute("select set_config(%s, %s, false)", [name, value])
        yield Meter(connection)


def measure(bench: Bench) -> Iterator[Finding]:
    """In rounds, each a hundred sessions: a bare insert, then each request, so that both meet the same machine."""
    bench.empty()
    costs: dict[str, list[float]] = defaultdict(list)
    with _connected(bench, "anon") as visitor, _connected(bench, "service_role") as backend:
        _session(visitor, backend)  # plans and caches
        for _ in range(max(3, bench.plan.rounds * 2)):
            sessions = [_session(visitor, backend) for _ in range(_PART)]
            cost = {name: median(session[name] for session in sessions) for name in sessions[0]}
            for name in cost:
                costs[name].append(cost[name])
    bare = costs.pop("bare")
    for name, taken in costs.items():
        ratios = [cost / one for cost, one in zip(taken, bare, strict=True)]
        target = TARGET_OF_A_CALL if name.startswith("a call") else TARGETS.get(name)
        yield Finding(
            f"{name}: {figure(median(taken))} µs of the server's processor",
            f"bare insert of the original row: {figure(median(bare))} µs",
            spread(ratios),
            *(at_most(ratios, target) if target else ("–", None)),
        )


def _session(visitor: Meter, backend: Meter) -> dict[str, float]:
    """What each request took in one session, the reading of its JSON taken off."""
    session_id, call_id = loads.uuid_v7(), loads.uuid_v7()
    cost = {"bare": backend.microseconds(loads.BARE_INSERT, [loads.uuid_v7(), session_id])}
    sent = [*loads.REQUESTS, *["heartbeat"] * 3]
    taken = defaultdict(list)
    for name in sorted(sent, key=list(loads.REQUESTS).index):
        in_call = loads.uuid_v7() if name == loads.OFFLINE else call_id
        body = loads.body(name, session_id=session_id, call_id=in_call)
        json_takes = visitor.microseconds(_READ, [body]) - visitor.microseconds(_NOTHING, [body])
        taken[name].append(visitor.microseconds(_TRACK, [body]) - max(json_takes, 0))
    cost |= {name: median(times) for name, times in taken.items()}
    cost["a call of two minutes"] = sum(cost[name] for name in loads.TWO_MINUTES)
    return cost


def check(bench: Bench) -> None:
    """Raise unless what was sent was stored: a refusal would be cheaper."""
    events = sum(map(len, loads.REQUESTS.values())) + 3
    stored = bench.number("select count(*) from public.widget_analytics")
    if stored % events or not stored:
        raise RuntimeError(
            f"{stored:.0f} events are stored, which is no multiple of {events}: {json.dumps(loads.REQUESTS)}"
        )
