"""Breaks things at length, on a stack of its own: `scripts/torture --help`."""

import argparse
import os
import random
import time
from collections.abc import Iterable, Iterator
from statistics import median
from typing import TypeVar

import psycopg
from playwright.sync_api import sync_playwright
from psycopg.rows import dict_row
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from local_stack.browsers.chromium import launch
from local_stack.stack import Stack
from tests.torture.crashes import crashes
from tests.torture.crowds import WRITERS, crowds
from tests.torture.disks import full_disk, full_wal
from tests.torture.floods import EVENTS_PER_SECOND, TIMES, Flood, flood
from tests.torture.outages import TROUBLES, outage
from tests.torture.schedules import compare
from tests.torture.storms import killed_cleanups, storms

STORMS_A_ROUND = 50
FLOOD_SECONDS = 30
TORTURES = ("crashes", "storms", "crowds", "killed cleanups", "schedule", "outages", "full disk", "full wal", "flood")

Row = tuple[str, str, str]
T = TypeVar("T")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/torture",
        description="Breaks things and checks that nothing acknowledged is lost or counted twice.",
    )
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(1_000_000), help="random if left out"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=20,
        help=f"crashes and killed cleanups; storms are {STORMS_A_ROUND} times as many, floods a quarter",
    )
    parser.add_argument("--outage", type=float, default=60, metavar="SECONDS", help="how long each outage lasts")
    parser.add_argument("--only", choices=TORTURES, action="append", help="may be given several times")
    options = parser.parse_args()

    chosen = options.only or list(TORTURES)
    print(f"seed {options.seed}, {options.rounds} rounds, outages of {options.outage:g} s", flush=True)
    console = Console()
    table = Table("broken", "figure", "")
    table.columns[2].justify = "right"
    with Progress(console=Console(stderr=True)) as progress:
        for torture in chosen:
            began = time.monotonic()
            with Stack(jobs=False) as stack:
                rows = list(_run(torture, stack, options, progress))
            rows.append((torture, "took", f"{time.monotonic() - began:.0f} s"))
            for row in rows:
                table.add_row(*row)
            table.add_section()
    console.print(table)
    print(f"Everything held (seed {options.seed}).")
    return 0


