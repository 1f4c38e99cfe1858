"""Statements as one may make them up: over every table, view and function of the catalog, and as every role."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from psycopg import sql

from tests.fuzz.world import Owner, World
from tests.support import Connection, listed_rights

LEDGER = "public.widget_analytics"


@dataclass(frozen=True)
class Relation:
    name: str
    columns: tuple[tuple[str, str], ...]
    values: dict[str, tuple[str, ...]]
    """What stands in each column, of all owners."""
    is_table: bool

    @property
    def whose(self) -> str | None:
        """The column that names the widget; None where rows are nobody's."""
        if self.name == "public.widgets":
            return "id"
        return "widget_id" if "widget_id" in dict(self.columns) else None


@dataclass(frozen=True)
class Function:
    name: str
    parameters: tuple[tuple[str, str], ...]
    """Names and types."""
    is_volatile: bool


@dataclass(frozen=True)
class Caller:
    role: str
    owner: Owner | None = None

    @property
    def own(self) -> list[UUID]:
        return list(self.owner.widget_ids) if self.owner else []


@dataclass(frozen=True)
class Statement:
    """`text` with {0}, {1} where relations stand; what it says by itself is no leak when it comes back."""

    text: str
    relations: tuple[str, ...] = ()
    verb: str = "SELECT"
    function: Function | None = None
    arguments: tuple[Any, ...] = ()

    @property
    def is_writing(self) -> bool:
        return self.verb != "SELECT" or (self.function is not None and self.function.is_volatile)

    @property
    def sent(self) -> str:
        return self.text + str(self.arguments)


@dataclass(frozen=True)
class Catalog:
    relations: dict[str, Relation]
    functions: tuple[Function, ...]
    # By name and role, as the list of rights says.
    rights: dict[str, dict[str, set[str]]]
    has_scheduler: bool

    def about(self, names: Collection[str]) -> "Catalog":
        """These relations and functions alone."""
        relations = {name: relation for name, relation in self.relations.items() if name in names}
        functions = tuple(function for function in self.functions if function.name in names)
        return Catalog(relations, functions, self.rights, self.has_scheduler)


def read_catalog(db: Connection) -> Catalog:
    """Every table, view and function of ours that there is, whether or not a role may use it."""
    relations = {}
    for row in db.execute(
        "select n.nspname, c.relname, c.relkind in ('r', 'p') as is_table,"
        " array_agg(a.attname::text order by a.attnum) as names,"
        " array_agg(format_type(a.atttypid, null) order by a.attnum) as types"
        " from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid"
        " where n.nspname in ('public', 'widget_internal') and c.relkind in ('r', 'v', 'm', 'p')"
        " and a.attnum > 0 and not a.attisdropped group by 1, 2, 3"
    ).fetchall():
        name = sql.Identifier(row["nspname"], row["relname"])
        values = {
            column: tuple(
                found["value"]
                for found in db.execute(
                    sql.SQL("select distinct left({}::text, 200) as value from {} order by 1 limit 40").format(
                        sql.Identifier(column), name
                    )
                )
                if found["value"] is not None
            )
            for column in row["names"]
        }
        full_name = f"{row['nspname']}.{row['relname']}"
        columns = tuple(zip(row["names"], row["types"], strict=True))
        relations[full_name] = Relation(full_name, columns, values, row["is_table"])
    functions = tuple(
        Function(row["name"], tuple(zip(row["names"], row["types"], strict=True)), row["provolatile"] == "v")
        for row in db.execute(
            "select n.nspname || '.' || p.proname as name, p.provolatile::text,"
            " coalesce(p.proargnames[1:p.pronargs], '{}') as names, array("
            "   select format_type(t, null) from unnest(p.proargtypes) with ordinality a (t, n) order by n) as types"
            " from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
            " where n.nspname in ('public', 'widget_internal') and p.prorettype <> 'trigger'::regtype"
            " order by 1, p.proargtypes::text"
        ).fetchall()
    )
    scheduler = db.execute("select to_regclass('cron.job') is not null as found").fetchone()
    return Catalog(relations, functions, listed_rights(db), bool(scheduler and scheduler["found"]))


# Made-up statements.


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''").replace("%", "%%").replace("{", "{{").replace("}", "}}") + "'"


@st.composite
def _conditions(draw: st.DrawFn, relation: Relation, alias: str) -> str:
    name, kind = draw(st.sampled_from(relation.columns))
    column = f'{alias}."{name}"'
    value = _quoted(draw(st.sampled_from(relation.values[name]))) if relation.values[name] else "'0'"
    short = _quoted(draw(st.sampled_from(["secret-of-0", "secret-of-1", "secret-of-2", "a", "0", ""])))
    return draw(
        st.sampled_from(
            [
                "true", f"{column} is not null", f"{column}::text = {value}", f"{column}::text >= {value}",
                f"not ({column}::text = {value})", f"strpos({column}::text, {short}) > 0",
                f"({column} is null or strpos({alias}::text, {short}) > 0)",
                *([f"{column} >= {value}::{kind}"] if relation.values[name] else []),
            ]
        )
    )  # fmt: skip


