"""How fast, as ratios measured side by side: against the seed's way, the raw limit, and itself. `scripts/bench`.

Everything runs on a private cluster with the server's default durability. Both sides of a ratio get the same payload,
connections, and prepared statements through pgbench, in turns; each figure is the median over the rounds, with the
least and the most in brackets.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from benchmarks import loads
from benchmarks.findings import HEAD, Finding, at_least, at_most, figure, row, spread
from benchmarks.pgbench import Load, Pair, events_per_second, machine, p95, side_by_side, wal_per_event
from local_stack.stack import Stack

SEED_SCHEMA = Path(__file__).with_name("seed_baseline.sql")


@dataclass
class Bench:
    """A running stack with 1,000 widgets on both sides, and how long to measure."""

    stack: Stack
    seconds: float
    rounds: int
    clients: Sequence[int]

    def __post_init__(self) -> None:
        self.execute("select cron.unschedule(jobid) from cron.job")  # nothing runs but what is measured
        self.execute(SEED_SCHEMA.read_text())
        ids = "select ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid from generate_series(1, %s) n"
        self.execute(f"insert into seed_baseline.widgets {ids}", [loads.WIDGETS])
        self.execute(
            "insert into public.widgets (id, name, allowed_domains)"
            f" select w.id, 'bench', '{{shop.example}}' from ({ids}) w (id)",
            [loads.WIDGETS],
        )
        self.execute("vacuum analyze seed_baseline.widgets, public.widgets")

    def execute(self, sql: str, parameters: Sequence[object] | None = None) -> list[tuple[object, ...]]:
        with psycopg.connect(self.stack.database_url, autocommit=True) as connection:
            cursor = connection.execute(sql.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def empty(self) -> None:
        self.execute("truncate public.widget_analytics, public.widget_calls, seed_baseline.widget_analytics")

    def compare(self, ours: Load, other: Load, *, clients: int) -> Pair:
        """Both from an empty table at each turn."""
        return side_by_side(
            self.stack, ours, other, clients=clients, seconds=self.seconds, rounds=self.rounds, before_each=self.empty
        )


def single_events(bench: Bench) -> Iterator[Finding]:
    for clients in bench.clients:
        pair = bench.compare(loads.track_load(), loads.seed_insert(), clients=clients)
        rates = pair.rate_ratios()
        yield Finding(
            f"`track_event`, {clients} connections: events per second",
            f"bare insert of the seed's row ({figure(events_per_second(pair.other))}/s)",
            f"{spread(rates)}, {figure(events_per_second(pair.ours))}/s",
            *(at_least(rates, 1.0) if clients == 16 else ("–", None)),
        )
        yield Finding(
            f"the same: 95th percentile of the time for one, {figure(p95(pair.ours))} ms",
            f"the same ({figure(p95(pair.other))} ms)",
            spread(pair.p95_ratios()),
            *(at_most(pair.p95_ratios(), 1.0) if clients == 16 else ("–", None)),
        )
        wal = wal_per_event(pair.ours)
        yield Finding(
            "the same: bytes of WAL per event",
            f"the same ({figure(wal_per_event(pair.other))})",
            f"{figure(wal)} bytes, {spread(pair.wal_ratios())} less",
            "≤ 900 bytes" if clients == 16 else "–",
            wal <= 900 if clients == 16 else None,
        )


def ids_of_the_database(bench: Bench) -> Iterator[Finding]:
    pair = bench.compare(loads.track_load(with_id=False), loads.track_load(), clients=16)
    yield Finding(
        "`track_event` without `event_id`", "with one, as the tracker sends it", spread(pair.rate_ratios()), "–"
    )


def one_widget(bench: Bench) -> Iterator[Finding]:
    pair = bench.compare(loads.track_load(widgets=loads.ONE_WIDGET), loads.track_load(), clients=16)
    yield Finding(
        "all traffic on one widget",
        f"spread over {loads.WIDGETS:,}",
        spread(pair.rate_ratios()),
        *at_least(pair.rate_ratios(), 0.95),
    )
    pair = bench.compare(loads.seed_insert(widgets=loads.ONE_WIDGET), loads.seed_insert(), clients=16)
    yield Finding("the seed's insert on one widget", f"spread over {loads.WIDGETS:,}", spread(pair.rate_ratios()), "–")


def batches(bench: Bench) -> Iterator[Finding]:
    pair = bench.compare(loads.track_batch(), loads.track_session(), clients=16)
    yield Finding(
        f"`track_events`, 20 events a call: {figure(events_per_second(pair.ours))} events/s",
        f"20 single calls ({figure(events_per_second(pair.other))}/s)",
        spread(pair.rate_ratios()),
        *at_least(pair.rate_ratios(), 6),
    )


def call_events(bench: Bench) -> Iterator[Finding]:
    pair = bench.compare(loads.track_call(), loads.track_no_call(), clients=16)
    yield Finding(
        f"call events, which keep `widget_calls`: {figure(events_per_second(pair.ours))}/s",
        f"other events ({figure(events_per_second(pair.other))}/s)",
        spread(pair.rate_ratios()),
        *at_least(pair.rate_ratios(), 0.5),
    )


ROWS: dict[str, Callable[[Bench], Iterator[Finding]]] = {
    "track": single_events,
    "own-ids": ids_of_the_database,
    "one-widget": one_widget,
    "batch": batches,
    "calls": call_events,
}


@contextmanager
def running(*, seconds: float, rounds: int, clients: Sequence[int]) -> Iterator[Bench]:
    with Stack(durable=True, gateway=False) as stack:
        yield Bench(stack, seconds, rounds, clients)


def conditions(bench: Bench) -> str:
    """The machine, the server and how it is set: what the absolute figures hold for."""
    settings = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size")
    shown = ", ".join(f"{name} {bench.execute(f'show {name}')[0][0]}" for name in settings)
    version = str(bench.execute("show server_version")[0][0]).split()[0]
    return (
        f"{machine()}, load {os.getloadavg()[0]:.1f} before; PostgreSQL {version} ({shown}). "
        f"{bench.rounds} rounds of {bench.seconds:g} s."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=lambda names: names.split(","), help=f"some of {','.join(ROWS)}")
    parser.add_argument("--seconds", type=float, default=10, help="how long each load plays in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64], help="connections of the row `track`")
    options = parser.parse_args(arguments)
    chosen = options.only or list(ROWS)
    if unknown := set(chosen).difference(ROWS):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")

    with running(seconds=options.seconds, rounds=options.rounds, clients=options.clients) as bench:
        print(conditions(bench), end="\n\n", flush=True)
        print(HEAD, flush=True)
        for name in chosen:
            for finding in ROWS[name](bench):
                print(row(finding), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
