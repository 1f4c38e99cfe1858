"""How fast, as ratios measured side by side: against bare inserts, the raw limit, and itself. `scripts/bench`.

Everything runs on a private cluster with the server's default durability. Both sides of a ratio get the same payload,
connections, and prepared statements through pgbench, in turns, each after a checkpoint and a third of its time to get
going; each figure is the median over the rounds, with the
least and the most in brackets.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence

from benchmarks import exports, growth, loads, over_http, requests
from benchmarks.bench import Bench, Plan, conditions, running
from benchmarks.findings import HEAD, Finding, at_least, figure, row, spread
from benchmarks.pgbench import events_per_second, p95, wal_per_event
from local_stack.database import MICRO_SETTINGS


def requests_of_a_tracker(bench: Bench) -> Iterator[Finding]:
    yield from requests.measure(bench)
    requests.check(bench)


def rates(bench: Bench) -> Iterator[Finding]:
    """Requests a second: one after the other, and what they do to each other."""
    for clients in bench.plan.clients:
        for names in (("load",), ("start with heartbeat", "heartbeat", "end")):
            pair = bench.compare(loads.tracker(*names), loads.bare_insert(), clients=clients)
            yield Finding(
                f"{', '.join(names)}, {clients} connections: {figure(events_per_second(pair.ours))} events/s",
                f"bare insert of the original row ({figure(events_per_second(pair.other))}/s)",
                spread(pair.rate_ratios()),
                "–",
            )
            yield Finding(
                f"the same: 95th percentile of these requests together, {figure(p95(pair.ours))} ms",
                f"the same ({figure(p95(pair.other))} ms)",
                spread(pair.p95_ratios()),
                "–",
            )
            yield Finding(
                f"the same: {figure(wal_per_event(pair.ours))} bytes of WAL per event",
                f"the same ({figure(wal_per_event(pair.other))})",
                f"{spread(pair.wal_ratios())} less",
                "–",
            )


def one_widget(bench: Bench) -> Iterator[Finding]:
    for names in (("load",), ("start with heartbeat", "heartbeat", "end")):
        pair = bench.compare(loads.tracker(*names, widgets=loads.ONE_WIDGET), loads.tracker(*names), clients=16)
        yield Finding(
            f"{', '.join(names)}: all traffic on one widget, 16 connections",
            f"spread over {loads.WIDGETS:,}",
            spread(pair.rate_ratios()),
            *at_least(pair.rate_ratios(), 0.85),
        )
    pair = bench.compare(loads.bare_insert(widgets=loads.ONE_WIDGET), loads.bare_insert(), clients=16)
    yield Finding("the bare insert on one widget", f"spread over {loads.WIDGETS:,}", spread(pair.rate_ratios()), "–")


def over_http_path(bench: Bench) -> Iterator[Finding]:
    """In a stack of its own, as the gateway reads the schema when it starts."""
    yield from over_http.measure(bench.plan, bench.settings)


def exports_of_a_month(bench: Bench) -> Iterator[Finding]:
    """In a stack of its own."""
    yield from exports.measure(bench.plan)


def growth_of_history(bench: Bench) -> Iterator[Finding]:
    yield from growth.measure(bench, bench.plan.events)


ROWS: dict[str, Callable[[Bench], Iterator[Finding]]] = {
    "requests": requests_of_a_tracker,
    "rates": rates,
    "one-widget": one_widget,
    "http": over_http_path,
    "export": exports_of_a_month,
    "history": growth_of_history,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=lambda names: names.split(","), help=f"some of {','.join(ROWS)}")
    parser.add_argument("--seconds", type=float, default=10, help="how long each load plays in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--clients", type=int, nargs="+", default=[1, 16, 64], help="connections of the rows `rates` and `http`"
    )
    parser.add_argument("--micro", action="store_true", help="PostgreSQL as Supabase sets it for a project of 1 GB")
    parser.add_argument("--events", type=int, default=1_000_000, help="how long the row `history` goes on to fill")
    parser.add_argument("--calls", type=int, default=100_000, help="how many the row `export` exports")
    options = parser.parse_args(arguments)
    chosen = options.only or list(ROWS)
    if unknown := set(chosen).difference(ROWS):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")

    plan = Plan(options.seconds, options.rounds, options.clients, options.events, options.calls)
    settings = MICRO_SETTINGS if options.micro else None
    with running(plan, lambda what: print(f"… {what}", file=sys.stderr, flush=True), settings) as bench:
        print(conditions(bench), end="\n\n", flush=True)
        print(HEAD, flush=True)
        for name in chosen:
            for finding in ROWS[name](bench):
                print(row(finding), flush=True)
            bench.check_nothing_was_refused()
    return 0


if __name__ == "__main__":
    sys.exit(main())