@st.composite
def _projections(draw: st.DrawFn, relation: Relation, alias: str) -> str:
    name, _ = draw(st.sampled_from(relation.columns))
    column = f'{alias}."{name}"'
    return draw(
        st.sampled_from(
            [
                f"{alias}.*", f"to_jsonb({alias})", "count(*)", column, f"distinct {column}", f"max({column}::text)",
                f"count(distinct {column}::text)", f"string_agg({column}::text, ',' order by {column}::text)",
                f"{alias}::text", f"count(*) over (), {column}",
            ]
        )
    )  # fmt: skip


@st.composite
def _reads(draw: st.DrawFn, catalog: Catalog) -> Statement:
    names = _mostly_open(catalog.relations, catalog.rights)
    first, second = (catalog.relations[draw(st.sampled_from(names))] for _ in "12")
    projection, condition = draw(_projections(first, "t")), draw(_conditions(first, "t"))
    match draw(st.sampled_from(["plain", "plain", "both", "join", "exists", "union", "trap"])):
        case "both":
            condition += f" {draw(st.sampled_from(['and', 'or']))} {draw(_conditions(first, 't'))}"
        case "join":
            on = "t.widget_id = u.widget_id" if _both_have_widgets(first, second) else "true"
            text = f"select {projection} from {{0}} t cross join lateral (select * from {{1}} u where {on}) u"
            return Statement(f"{text} where {draw(_conditions(second, 'u'))}", (first.name, second.name))
        case "exists":
            condition = f"exists (select from {{1}} u where {draw(_conditions(second, 'u'))})"
            return Statement(f"select {projection} from {{0}} t where {condition}", (first.name, second.name))
        case "union":
            text = "select t::text from {0} t union all select u::text from {1} u"
            return Statement(text, (first.name, second.name))
        case "trap":
            # An error that only a row which must not be seen could raise.
            column = f't."{draw(st.sampled_from(first.columns))[0]}"'
            mark = draw(st.sampled_from(["secret-of-0", "secret-of-1", "secret-of-2"]))
            condition = f"1 / (case when strpos({column}::text, '{mark}') > 0 then 0 else 1 end) = 1"
    return Statement(f"select {projection} from {{0}} t where {condition}", (first.name,))


def _mostly_open(names: Collection[str], granted: Mapping[str, Collection[str]]) -> list[str]:
    """All of them, those that an owner may use several times, and most often those that REST exposes."""
    is_open = [name for name in names if "authenticated" in granted.get(name, ())]
    is_exposed = [name for name in is_open if name.startswith("public.")]
    return sorted([*names, *is_open * 3, *is_exposed * 5])


def _both_have_widgets(first: Relation, second: Relation) -> bool:
    return all("widget_id" in dict(relation.columns) for relation in (first, second))


@st.composite
def _writes(draw: st.DrawFn, catalog: Catalog) -> Statement:
    more = [LEDGER] * len(catalog.relations) if LEDGER in catalog.relations else []
    relation = catalog.relations[draw(st.sampled_from([*sorted(catalog.relations), *more]))]
    name = f'"{draw(st.sampled_from(relation.columns))[0]}"'
    condition = draw(_conditions(relation, "t"))
    verb, text = draw(
        st.sampled_from(
            [
                ("UPDATE", f"update {{0}} t set {name} = t.{name} where {condition}"),
                ("DELETE", f"delete from {{0}} t where {condition}"),
                ("TRUNCATE", "truncate {0} cascade"),
                ("INSERT", "insert into {0} default values"),
                ("INSERT", "insert into {0} select * from {0}"),
                ("UPDATE", "select * from {0} t for update"),
                ("TRIGGER", "create trigger x before insert on {0} for each row execute function cron.x()"),
                ("OWNER", "alter table {0} disable row level security"),
                ("OWNER", "drop table {0} cascade"),
                ("OWNER", "create policy x on {0} using (true)"),
            ]
        )
    )
    return Statement(text, (relation.name,), verb)


_OUT_OF_REACH = (
    "create function widget_internal.x() returns int language sql return 1", "create table widget_internal.x ()",
    "alter role anon superuser", "select * from pg_authid", "select pg_read_file('/etc/passwd')",
    "set local session_replication_role = replica", "create table public.widget_x ()",
)  # fmt: skip
_OF_THE_SCHEDULER = (
    "select * from cron.job", "select * from cron.job_run_details", "select cron.schedule('x', '* * * * *', 'select')",
    "select cron.unschedule(1::bigint)", "update cron.job set active = false",
)  # fmt: skip


