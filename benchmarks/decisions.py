"""Designs of the ledger, each with its price: the real table, and variants of it. `scripts/bench-decisions`.

Each variant is made from the real table's own definition, in a schema of its own. What is measured is the storage
alone: no door, no triggers. A session is five inserts, each in a transaction of its own: load, open, start, heartbeat
and end of a call. Each variant takes turns with the table as it is.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import median

import psycopg

from benchmarks import loads
from benchmarks.bench import Bench, Plan, conditions, running, seconds_of
from benchmarks.findings import figure, spread
from benchmarks.history import Texts, fill_table
from benchmarks.pgbench import Load, Pair, side_by_side, wal_per_event

AS_IT_IS = "as_it_is"
PARTITIONS = 24
_SESSION = ("widget_load", "widget_open", "call_start", "call_heartbeat", "call_end")
_HEAD = (
    "| variant | inserts per second, as it is = 1 | processor time, as it is = 1 | WAL per event | bytes per event"
    " | a session's call events | a widget's latest 50 |\n|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Variant:
    """`change` gets the schema with a copy of the ledger in it, foreign keys too."""

    schema: str
    title: str
    change: Callable[[Bench, str], object]
    widgets: str = loads.ANY_WIDGET
    # Where page_url and user_agent are.
    texts: Texts = "first event"


def as_it_is(bench: Bench, schema: str) -> None:
    """The copy is that already."""


def toggle_foreign_key(bench: Bench, schema: str) -> None:
    keys = bench.execute(
        "select conname from pg_constraint where conrelid = %s::regclass and contype = 'f'", [f"{schema}.ledger"]
    )
    for (name,) in keys:
        bench.execute(f'alter table {schema}.ledger drop constraint "{name}"')
    if not keys:
        bench.execute(f"alter table {schema}.ledger add foreign key (widget_id) references public.widgets (id)")


def drop_session_index(bench: Bench, schema: str) -> None:
    _drop_index(bench, schema, "session_id")


def whole_session_index(bench: Bench, schema: str) -> None:
    _drop_index(bench, schema, "session_id")
    bench.execute(f"create index on {schema}.ledger (widget_id, session_id)")


def brin_for_time(bench: Bench, schema: str) -> None:
    _drop_index(bench, schema, '"timestamp"')
    bench.execute(f'create index on {schema}.ledger using brin (widget_id, "timestamp")')


def lz4(bench: Bench, schema: str) -> None:
    for column in ("page_url", "user_agent", "properties"):
        bench.execute(f"alter table {schema}.ledger alter column {column} set compression lz4")


def check_constraints(bench: Bench, schema: str) -> None:
    """The checks of the columns' domains as constraints of the table."""
    domains = bench.execute(
        "select a.attname, format_type(t.typbasetype, t.typtypmod), t.oid"
        " from pg_attribute a join pg_type t on t.oid = a.atttypid"
        " where a.attrelid = %s::regclass and a.attnum > 0 and t.typtype = 'd'",
        [f"{schema}.ledger"],
    )
    for column, base, domain in domains:
        collation = ' collate "C"' if base == "text" else ""
        bench.execute(f'alter table {schema}.ledger alter column "{column}" type {base}{collation}')
        checks = bench.execute("select pg_get_constraintdef(oid) from pg_constraint where contypid = %s", [domain])
        for (check,) in checks:
            definition = str(check).replace("VALUE", f'"{column}"')
            bench.execute(f"alter table {schema}.ledger add {definition}")


def side_table(bench: Bench, schema: str) -> None:
    bench.execute(
        f'create table {schema}.sessions (widget_id uuid, session_id text collate "C", page_url text, user_agent text,'
        " primary key (widget_id, session_id))"
    )
    bench.execute(f"grant insert on {schema}.sessions to service_role")


