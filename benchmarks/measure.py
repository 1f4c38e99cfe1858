"""How everything here is timed: in turns, by the clock, and by the processor time of a process."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psutil import NoSuchProcess, Process

from local_stack.places import bare_environment
from local_stack.stack import Stack

T = TypeVar("T")


def take_turns(*works: Callable[[], T], rounds: int) -> list[list[T]]:
    """What each gave, in turns A B B A A B …, so that what changes on the machine meanwhile meets all alike."""
    given: list[list[T]] = [[] for _ in works]
    for number in range(rounds):
        turns = list(zip(works, given, strict=True))
        for work, results in turns if number % 2 == 0 else reversed(turns):
            results.append(work())
    return given


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@dataclass(frozen=True)
class Run:
    """What one command took."""

    seconds: float
    processor_seconds: float
    server_seconds: float  # of processor time, in the database
    peak_megabytes: float


def command(stack: Stack, *arguments: str) -> Run:
    """Run `widget-analytics` as a process of its own, against a stack."""
    before, began = cpu_seconds(stack), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "widget_analytics", *arguments],
        env=bare_environment(
            SUPABASE_URL=stack.api_url, SUPABASE_SECRET_KEY=stack.secret_key, SUPABASE_DB_URL=stack.database_url
        ),
        cwd=stack.directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    # This child's own peak: that of all children together would hide it behind a larger one.
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stderr is not None
    with process.stderr as said:
        if process.returncode:
            raise RuntimeError(said.read().decode())
    return Run(
        seconds=seconds,
        processor_seconds=usage.ru_utime + usage.ru_stime,
        server_seconds=cpu_seconds(stack) - before,
        peak_megabytes=usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6,
    )


def execute(stack: Stack, sql: str, parameters: Sequence[object] | None = None) -> list[tuple[Any, ...]]:
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        cursor = connection.execute(sql.encode(), parameters)
        return cursor.fetchall() if cursor.description else []


def processor_seconds(stack: Stack, others: Mapping[str, int]) -> dict[str, float]:
    """What the database has taken so far, and each other process, by its name."""
    return {"database": cpu_seconds(stack)} | {part: sum(Process(pid).cpu_times()[:2]) for part, pid in others.items()}


def cpu_seconds(stack: Stack) -> float:
    """What the server's processes have taken: those that live, and those that have ended."""
    server = Process(stack.database.pid)
    while True:
        living = server.children()
        with suppress(NoSuchProcess):
            taken = [process.cpu_times() for process in (server, *living)]
            # One that ended meanwhile would be counted twice, or not at all.
            if server.children() == living:
                ended = taken[0].children_user + taken[0].children_system
                return float(ended + sum(times.user + times.system for times in taken))


def machine() -> str:
    """Cores and memory of this machine."""
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{os.cpu_count()} cores, {gigabytes:.0f} GB"
