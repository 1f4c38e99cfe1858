"""What an export of many calls takes: peak memory and time, of the command as a process, on the real stack.

scripts/bench-export --calls 1000000
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import psycopg

from local_stack.places import bare_environment
from local_stack.postgres_server import complete_server
from local_stack.stack import Stack

MONTH_NAME = "2026-10"
MONTH = timedelta(days=31)
START = datetime(2026, 10, 1, tzinfo=UTC)
WIDGETS = 20
#: How rows are read, each with the command's option.
WAYS = {"API": (), "direct": ("--direct",)}


@dataclass(frozen=True)
class Run:
    """What one command took."""

    seconds: float
    peak_megabytes: float


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench-export", description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--formats", nargs="+", default=["csv", "jsonl", "parquet"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="over the API, or --direct")
    options = parser.parse_args(arguments)

    with Stack(durable=False) as stack, tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        make_calls(stack, options.calls)
        print(f"{options.calls:,} calls of {WIDGETS} widgets in a month, written in {time.monotonic() - began:.0f} s")
        print(f"{'way':6} {'format':8} {'file':>9} {'time':>8} {'calls/s':>8} {'peak memory':>12}", flush=True)
        for way, name in product(options.ways, options.formats):
            file = Path(folder, f"calls.{name}")
            took = measured_export(stack, file, "--format", name, *WAYS[way])
            print(
                f"{way:6} {name:8} {file.stat().st_size / 1e6:6.0f} MB {took.seconds:6.1f} s"
                f" {options.calls / took.seconds:8,.0f} {took.peak_megabytes:9.0f} MB",
                flush=True,
            )
            file.unlink()
    return 0


def make_calls(stack: Stack, calls: int) -> None:
    """Make calls of two minutes, spread evenly over the month, each in a session of its own.

    The triggers that join events to calls rest meanwhile: all calls are rebuilt at the end.
    """
    with psycopg.connect(stack.database_url, autocommit=True) as db:
        db.execute(
            "create temp table made as"
            " select w.widget_id, n, 'session-' || lpad(n::text, 8, '0') as session_id,"
            "   'call-' || lpad(n::text, 8, '0') as call_id, %s + n * %s::interval as started_at"
            " from generate_series(0, %s - 1) n join ("
            "   select row_number() over () - 1 as place, gen_random_uuid() as widget_id from generate_series(1, %s)"
            " ) w on w.place = n %% %s",
            [START, MONTH / calls, calls, WIDGETS, WIDGETS],
        )
        db.execute(
            "insert into public.widgets (id, name) select distinct on (widget_id) widget_id, 'Widget ' || n from made"
        )
        db.execute("alter table public.widget_analytics disable trigger user")
        db.execute(
            "insert into public.widget_analytics"
            " (id, widget_id, event_type, session_id, call_id, timestamp, received_at)"
            " select gen_random_uuid(), m.widget_id, e.event_type, m.session_id, m.call_id, m.started_at + e.after,"
            "   m.started_at + e.after"
            " from made m, (values ('call_start', interval '0'), ('call_end', '2 minutes')) e (event_type, after)"
        )
        db.execute("alter table public.widget_analytics enable trigger user")
        db.execute("select widget_internal.rebuild_calls()")
        db.execute("vacuum analyze public.widget_analytics, widget_internal.call_states")


def beside_copy(calls: int, rounds: int) -> Iterator[tuple[str, str, list[Run], list[float]]]:
    """Each way's and format's exports, and after each the seconds in which psql copies the same rows to a CSV file.

    Over the API once: it takes long enough.
    """
    with Stack(durable=True) as stack, tempfile.TemporaryDirectory() as folder:
        make_calls(stack, calls)
        copied(stack, Path(folder, "copy.csv"))
        for way, name in product(WAYS, ("csv", "parquet")):
            runs, copies = list[Run](), list[float]()
            for _ in range(rounds if way == "direct" else 1):
                runs.append(measured_export(stack, Path(folder, f"calls.{name}"), "--format", name, *WAYS[way]))
                copies.append(copied(stack, Path(folder, "copy.csv")))
            yield way, name, runs, copies


def copied(stack: Stack, file: Path) -> float:
    server = complete_server()
    assert server is not None
    month = f"'{START.isoformat()}', '{(START + MONTH).isoformat()}'"
    command = f"\\copy (select * from public.widget_billing_calls({month})) to '{file}' with (format csv, header)"
    began = time.monotonic()
    subprocess.run(
        [server.bin / "psql", "--no-psqlrc", "--quiet", stack.database_url, "--command", command],
        check=True,
        env=bare_environment(),
    )
    return time.monotonic() - began


def measured_export(stack: Stack, file: Path, *options: str) -> Run:
    """Export the month's calls and say what it took."""
    command = [sys.executable, "-m", "widget_analytics", "export", "--month", MONTH_NAME, "--detail", "calls"]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    began = time.monotonic()
    process = subprocess.Popen(
        [*command, "--output", str(file), *options],
        env=environment
        | {"SUPABASE_URL": stack.api_url, "SUPABASE_SECRET_KEY": stack.secret_key}
        | {"SUPABASE_DB_URL": stack.database_url},
        cwd=file.parent,
        stderr=subprocess.PIPE,
    )
    # This child's own peak: that of all children together would hide it behind a larger one.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stderr is not None
    with process.stderr as said:
        if process.returncode:
            raise RuntimeError(said.read().decode())
    kilobytes = usage.ru_maxrss / 1024 if sys.platform == "darwin" else usage.ru_maxrss
    return Run(seconds=time.monotonic() - began, peak_megabytes=kilobytes * 1024 / 1e6)


if __name__ == "__main__":
    sys.exit(main())
