"""Bad input over HTTP, and queries as every tenant, many of them: `scripts/fuzz --help`."""

import argparse
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from local_stack.stack import Stack
from tests.fuzz.senders import fuzz, nothing_else_changes
from tests.fuzz.stage import stage

# A process plays so many and comes back: so the whole run is told by its seed, whatever the number of processes.
LOT = 500

Target = TypeVar("Target")
Told = TypeVar("Told")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz", description="Sends made-up requests over HTTP and checks that nothing breaks."
    )
    any_seed = random.SystemRandom().randrange(1_000_000)
    jobs = max(2, os.cpu_count() or 1)
    parser.add_argument("--count", type=int, default=100_000, help="how many (100000)")
    parser.add_argument("--seed", type=int, default=any_seed, help="which; random if left out")
    parser.add_argument("--jobs", type=int, default=jobs, help=f"how many processes ({jobs}); changes nothing sent")
    options = parser.parse_args()

    print(f"seed {options.seed}, count {options.count}", flush=True)
    started = time.monotonic()
    try:
        seen = _bad_input(options.count, options.seed, options.jobs)
    except AssertionError as error:
        print(f"\n{error}\n{''.join(getattr(error, '__notes__', []))}")
        print(f"The whole run again: scripts/fuzz --seed {options.seed} --count {options.count}")
        return 1

    table = Table("what the answers were", "")
    table.columns[1].justify = "right"
    for what, number in sorted(seen.items()):
        table.add_row(what, f"{number:,}")
    Console().print(table)
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"Nothing broke (seed {options.seed}, {minutes} min {seconds} s).")
    return 0


def _bad_input(count: int, seed: int, jobs: int) -> Counter[str]:
    with Stack(durable=False) as stack, stage(stack) as at:
        at.db.execute("select cron.unschedule(jobid) from cron.job")
        seen: Counter[str] = Counter()
        accepted = 0
        with nothing_else_changes(at.db):
            for told, stored in _lots(fuzz, at.target, count=count, seed=seed, jobs=jobs):
                seen += told
                accepted += stored
            stack.check()
            assert at.stored() == accepted, f"{accepted} events were said to be stored, {at.stored()} are"
        seen["rows stored, each one acknowledged, and no other"] = accepted
        seen["server errors"] = seen["rows that break a constraint"] = seen["transactions left open"] = 0
        return seen


def _lots(play: Callable[..., Told], target: Target, *, count: int, seed: int, jobs: int) -> Iterator[Told]:
    """Plays all lots in processes of their own; the first failure ends it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        # Not forked: a process must not share its parent's threads and connections.
        ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool,
        Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress,
    ):
        task = progress.add_task("sent", total=count)
        lots = {
            pool.submit(play, target, count=min(LOT, count - done), seed=seed + done): min(LOT, count - done)
            for done in range(0, count, LOT)
        }
        try:
            for lot in as_completed(lots):
                yield lot.result()
                progress.advance(task, lots[lot])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


if __name__ == "__main__":
    sys.exit(main())
