"""What an export of a month of calls takes, by the command, beside psql that copies the same rows to a CSV file."""

import subprocess
import tempfile
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from statistics import median

import psycopg

from benchmarks.bench import Plan
from benchmarks.findings import Finding, at_least, figure, spread
from benchmarks.measure import command, seconds_of
from local_stack.places import bare_environment
from local_stack.postgres_server import complete_server
from local_stack.stack import Stack

MONTH_NAME = "2026-10"
MONTH = timedelta(days=31)
START = datetime(2026, 10, 1, tzinfo=UTC)
WIDGETS = 20


def measure(plan: Plan) -> Generator[Finding, None, None]:
    """Over the API once: it takes long enough."""
    with Stack(durable=True) as stack, tempfile.TemporaryDirectory() as folder:
        make_calls(stack, plan.calls)
        copy = Path(folder, "copy.csv")
        _copy(stack, copy)
        for way, name in product(("over the API", "`--direct`"), ("csv", "parquet")):
            is_direct = way == "`--direct`"
            options = ["--month", MONTH_NAME, "--detail", "calls", "--format", name, *["--direct"] * is_direct]
            runs, copies = [], []
            for _ in range(plan.rounds if is_direct else 1):
                runs.append(command(stack, "export", *options, "--output", str(Path(folder, f"calls.{name}"))))
                copies.append(seconds_of(lambda: _copy(stack, copy)))
            ratios = [copied / run.seconds for run, copied in zip(runs, copies, strict=True)]
            yield Finding(
                f"export of {plan.calls:,} calls to {name}, {way}: {figure(median(run.seconds for run in runs))} s,"
                f" {max(run.peak_megabytes for run in runs):.0f} MB at its peak",
                f"`\\copy` of the same rows: {figure(median(copies))} s",
                spread(ratios),
                *(at_least(ratios, 0.5) if is_direct else ("–", None)),
            )


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


def _copy(stack: Stack, file: Path) -> None:
    server = complete_server()
    assert server is not None
    month = f"'{START.isoformat()}', '{(START + MONTH).isoformat()}'"
    copy = f"\\copy (select * from public.widget_billing_calls({month})) to '{file}' with (format csv, header)"
    subprocess.run(
        [server.bin / "psql", "--no-psqlrc", "--quiet", stack.database_url, "--command", copy],
        check=True,
        env=bare_environment(),
    )