def monthly_partitions(bench: Bench, schema: str) -> None:
    """By the time in the key, as only what contains the key can be unique over all partitions (R1)."""
    indexes = bench.execute(
        "select replace(pg_get_indexdef(i.indexrelid), 'ledger_', 'part_') from pg_index i"
        " where i.indrelid = %s::regclass and not i.indisprimary",
        [f"{schema}.ledger"],
    )
    keys = _foreign_keys(bench)
    bench.execute(f"drop table {schema}.ledger")
    bench.execute(
        f"create table {schema}.ledger (like public.widget_analytics including defaults including constraints,"
        " primary key (id, widget_id)) partition by range (id)"
    )
    for (definition,) in indexes:
        bench.execute(str(definition))
    for definition in keys:
        bench.execute(f"alter table {schema}.ledger add {definition}")
    bench.execute(f"create table {schema}.ledger_other partition of {schema}.ledger default")
    bounds = bench.execute(
        "select rpad('0' || to_hex((extract(epoch from m) * 1000)::bigint), 32, '0')::uuid::text"
        " from generate_series(-%s, 2) n, date_trunc('month', now() + n * interval '1 month') m",
        [PARTITIONS - 2],
    )
    for number, ((start,), (end,)) in enumerate(pairwise(bounds)):
        part = f"{schema}.ledger_{number} partition of {schema}.ledger"
        bench.execute(f"create table {part} for values from ('{start}') to ('{end}')")


VARIANTS = (
    Variant("itself", "as it is, against itself: what is noise", as_it_is),
    Variant("foreign_key", "without (or with) the foreign key to `widgets`", toggle_foreign_key),
    Variant("one_widget", "as it is, all on one widget", as_it_is, widgets=loads.ONE_WIDGET),
    Variant(
        "one_widget_foreign_key",
        "without (or with) the foreign key, all on one widget",
        toggle_foreign_key,
        widgets=loads.ONE_WIDGET,
    ),
    Variant("no_session_index", "without the index on sessions", drop_session_index),
    Variant("whole_session_index", "with it over all events, not call events alone", whole_session_index),
    Variant("brin", "BRIN for `(widget_id, timestamp)`", brin_for_time),
    Variant("checks", "check constraints in place of domains", check_constraints),
    Variant("partitions", f"partitioned by month of the key, {PARTITIONS} months", monthly_partitions),
    Variant("every_row", "page and browser on every event", as_it_is, texts="every event"),
    Variant("side_table", "page and browser in a table of sessions", side_table, texts="side table"),
    Variant("lz4", "texts compressed with lz4", lz4),
)


def measure(bench: Bench, variants: Sequence[Variant], rows: int) -> Iterator[str]:
    """One line of the table for each variant."""
    base = _make(bench, Variant(AS_IT_IS, "as it is", as_it_is))
    yield _line(bench, Variant(AS_IT_IS, "as it is", as_it_is), None, rows)
    for variant in variants:
        own = _make(bench, variant)

        def empty(schemas: Sequence[str] = (AS_IT_IS, variant.schema)) -> None:
            tables = bench.execute(
                "select string_agg(c.oid::regclass::text, ', ') from pg_class c"
                " where c.relnamespace::regnamespace::text = any (%s) and c.relkind in ('r', 'p')",
                [list(schemas)],
            )
            bench.execute(f"truncate {tables[0][0]}")

        pair = side_by_side(
            (bench.stack, own),
            (bench.stack, base),
            clients=16,
            seconds=bench.plan.seconds,
            rounds=bench.plan.rounds,
            before_each=empty,
        )
        empty()
        yield _line(bench, variant, pair, rows)
        bench.execute(f"drop schema {variant.schema} cascade")


def _make(bench: Bench, variant: Variant) -> Load:
    """The variant's schema, and the load that fills it."""
    schema = variant.schema
    bench.execute(f"create schema {schema}")
    bench.execute(f"create table {schema}.ledger (like public.widget_analytics including all)")
    for definition in _foreign_keys(bench):
        bench.execute(f"alter table {schema}.ledger add {definition}")
    variant.change(bench, schema)
    bench.execute(f"grant usage on schema {schema} to service_role")
    bench.execute(f"grant insert, select on all tables in schema {schema} to service_role")
    return Load(variant.schema, _script(variant), role="service_role", events=len(_SESSION))


def _foreign_keys(bench: Bench) -> list[str]:
    keys = bench.execute(
        "select pg_get_constraintdef(oid) from pg_constraint"
        " where conrelid = 'public.widget_analytics'::regclass and contype = 'f'"
    )
    return [str(definition) for (definition,) in keys]


