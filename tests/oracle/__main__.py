"""Plays many histories against databases of its own: `scripts/oracle --help`."""

import argparse
import json
import os
import random
import sys
import time
from collections import Counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tests.oracle import providers
from tests.oracle.histories import from_json
from tests.oracle.play import Database, check
from tests.oracle.workers import Lot, play

# Of a hundred histories.
SHARES = {"ledger": 50, "ties": 12, "rated": 12, "archived": 8, "door": 12, "providers": 6}
# A worker plays so many and comes back.
LOT = 250


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/oracle",
        description="Plays random histories in the database and in an independent model of the rules; both must agree.",
    )
    any_seed = random.SystemRandom().randrange(1_000_000)
    jobs = max(2, os.cpu_count() or 1)
    parser.add_argument("--count", type=int, default=10_000, help="how many histories (10000)")
    parser.add_argument("--seed", type=int, default=any_seed, help="which histories; random if left out")
    parser.add_argument("--family", choices=SHARES, help="only this kind; else all, most of them ledger")
    parser.add_argument(
        "--jobs", type=int, default=jobs, help=f"how many databases at once ({jobs}); changes no history"
    )
    parser.add_argument("--replay", metavar="JSON", help="plays this one history instead, as a failure printed it")
    options = parser.parse_args()

    if options.replay:
        with Database.fresh() as database:
            history = json.loads(options.replay)
            if "carried" in history:
                print(providers.check(database, providers.from_json(history)))
            else:
                print(json.dumps(check(database, from_json(history)), default=str, indent=2))
        return 0

    print(f"seed {options.seed}, count {options.count}", flush=True)
    started = time.monotonic()
    shares = {options.family: 100} if options.family else SHARES
    lots = [
        Lot(family, min(LOT, count - done), options.seed + done)
        for family, share in shares.items()
        for count in [options.count * share // 100]
        for done in range(0, count, LOT)
    ]
    seen, failure = _watch(lots, jobs=min(options.jobs, len(lots)))
    if failure is not None:
        print(f"\n{failure}\nThe whole run again: scripts/oracle --seed {options.seed} --count {options.count}")
        return 1

    table = Table("what the histories held", "")
    table.columns[1].justify = "right"
    for what, number in seen.items():
        table.add_row(what, f"{number:,}")
    Console().print(table)
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"{seen['histories']} histories agree (seed {options.seed}, {minutes} min {seconds} s)")
    return 0


def _watch(lots: list[Lot], *, jobs: int) -> tuple[Counter[str], str | None]:
    """What all histories held, or else the first failure."""
    seen: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    for lot in lots:
        totals[lot.family] += lot.count
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        tasks = {family: progress.add_task(family, total=total) for family, total in totals.items()}
        for told in play(lots, jobs=jobs):
            if told.failure is not None:
                return seen, told.failure
            if told.seen is None:
                progress.advance(tasks[told.family])
            else:
                seen += told.seen
    return seen, None


if __name__ == "__main__":
    sys.exit(main())
