"""Plays many histories against a database of its own: `scripts/oracle --help`."""

import argparse
import json
import random
import sys
import time
from collections import Counter

import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tests.oracle.histories import from_json
from tests.oracle.play import Database, check
from tests.oracle.run import FAMILIES, run

# Of a hundred histories.
SHARES = {"ledger": 70, "ties": 15, "door": 15}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/oracle",
        description="Plays random histories in the database and in an independent model of the rules; both must agree.",
    )
    parser.add_argument("--count", type=int, default=10_000, help="how many histories (10000)")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(1_000_000), help="random if left out"
    )
    parser.add_argument("--family", choices=FAMILIES, help="only this kind; else all, most of them ledger")
    parser.add_argument("--replay", metavar="JSON", help="plays this one history instead, as a failure printed it")
    parser.add_argument("--database", metavar="URL", help="as the tables' owner; else a fresh one is started")
    options = parser.parse_args()

    if options.database:
        return _run(Database(options.database), options)
    with Database.fresh() as database:
        return _run(database, options)


def _run(database: Database, options: argparse.Namespace) -> int:
    console = Console(stderr=True)
    if options.replay:
        played = check(database, from_json(json.loads(options.replay)))
        print(json.dumps(played, default=str, indent=2))
        return 0

    shares = {options.family: 100} if options.family else SHARES
    counts = {family: options.count * share // 100 for family, share in shares.items()}
    print(f"seed {options.seed}, count {options.count}", flush=True)
    started = time.monotonic()
    seen: Counter[str] = Counter()
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            for family, count in counts.items():
                task = progress.add_task(family, total=count)
                seen += run(
                    database,
                    family,
                    count=count,
                    seed=options.seed,
                    on_progress=lambda task=task: progress.advance(task),  # type: ignore[misc]
                )
    except (AssertionError, psycopg.Error) as error:
        print(f"\nThey part. {error}", error.__notes__[0], sep="\n")
        print(f"The whole run again: scripts/oracle --seed {options.seed} --count {options.count}")
        return 1

    table = Table("What the histories held", "", title=f"{seen['histories']} histories, no disagreement")
    table.columns[1].justify = "right"
    for what, number in seen.items():
        table.add_row(what, f"{number:,}")
    Console().print(table)
    print(f"{seen['histories']} histories agree (seed {options.seed}, {time.monotonic() - started:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