def _drop_index(bench: Bench, schema: str, column: str) -> None:
    indexes = bench.execute(
        "select indexrelid::regclass::text from pg_index where indrelid = %s::regclass and not indisprimary"
        " and strpos(pg_get_indexdef(indexrelid), %s) > 0",
        [f"{schema}.ledger", column],
    )
    for (name,) in indexes:
        bench.execute(f"drop index {name}")


def _script(variant: Variant) -> str:
    statements = []
    for number, event in enumerate(_SESSION, start=1):
        is_here = variant.texts == "every event" or (event == "widget_load" and variant.texts == "first event")
        texts = f"'{loads.PAGE_URL}', '{loads.USER_AGENT}'" if is_here else "null, null"
        call_id = loads.SESSION_ID if event.startswith("call") else "null"
        aside = (
            f"with s as (insert into {variant.schema}.sessions"
            f" values ({loads.widget()}, {loads.SESSION_ID}, '{loads.PAGE_URL}', '{loads.USER_AGENT}')) "
            if event == "widget_load" and variant.texts == "side table"
            else ""
        )
        statements.append(
            f"{aside}insert into {variant.schema}.ledger"
            " (id, widget_id, event_type, session_id, page_url, user_agent, call_id, seq, received_at)"
            f" values ({loads.uuid_v7('r', number)}, {loads.widget()}, '{event}', {loads.SESSION_ID}, {texts},"
            f" {call_id}, {number}, now());\n"
        )
    return loads.with_ids(variant.widgets) + "".join(statements)


def _line(bench: Bench, variant: Variant, pair: Pair | None, rows: int) -> str:
    """What the load said; what a ledger of so many rows weighs, and how fast it is read."""
    ledger = f"{variant.schema}.ledger"
    fill_table(bench.stack, variant.schema, rows, texts=variant.texts)
    bench.execute(f"vacuum analyze {ledger}")
    weight = bench.number(
        "select sum(pg_total_relation_size(c.oid)) / %s from pg_class c"
        " where c.relnamespace::regnamespace::text = %s and c.relkind = 'r'",
        [rows, variant.schema],
    )
    figures = [
        spread(pair.rate_ratios(), "") if pair else "1",
        spread(pair.cpu_ratios(), "") if pair and pair.cpu_ratios() else "1",
        figure(wal_per_event(pair.ours)) if pair else "",
        figure(weight),
        _milliseconds(
            bench,
            f"select distinct widget_id, session_id from {ledger} where event_type = 'call_end' limit 20",
            f"select * from {ledger} where widget_id = %s and session_id = %s"
            " and event_type in ('call_start', 'call_heartbeat', 'call_end', 'call_error')",
        ),
        _milliseconds(
            bench,
            "select id from public.widgets limit 20",
            f'select * from {ledger} where widget_id = %s order by "timestamp" desc limit 50',
        ),
    ]
    return f"| {variant.title} | {' | '.join(figures)} |"


def _milliseconds(bench: Bench, keys: str, query: str) -> str:
    """The median time of a query over some keys, the second time that it is asked."""
    with psycopg.connect(bench.stack.database_url, autocommit=True) as connection:
        chosen = connection.execute(keys.encode()).fetchall()
        for _ in range(2):
            taken = [seconds_of(partial(connection.execute, query.encode(), key)) for key in chosen]
    return f"{figure(1000 * median(taken))} ms"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench-decisions", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [variant.schema for variant in VARIANTS]
    parser.add_argument("--only", type=lambda given: given.split(","), default=names, help=f"some of {','.join(names)}")
    parser.add_argument("--seconds", type=float, default=6, help="how long each load plays in each round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the ledgers that are weighed and read")
    options = parser.parse_args(arguments)
    if unknown := set(options.only).difference(names):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")

    with running(Plan(options.seconds, options.rounds)) as bench:
        print(conditions(bench), end="\n\n", flush=True)
        print(_HEAD, flush=True)
        for line in measure(bench, [variant for variant in VARIANTS if variant.schema in options.only], options.rows):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
