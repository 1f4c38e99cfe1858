"""Loads that pgbench plays against a database, two and two side by side."""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import urlsplit

import psycopg

from benchmarks.measure import take_turns
from local_stack.places import bare_environment
from local_stack.postgres_server import complete_server
from local_stack.stack import Stack

LOGIN = "authenticator"
THREADS = 2


@dataclass(frozen=True)
class Load:
    """What each connection does again and again, and as whom. Its script finds the time of its start in `:ms`.

    `settings` are made once for each connection; the gateway makes them for each request, and that is in no figure
    here but those over HTTP.
    """

    name: str
    script: str
    role: str
    settings: Mapping[str, str] = field(default_factory=dict)
    # How many events one run through the script adds.
    events: int = 1


@dataclass(frozen=True)
class Run:
    """What one load achieved in some seconds."""

    events_per_second: float
    p95_milliseconds: float
    wal_bytes_per_event: float
    events: int


@dataclass(frozen=True)
class Pair:
    """Two loads that took turns."""

    ours: list[Run]
    other: list[Run]

    def rate_ratios(self) -> list[float]:
        return [a.events_per_second / b.events_per_second for a, b in zip(self.ours, self.other, strict=True)]

    def p95_ratios(self) -> list[float]:
        return [a.p95_milliseconds / b.p95_milliseconds for a, b in zip(self.ours, self.other, strict=True)]

    def wal_ratios(self) -> list[float]:
        return [b.wal_bytes_per_event / a.wal_bytes_per_event for a, b in zip(self.ours, self.other, strict=True)]


def events_per_second(runs: list[Run]) -> float:
    return median(run.events_per_second for run in runs)


def p95(runs: list[Run]) -> float:
    return median(run.p95_milliseconds for run in runs)


def wal_per_event(runs: list[Run]) -> float:
    return median(run.wal_bytes_per_event for run in runs)


def side_by_side(
    ours: tuple[Stack, Load],
    other: tuple[Stack, Load],
    *,
    clients: int,
    seconds: float,
    rounds: int,
    before_each: Callable[[], None] = lambda: None,
) -> Pair:
    """Play both in turns."""

    def turn(stack: Stack, load: Load) -> Run:
        before_each()
        return play(stack, load, clients=clients, seconds=seconds)

    return Pair(*take_turns(partial(turn, *ours), partial(turn, *other), rounds=rounds))


def play(stack: Stack, load: Load, *, clients: int, seconds: float) -> Run:
    """Play a load, after a checkpoint: a third of the time to get going, which is not counted, then `seconds`.

    Connections are kept long in production, and what the first calls in one cost is not the question. A page goes into
    the WAL as a whole when it is first touched after a checkpoint. So what is counted is the WAL between two
    checkpoints: with these pages where each event touches others, without where all fill the same.
    """
    warm_up = round(seconds / 3)
    with (
        psycopg.connect(stack.superuser_url, autocommit=True) as connection,
        tempfile.TemporaryDirectory() as folder,
    ):
        script = Path(folder, "script.sql")
        script.write_text(load.script)
        connection.execute("checkpoint")
        since, wal = time.time(), _wal_position(connection)
        process = _start_pgbench(
            stack, load, "--file", str(script), "--time", str(warm_up + max(1, round(seconds))),
            "--client", str(clients), "--jobs", str(min(THREADS, clients)), "--protocol", "prepared",
            "--no-vacuum", "--log", "--log-prefix", str(Path(folder, "log")),
        )  # fmt: skip
        with process:
            if warm_up:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(warm_up)
                since, wal = time.time(), _wal_position(connection)
            said = process.communicate()[0]
        wal = _wal_position(connection) - wal
        if process.returncode != 0 or "aborted" in said:
            raise RuntimeError(f"pgbench failed at {load.name}\n{said}")
        ends, microseconds = _read_logs(Path(folder), since)
    events = len(ends) * load.events
    return Run(
        # Up to the last end: the last second is not always a whole one.
        events_per_second=events / (max(ends) - since),
        p95_milliseconds=quantiles(microseconds, n=20)[-1] / 1000,
        wal_bytes_per_event=wal / events,
        events=events,
    )


def _wal_position(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    row = connection.execute("select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint").fetchone()
    assert row is not None
    assert isinstance(row[0], int)
    return row[0]


def _start_pgbench(stack: Stack, load: Load, *arguments: str) -> subprocess.Popen[str]:
    server = complete_server()
    assert server is not None
    url = urlsplit(stack.database.url_of(LOGIN))
    settings = {"role": load.role} | dict(load.settings)
    environment = bare_environment(
        PGHOST=str(url.hostname),
        PGPORT=str(url.port),
        PGUSER=LOGIN,
        PGSSLMODE="disable",
        PGOPTIONS=" ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items()),
    )
    return subprocess.Popen(
        [server.bin / "pgbench", *arguments, f"--define=ms={time.time() * 1000:.0f}", url.path.removeprefix("/")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _escaped(value: str) -> str:
    """As the server's option parser wants it: white space and backslashes escaped."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def _read_logs(folder: Path, since: float) -> tuple[list[float], list[int]]:
    """Of the transactions that ended since then: when, and how many microseconds each took."""
    ends, microseconds = [], []
    for log in folder.glob("log.*"):
        for line in log.read_text().splitlines():
            # client, number, microseconds, script, and the end's second and microsecond.
            fields = line.split()
            end = int(fields[4]) + int(fields[5]) / 1e6
            if end >= since:
                microseconds.append(int(fields[2]))
                ends.append(end)
    if len(ends) < 2:
        raise RuntimeError("too few transactions to say anything: measure for longer")
    return ends, microseconds


def request_settings(headers: Mapping[str, str]) -> dict[str, str]:
    """What the gateway tells the database of a request of the anonymous role."""
    return {
        "request.headers": json.dumps(headers, separators=(",", ":")),
        "request.jwt.claims": '{"role":"anon"}',
        "request.method": "POST",
    }
