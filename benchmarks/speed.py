"""How fast, as ratios measured side by side: against bare inserts, the raw limit, and itself. `scripts/bench`.

Everything runs on a private cluster with the server's default durability. Both sides of a ratio get the same payload,
connections, and prepared statements through pgbench, in turns, each after a checkpoint and a third of its time to get
going; each figure is the median over the rounds, with the
least and the most in brackets.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from statistics import median

from benchmarks import export_memory, growth, loads, over_http, requests
from benchmarks.bench import Bench, Plan, conditions, running
from benchmarks.findings import HEAD, Finding, at_least, figure, row, spread
from benchmarks.pgbench import Run, events_per_second, p95, play, wal_per_event
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


def foreign_key(bench: Bench) -> Iterator[Finding]:
    """What the reference to widgets costs the writer where it costs most: one hot widget, 16 connections."""
    load = loads.tracker("load", widgets=loads.ONE_WIDGET)
    kept: list[Run] = []
    dropped: list[Run] = []
    drop = "alter table public.widget_analytics drop constraint events_belong_to_a_widget"
    add = (
        "alter table public.widget_analytics add constraint events_belong_to_a_widget"
        " foreign key (widget_id) references public.widgets (id)"
    )
    for number in range(bench.plan.rounds):
        for with_key in (True, False) if number % 2 == 0 else (False, True):
            bench.empty()
            if not with_key:
                bench.execute(drop)
            (kept if with_key else dropped).append(play(bench.stack, load, clients=16, seconds=bench.plan.seconds))
            if not with_key:
                bench.execute(add)
    ratios = [a.events_per_second / b.events_per_second for a, b in zip(kept, dropped, strict=True)]
    yield Finding(
        "load on one hot widget, 16 connections, with the foreign key to widgets",
        "the same without it",
        spread(ratios),
        *at_least(ratios, 0.85),
    )


def over_http_path(bench: Bench) -> Iterator[Finding]:
    """In a stack of its own, as the gateway reads the schema when it starts."""
    yield from over_http.measure(bench.plan, bench.settings)


def exports(bench: Bench) -> Iterator[Finding]:
    """In a stack of its own, with the calls of one month."""
    for way, name, ours, copies in export_memory.beside_copy(bench.plan.calls, bench.plan.rounds):
        ratios = [copy / run.seconds for run, copy in zip(ours, copies, strict=True)]
        seconds, peak = median(run.seconds for run in ours), max(run.peak_megabytes for run in ours)
        yield Finding(
            f"export of {bench.plan.calls:,} calls to {name}, {'over the API' if way == 'API' else '`--direct`'}:"
            f" {figure(seconds)} s, {peak:.0f} MB at its peak",
            f"`\\copy` of the same rows: {figure(median(copies))} s",
            spread(ratios),
            *(at_least(ratios, 0.5) if way == "direct" else ("–", None)),
        )


def growth_of_history(bench: Bench) -> Iterator[Finding]:
    yield from growth.measure(bench, bench.plan.events)


ROWS: dict[str, Callable[[Bench], Iterator[Finding]]] = {
    "requests": requests_of_a_tracker,
    "rates": rates,
    "one-widget": one_widget,
    "foreign-key": foreign_key,
    "http": over_http_path,
    "export": exports,
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
