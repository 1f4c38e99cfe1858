"""A running stack with the same widgets on both sides, and how long to measure."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import loads
from benchmarks.measure import execute, machine
from benchmarks.pgbench import Load, Pair, side_by_side
from local_stack.stack import Stack

ORIGINAL_SCHEMA = Path(__file__).with_name("original_baseline.sql")
# The document's query, up to its grouping by widget and session.
ORIGINAL_BILL = """
select
  widget_id,
  session_id,
  min(case when event_type = 'call_start' then timestamp end) as start_time,
  max(case when event_type = 'call_end' then timestamp end) as end_time,
  extract(epoch from (
    max(case when event_type = 'call_end' then timestamp end) -
    min(case when event_type = 'call_start' then timestamp end)
  )) as duration_seconds
from original_baseline.widget_analytics
where event_type in ('call_start', 'call_end')"""
# Every event is counted towards quotas that none of the loads fills.
WIDE_QUOTAS = """
update widget_internal.settings
set events_per_widget_per_day = 1e12::bigint, events_per_sender_per_minute = 1e12::bigint
"""
OWNER_ID = "00000000-0000-4000-8000-000000000001"


@dataclass(frozen=True)
class Plan:
    """How long and how often to measure."""

    seconds: float
    rounds: int
    clients: Sequence[int] = (1, 16, 64)
    events: int = 1_000_000
    calls: int = 100_000


@dataclass
class Bench:
    """`say` tells whoever waits what is being done."""

    stack: Stack
    plan: Plan
    say: Callable[[str], object]
    settings: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        self.execute("select cron.unschedule(jobid) from cron.job")  # nothing runs but what is measured
        self.execute(ORIGINAL_SCHEMA.read_text())
        self.execute(WIDE_QUOTAS)
        self.execute("insert into auth.users (id) values (%s)", [OWNER_ID])
        ids = "select ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid from generate_series(1, %s) n"
        self.execute(f"insert into original_baseline.widgets {ids}", [loads.WIDGETS])
        self.execute(
            "insert into public.widgets (id, name, allowed_domains)"
            f" select w.id, 'bench', '{{shop.example}}' from ({ids}) w (id)",
            [loads.WIDGETS],
        )
        # One widget has an owner, who asks for that widget's bill.
        self.execute("update public.widgets set owner_id = %s where id = %s", [OWNER_ID, loads.FIRST_WIDGET])
        self.execute("vacuum analyze original_baseline.widgets")
        self.execute("vacuum analyze public.widgets")

    def execute(self, sql: str, parameters: Sequence[object] | None = None) -> list[tuple[Any, ...]]:
        return execute(self.stack, sql, parameters)

    def number(self, sql: str, parameters: Sequence[object] | None = None) -> float:
        return float(self.execute(sql, parameters)[0][0])

    def empty(self) -> None:
        self.execute(
            "truncate public.widget_analytics, widget_internal.call_states, original_baseline.widget_analytics"
        )

    def check_nothing_was_refused(self) -> None:
        """Raise otherwise: refusing is not what is to be measured."""
        refusals = self.execute("select reason, detail, refusals from public.widget_refusals limit 5")
        if refusals:
            raise RuntimeError(f"events were refused: {refusals}")

    def compare(self, ours: Load, other: Load, *, clients: int) -> Pair:
        """Both from an empty table at each turn."""
        return side_by_side(
            (self.stack, ours),
            (self.stack, other),
            clients=clients,
            seconds=self.plan.seconds,
            rounds=self.plan.rounds,
            before_each=self.empty,
        )


@contextmanager
def running(
    plan: Plan, say: Callable[[str], object] = lambda what: None, settings: Mapping[str, str] | None = None
) -> Iterator[Bench]:
    """`settings`: of the server, beside its own."""
    with Stack(durable=True, gateway=False, settings=settings) as stack:
        yield Bench(stack, plan, say, settings)


def conditions(bench: Bench) -> str:
    """The machine, the server and how it is set: what the absolute figures hold for."""
    settings = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size")
    shown = ", ".join(f"{name} {bench.execute(f'show {name}')[0][0]}" for name in settings)
    version = str(bench.execute("show server_version")[0][0]).split()[0]
    return (
        f"{machine()}, load {os.getloadavg()[0]:.1f} before; PostgreSQL {version} ({shown}). "
        f"{bench.plan.rounds} rounds of {bench.plan.seconds:g} s."
    )