def _argument(kind: str, world: World) -> st.SearchStrategy[Any]:
    marks = [owner.marks[0] for owner in world.owners]
    names = [f"{mark}{end}" for mark in marks for end in ("-open", "-x", "-y", "-p", "-forgotten", "")]
    moments = ["2000-01-01", "2026-01-01T00:00Z", "now", "infinity", "-infinity", "2100-01-01"]
    pools: dict[str, list[Any]] = {
        "uuid": [widget_id for owner in world.owners for widget_id in owner.widget_ids],
        "text": [*names, *world.months, "server", "provider", "completed", "EUR", "2000-01", "call_end", "42501", ""],
        "timestamp with time zone": moments,
        "date": ["2000-01-01", "2026-10-01", "2100-01-01"],
        "interval": ["30 minutes", "0", "1 month"],
        "jsonb": ["{}", "[]", json.dumps([{"widget_id": mark} for mark in marks])],
        "boolean": [True, False],
        "text[]": [marks],
        "uuid[]": [[widget_id for owner in world.owners for widget_id in owner.widget_ids]],
    }
    numbers = {"integer", "bigint", "numeric", "smallint", "double precision"}
    if kind in numbers:
        return st.sampled_from([None, 0, 1, 7, 30])
    return st.sampled_from([None, *pools.get(kind, [])])


def _fitting_argument(name: str, kind: str, world: World) -> st.SearchStrategy[Any]:
    """What the parameter is meant for, of whichever owner."""
    marks = [owner.marks[0] for owner in world.owners]
    widget_ids = [widget_id for owner in world.owners for widget_id in owner.widget_ids]
    first_days = [f"{month}-01" for month in world.months]
    first, tomorrow = first_days[0], f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}"
    pools: dict[str, list[Any]] = {
        "period_start": [first], "since": [first], "first_day": [first], "from": [first],
        "period_end": [tomorrow], "last_day": [tomorrow], "to": [tomorrow], "as_of": [None, tomorrow],
        "period": first_days, "month": first_days,
        "widget_id": widget_ids, "only_widget": [None, *widget_ids], "only_widget_id": [None, *widget_ids],
        "session_id": [f"{mark}-{end}" for mark in marks for end in ("open", *(m[-2:] for m in world.months))],
        "call_id": [f"{mark}-{end}" for mark in marks for end in ("x", "y", "open")],
        "by": ["page", "host"], "after_cursor": [None], "row_limit": [1, 100], "max_pages": [1, 100],
        "source": ["browser"], "event_type": ["call_end", "widget_load"],
        "only_calls": [None], "only_sessions": [None], "page_size": [1, 100], "before": [tomorrow],
    }  # fmt: skip
    is_row = kind.startswith("widget_") and not kind.endswith("[]")
    # A "period" may be a month's first day, or how long it is.
    fits = name in pools and not is_row and kind != "interval"
    return st.sampled_from(pools[name]) if fits else _argument(kind, world)


@st.composite
def _calls(draw: st.DrawFn, catalog: Catalog, world: World) -> Statement:
    by_name = {function.name: function for function in catalog.functions}
    name = draw(st.sampled_from(_mostly_open(by_name, catalog.rights)))
    function = draw(st.sampled_from([function for function in catalog.functions if function.name == name]))
    fitting = draw(st.sampled_from([True, True, False]))
    arguments = tuple(
        draw(_fitting_argument(name, kind, world) if fitting else _argument(kind, world))
        for name, kind in function.parameters
    )
    marks = ", ".join(f"%({place})s::{kind}" for place, (_, kind) in enumerate(function.parameters))
    return Statement(f"select * from {function.name}({marks}) t", function=function, arguments=arguments)


def statements(catalog: Catalog, world: World) -> st.SearchStrategy[Statement]:
    kinds: list[st.SearchStrategy[Statement]] = []
    if catalog.relations:
        kinds += [_reads(catalog)] * 5 + [_writes(catalog)] * 2
    if catalog.functions:
        kinds += [_calls(catalog, world)] * 8
    out_of_reach = _OUT_OF_REACH + (_OF_THE_SCHEDULER if catalog.has_scheduler else ())
    kinds.append(st.sampled_from([Statement(text, verb="NOTHING") for text in out_of_reach]))
    return st.sampled_from(range(len(kinds))).flatmap(lambda kind: kinds[kind])


def callers(world: World) -> st.SearchStrategy[Caller]:
    signed_in = [Caller("authenticated", owner) for owner in world.owners]
    return st.sampled_from(
        [*signed_in, *signed_in[:3], Caller("authenticated"), Caller("anon"), Caller("service_role")]
    )
