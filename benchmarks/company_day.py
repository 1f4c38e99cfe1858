"""A part of a company's day, played against the whole stack faster than it was; the bill against what was played.

1,000 widgets, three visits a call, more by day than by night, calls of two minutes on average, one in twenty crashed.
Calls are as much shorter as the day is faster, so each sends as many requests as in a real day.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks.findings import Finding, figure, table
from benchmarks.loads import REQUESTS, SENT_HEADERS, WIDGETS
from benchmarks.measure import execute, machine, processor_seconds
from local_stack.database import MICRO_SETTINGS
from local_stack.places import NODE, bare_environment
from local_stack.stack import Stack

PLAYER = Path(__file__).with_suffix(".mjs")
_WIDGET_IDS = [f"00000000-0000-7000-8000-{number:012}" for number in range(1, WIDGETS + 1)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/simulate-day", description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="of the whole day")
    parser.add_argument("--minutes", type=float, default=10, help="how long to play")
    parser.add_argument("--speed", type=float, default=10, help="how much faster than the day")
    parser.add_argument("--from-hour", type=float, default=9.5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--micro", action="store_true", help="PostgreSQL as Supabase sets it for a project of 1 GB")
    options = parser.parse_args(arguments)

    print(f"{machine()}, {'settings of 1 GB' if options.micro else 'default settings'}\n", flush=True)
    with Stack(durable=True, settings=MICRO_SETTINGS if options.micro else None) as stack:
        findings, problem = simulate(stack, options)
    print(table(findings))
    if problem:
        print(f"\n{problem}", file=sys.stderr)
    return 1 if problem else 0


def simulate(stack: Stack, options: argparse.Namespace) -> tuple[list[Finding], str]:
    """What was found, and what is not as it should be."""
    execute(
        stack,
        "insert into public.widgets (id, name, allowed_domains)"
        " select id, 'bench', '{shop.example}' from unnest(%s::uuid[]) id",
        [_WIDGET_IDS],
    )
    pids = {"gateway": stack.pids["gateway"]}
    before, size_before = processor_seconds(stack, pids), _size(stack)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        played, truth = _play(stack, options, Path(folder, "truth.csv"))
    seconds = time.monotonic() - began
    after, size = processor_seconds(stack, pids), _size(stack) - size_before
    # A crashed call's last heartbeat is the end; it waits for the cleanup.
    execute(stack, "select public.complete_stale_sessions('0 seconds')")
    billed: dict[str, Decimal] = dict(
        execute(stack, "select call_id, billable_seconds from public.widget_billing_calls('-infinity', 'infinity')")
    )
    findings = [
        _finding(
            f"{played['requests']:,} requests of {played['visits']:,} visits in {seconds:.0f} s",
            f"{figure(played['perSecond'])}/s; answers {played['statuses']}",
        ),
        _finding("answered after (p50, p95, p99, longest)", _milliseconds(played["percentiles"])),
        _finding("sent after it happened, by the player (the same)", _milliseconds(played["lateness"])),
        *(
            _finding(
                f"processor time of the {part}",
                f"{1e6 * taken / played['requests']:,.0f} µs a request, {1000 * taken / played['calls']:.1f} ms a call"
                f" with its visits; {taken / played['requests'] * played['perSecond']:.2f} cores at that rate",
            )
            for part, taken in ((part, after[part] - before[part]) for part in before)
        ),
        _finding(
            f"disk: {size / 1e6:,.1f} MB",
            f"{size / max(1, played['calls']):,.0f} bytes a call, with its three visits",
        ),
    ]
    off = [abs(billed.get(call, Decimal("-Infinity")) - length) for call, length in truth.items()]
    total, true_total = sum(billed.values(), Decimal(0)), sum(truth.values(), Decimal(0))
    findings.append(
        _finding(
            f"bill of {len(billed):,} calls: {total:,.3f} s",
            f"played: {len(truth):,} calls, {true_total:,.3f} s; one call is off by {max(off):.3f} s at most",
        )
    )
    problems = [
        set(played["statuses"]) != {"200"} and f"not answered with 200 only: {played['statuses']}",
        played["answers"] and f"refused: {played['answers']}",
        billed.keys() != truth.keys() and f"{len(billed)} calls are billed, {len(truth)} were made",
        # A call's start and end each travel for a moment: the longest that an answer took bounds it.
        max(off) > played["percentiles"][-1] / 1000 and f"a call is off by {max(off)} s",
    ]
    return findings, "\n".join(problem for problem in problems if problem)


def _play(stack: Stack, options: argparse.Namespace, file: Path) -> tuple[dict[str, Any], dict[str, Decimal]]:
    settings = {
        "url": f"{stack.api_url}/rest/v1/rpc/track_events",
        "headers": SENT_HEADERS | {"apikey": stack.publishable_key},
        "requests": {name: events for name, events in REQUESTS.items() if name != "twenty loads"},
        "widgets": _WIDGET_IDS,
        "calls_a_day": options.calls,
        "speed": options.speed,
        "from_hour": options.from_hour,
        "minutes": options.minutes,
        "seed": options.seed,
        "truth": str(file),
    }
    done = subprocess.run(
        [NODE, PLAYER, json.dumps(settings)], env=bare_environment(), stdout=subprocess.PIPE, text=True, check=True
    )
    with file.open() as lines:
        return json.loads(done.stdout), {call: Decimal(length) for call, length in csv.reader(lines)}


def _finding(what: str, measured: str) -> Finding:
    return Finding(what, "–", measured, "–")


def _milliseconds(values: Sequence[float]) -> str:
    return " / ".join(figure(value) for value in values) + " ms"


def _size(stack: Stack) -> int:
    return int(execute(stack, "select pg_database_size(current_database())")[0][0])


if __name__ == "__main__":
    sys.exit(main())
