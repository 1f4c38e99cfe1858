"""Bad input over HTTP, and statements as every tenant, many of them: `scripts/fuzz --help`."""

import argparse
import multiprocessing
import os
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from math import inf

import psycopg
from psycopg.rows import dict_row
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from local_stack.stack import Stack
from tests.fuzz.senders import Target, fuzz, nothing_else_changes, reach_the_limits
from tests.fuzz.stage import stage
from tests.fuzz.tenants import roam
from tests.fuzz.world import make_world

# A process plays so many and comes back: so the whole run is told by its seed, whatever the number of processes.
LOT = 1000


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description="Sends made-up requests over HTTP and checks that nothing breaks; or, with --tenants, asks made-up "
        "statements as every role and checks that none is told, or changes, what is another owner's.",
    )
    any_seed = random.SystemRandom().randrange(1_000_000)
    jobs = max(2, os.cpu_count() or 1)
    parser.add_argument("--tenants", action="store_true", help="statements as every role instead of bad input")
    parser.add_argument("--count", type=int, help="how many (100000; 10000 with --tenants)")
    parser.add_argument("--seed", type=int, default=any_seed, help="which; random if left out")
    parser.add_argument("--jobs", type=int, default=jobs, help=f"how many processes ({jobs}); changes nothing sent")
    parser.add_argument(
        "--minutes", type=float, default=inf, help="stops early after so many, and says how many it were"
    )
    options = parser.parse_args()
    count = options.count or (10_000 if options.tenants else 100_000)

    print(f"seed {options.seed}, count {count}", flush=True)
    started = time.monotonic()
    ends_at = started + options.minutes * 60
    try:
        if options.tenants:
            seen = _tenants(count, options.seed, ends_at)
        else:
            seen = _bad_input(count, options.seed, options.jobs, ends_at)
    except Exception as error:
        print("".join(traceback.format_exception(error)))
        which = "--tenants " if options.tenants else ""
        print(f"The whole run again: scripts/fuzz {which}--seed {options.seed} --count {count}")
        return 1

    table = Table("what came of it", "")
    table.columns[1].justify = "right"
    for what, number in sorted(seen.items()):
        table.add_row(what, f"{number:,}")
    Console().print(table)
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"Nothing broke (seed {options.seed}, {minutes} min {seconds} s).")
    return 0


def _bad_input(count: int, seed: int, jobs: int, ends_at: float) -> Counter[str]:
    with Stack(durable=False, jobs=False) as stack, stage(stack) as at:
        at.db.execute("select cron.unschedule(jobid) from cron.job")
        with nothing_else_changes(at.db):
            seen, accepted = reach_the_limits(at.target)
            for told, stored in _lots(at.target, count=count, seed=seed, jobs=jobs, ends_at=ends_at):
                seen += told
                accepted += stored
            stack.check()
            assert at.stored() == accepted, f"{accepted} events were said to be stored, {at.stored()} are"
        seen["rows stored, each one acknowledged, and no other"] = accepted
        seen["server errors"] = seen["rows that break a constraint"] = seen["transactions left open"] = 0
        return seen


def _lots(target: Target, *, count: int, seed: int, jobs: int, ends_at: float) -> Iterator[tuple[Counter[str], int]]:
    """Plays all lots in processes of their own; the first failure ends it, and so does the end of the time."""
    with (
        # Not forked: a process must not share its parent's threads and connections.
        ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool,
        _progress() as progress,
    ):
        task = progress.add_task("sent", total=count)
        lots = {
            pool.submit(fuzz, target, count=min(LOT, count - done), seed=seed + done): min(LOT, count - done)
            for done in range(0, count, LOT)
        }
        try:
            for lot in as_completed(lots):
                if lot.cancelled():
                    continue
                yield lot.result()
                progress.advance(task, lots[lot])
                if time.monotonic() > ends_at:
                    # Those that have begun are waited for: what they store has to be counted.
                    for waiting in lots:
                        waiting.cancel()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _tenants(count: int, seed: int, ends_at: float) -> Counter[str]:
    with (
        Stack(durable=False, jobs=False, gateway=False) as stack,
        psycopg.connect(stack.superuser_url, autocommit=True, row_factory=dict_row) as db,
        _progress() as progress,
    ):
        db.execute("select cron.unschedule(jobid) from cron.job")
        world = make_world(db)
        task = progress.add_task("asked", total=count)
        seen: Counter[str] = Counter()
        for done in range(0, count, LOT):
            lot = min(LOT, count - done)
            seen += roam(db, world, count=lot, seed=seed + done, on_progress=lambda: progress.advance(task))
            if time.monotonic() > ends_at:
                break
        seen["told, or changed, of another owner's"] = 0
        return seen


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))


if __name__ == "__main__":
    sys.exit(main())