def _run(torture: str, stack: Stack, options: argparse.Namespace, progress: Progress) -> Iterator[Row]:
    seed, rounds = options.seed, options.rounds
    match torture:
        case "crashes":
            seen = list(_counted(progress, torture, crashes(stack, rounds=rounds, seed=seed), rounds))
            yield from [
                ("kill -9 of Postgres, 8 clients", "times", f"{len(seen)}"),
                ("", "events acknowledged", f"{sum(crash.acknowledged for crash in seen):,}"),
                ("", "of them lost, or there twice", "0"),
                ("", "without an answer at the kill", f"{sum(crash.in_doubt for crash in seen)}"),
                ("", "of them stored all the same", f"{sum(crash.in_doubt_stored for crash in seen)}"),
                ("", "calls that the next cleanup completed", f"{sum(crash.completed for crash in seen)}"),
                ("", "ready again after, at most", f"{max(crash.ready_after for crash in seen):.1f} s"),
            ]
        case "storms":
            rounds *= STORMS_A_ROUND
            *_, storm = _counted(progress, torture, storms(stack, rounds=rounds, seed=seed), rounds)
            yield from [
                ("8 cleanups against late ends", "rounds", f"{storm.rounds:,}"),
                ("", "calls", f"{storm.calls:,}"),
                ("", "inferred ends", f"{storm.inferred:,}"),
                ("", "overtaken by the real end, which bills", f"{storm.overtaken:,}"),
                ("", "calls with two inferred ends", "0"),
            ]
        case "crowds":
            *_, crowd = _counted(progress, torture, crowds(stack, rounds=rounds, seed=seed), rounds)
            yield from [
                (f"{WRITERS} writers on the same few calls", "rounds", f"{crowd.rounds:,}"),
                ("", "events", f"{crowd.events:,}"),
                ("", "sent a second time", f"{crowd.sent_twice:,}"),
                ("", "corrections meanwhile", f"{crowd.corrections:,}"),
                ("", "inferred ends", f"{crowd.inferred:,}"),
                ("", "calls", f"{crowd.calls:,}"),
                ("", "of them unlike those of one writer in order", "0"),
                ("", "deadlocks", "0"),
            ]
        case "killed cleanups":
            seen_kills = list(_counted(progress, torture, killed_cleanups(stack, rounds=rounds), rounds))
            yield "a cleanup killed half-way", "times", f"{len(seen_kills)}"
            yield "", "left a part of its work", "0"
        case "schedule":
            task = progress.add_task(torture, total=1)
            with psycopg.connect(stack.superuser_url, autocommit=True, row_factory=dict_row) as platform:
                week = compare(platform, seed=seed, calls=10 * rounds)
            progress.advance(task)
            yield "seven days without pg_cron", "calls", f"{week.calls}"
            yield "", "runs on time, and instead of them one", f"{week.runs}"
            yield "", "inferred ends, on time and at once", f"{week.inferred_on_time}, {week.inferred_at_once}"
            yield "", "calls billed otherwise", "0"
        case "outages":
            task = progress.add_task(torture, total=len(TROUBLES))
            with sync_playwright() as playwright, launch(playwright) as browser:
                for kind in TROUBLES:
                    met = outage(stack, kind, seconds=options.outage, seed=seed, browser=browser)
                    progress.advance(task)
                    yield f"{kind} for {met.seconds:g} s", "events delivered, each once", f"{met.events:,}"
                    yield "", "requests sent again", f"{met.sent_again:,}"
                    yield "", "all there after", f"{met.caught_up_after:.0f} s"
        case "full disk":
            if os.geteuid() != 0:
                yield "a full disk", "left out: mounting one needs root", ""
                return
            disk = full_disk(stack)
            yield "a full disk", "answer", f"HTTP {disk.status}, {disk.code}"
            yield "", f"of the {disk.refused} events refused half-written", "0"
        case "full wal":
            if os.geteuid() != 0:
                yield "a disk full of WAL", "left out: mounting one needs root", ""
                return
            wal = full_wal(stack)
            yield "a disk full of WAL", "events acknowledged before and after", f"{wal.acknowledged:,}"
            yield "", "of them lost", "0"
            for answer, times in wal.answers.most_common():
                yield "", f"meanwhile answered {answer}", f"{times}"
            yield "", "stored without an acknowledgement, in whole batches", f"{wal.in_doubt_stored}"
            given_up = "never" if wal.ended_after is None else f"{wal.ended_after:.1f} s"
            yield "", "Postgres ended by itself after", given_up
            yield "", "started again without room, it", "ran" if wal.started_full else "ended again"
            yield "", "with room: the next event acknowledged after", f"{wal.ready_after:.1f} s"
        case "flood":
            count = max(rounds // 4, 1)
            quota = FLOOD_SECONDS * EVENTS_PER_SECOND * TIMES // 2
            floods = flood(stack, rounds=count, seconds=FLOOD_SECONDS, quota=quota, seed=seed)
            met_flood = Flood(list(_counted(progress, torture, floods, count)), quota)
            met_flood.check()
            quiet, during, ratios = met_flood.quiet, met_flood.during, met_flood.ratios
            yield "a flood of one widget, ten times its neighbours'", "rounds", f"{count} of 2 × {FLOOD_SECONDS} s"
            yield "", "neighbours' events, quiet and flooded", f"{len(quiet.seconds):,}, {len(during.seconds):,}"
            yield "", "of them taken", f"{quiet.acceptance:.2%}, {during.acceptance:.2%}"
            yield (
                "",
                "half answered within",
                f"{median(quiet.seconds) * 1e3:.0f} ms, {median(during.seconds) * 1e3:.0f} ms",
            )
            yield "", "99 of 100 answered within", f"{quiet.p99 * 1e3:.0f} ms, {during.p99 * 1e3:.0f} ms"
            yield "", "p99 of a round grew by", f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            yield "", "stored of the flood, of its quotas", f"{met_flood.stored:,}, {quota * count:,}"
            met_flood.check_times()


def _counted(progress: Progress, what: str, steps: Iterable[T], total: int) -> Iterator[T]:
    yield from progress.track(steps, total=total, description=what)


if __name__ == "__main__":
    raise SystemExit(main())
