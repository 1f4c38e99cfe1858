"""How fast, as ratios measured side by side: against the seed's way, the raw limit, and itself. `scripts/bench`.

Everything runs on a private cluster with the server's default durability. Both sides of a ratio get the same payload,
connections, and prepared statements through pgbench, in turns, each after a checkpoint and a third of its time to get
going; each figure is the median over the rounds, with the
least and the most in brackets.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from statistics import median

from benchmarks import export_memory, growth, loads, over_http
from benchmarks.bench import Bench, Plan, conditions, running
from benchmarks.findings import HEAD, Finding, at_least, at_most, figure, row, spread
from benchmarks.pgbench import Pair, Run, cpu_per_event, events_per_second, p95, wal_per_event


def single_events(bench: Bench) -> Iterator[Finding]:
    for clients in bench.plan.clients:
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
        if ratios := pair.cpu_ratios():
            yield Finding(
                f"the same: {figure(cpu_per_event(pair.ours))} µs of the server's processors per event",
                f"the same: {figure(cpu_per_event(pair.other))} µs",
                spread(ratios),
                "–",
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


def protections(bench: Bench) -> Iterator[Finding]:
    """All that is sent comes from one address, so one sender's counters take it all: the worst case."""
    pair = bench.compare(loads.track_load(), loads.track_load(schema="unprotected"), clients=16)
    yield Finding(
        "`track_event` with every protection: door, refusal counts, quotas",
        "the same function without any",
        spread(pair.rate_ratios()),
        *at_least(pair.rate_ratios(), 0.9),
    )


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


def over_http_path(bench: Bench) -> Iterator[Finding]:
    """In a stack of its own, as the gateway reads the schema when it starts."""
    with over_http.stack_with_empty_rpc() as stack:
        pair = Pair([], [])
        for send in (over_http.track_event, over_http.nothing):  # the gateway's code gets compiled
            send(stack, connections=16, seconds=bench.plan.seconds / 2)
        for number in range(bench.plan.rounds):
            turns = [(over_http.track_event, pair.ours), (over_http.nothing, pair.other)]
            for send, runs in turns if number % 2 == 0 else reversed(turns):
                runs.append(send(stack, connections=16, seconds=bench.plan.seconds))
    yield Finding(
        f"`track_event` over HTTP, 16 connections: {http_figures(pair.ours)}",
        f"an RPC that does nothing: {http_figures(pair.other)}",
        spread(pair.rate_ratios()),
        *at_least(pair.rate_ratios(), 0.8),
    )


def http_figures(runs: list[Run]) -> str:
    return f"{figure(events_per_second(runs))}/s, p95 {figure(p95(runs))} ms"


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
    "track": single_events,
    "own-ids": ids_of_the_database,
    "one-widget": one_widget,
    "protections": protections,
    "batch": batches,
    "calls": call_events,
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
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64], help="connections of the row `track`")
    parser.add_argument("--events", type=int, default=1_000_000, help="how long the row `history` goes on to fill")
    parser.add_argument("--calls", type=int, default=100_000, help="how many the row `export` exports")
    options = parser.parse_args(arguments)
    chosen = options.only or list(ROWS)
    if unknown := set(chosen).difference(ROWS):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")

    plan = Plan(options.seconds, options.rounds, options.clients, options.events, options.calls)
    with running(plan, lambda what: print(f"… {what}", file=sys.stderr, flush=True)) as bench:
        print(conditions(bench), end="\n\n", flush=True)
        print(HEAD, flush=True)
        for name in chosen:
            for finding in ROWS[name](bench):
                print(row(finding), flush=True)
            bench.check_nothing_was_refused()
    return 0


if __name__ == "__main__":
    sys.exit(main())
