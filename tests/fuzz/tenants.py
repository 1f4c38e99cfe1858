"""Made-up statements as every role: what one may see is one's own, and what one may change is next to nothing.

A statement is asked twice in one transaction, the second time after all rows of others were taken away. An owner must
get the same answer, errors included: so nothing that others have can be told from it, not even a count.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st
from psycopg import sql
from psycopg.rows import tuple_row
from psycopg.types.string import TextLoader

from tests.fuzz.world import Owner, World
from tests.support import Connection, listed_rights

LEDGER = "public.widget_analytics"
# Changed by anybody who may send events; no owner's bill is safe from a page that is allowed to send.
_DOORS = {"public.track_event", "public.track_events", "widget_internal.record_events"}
# Errors that come before rights are looked at: a view, or a column that is computed, cannot be written.
_NOBODY_CAN = {"55000", "42809", "428C9", "0A000"}
# What an event says about a call and its time. An erasure may take away the rest.
_FACTS = "id, widget_id, session_id, event_type, timestamp, received_at, call_id, seq, source"


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
class Answer:
    rows: tuple[str, ...] = ()
    code: str | None = None
    said: str = ""
    """What the error says."""

    def __str__(self) -> str:
        return f"{self.code} {self.said}" if self.code else f"{len(self.rows)} rows: {self.rows[:5]}"


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


# Asking them.


class Leak(AssertionError):
    """A role got, or changed, what is not its own."""


class Tenants:
    """Asks statements, each in a transaction that is undone. The connection is the superuser's."""

    def __init__(self, db: Connection, world: World) -> None:
        self._db = db
        self.world = world
        self.catalog = read_catalog(db)
        self.seen: Counter[str] = Counter()
        self._cursor = db.cursor(row_factory=tuple_row)
        # Python has no infinite dates.
        for kind in ("date", "timestamp", "timestamptz", "interval"):
            self._cursor.adapters.register_loader(kind, TextLoader)

    def empty(self) -> list[str]:
        """Open to some role, and without a row: so they prove nothing."""
        return sorted(
            relation.name
            for relation in self.catalog.relations.values()
            if self.catalog.rights.get(relation.name) and not any(relation.values.values())
        )

    def ask(self, caller: Caller, statement: Statement, *, shadowed: bool) -> None:
        with self._db.transaction(force_rollback=True):
            claims = {"role": caller.role} | ({"sub": str(caller.owner.user_id)} if caller.owner else {})
            self._db.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps(claims)])
            if shadowed:
                self._shadow(caller)
            answer = self._ask_and_look(caller, statement)
            self._judge_rights(caller, statement, answer)
            if caller.role != "service_role":
                self._judge_sight(caller, statement, answer)
        self.seen["statements"] += 1
        self.seen[f"as {caller.role}"] += 1
        self.seen["answers with rows"] += bool(answer.rows)
        self.seen["refused (42501)"] += answer.code == "42501"
        self.seen["writes of the ledger, refused"] += statement.verb != "SELECT" and LEDGER in statement.relations

    def _shadow(self, caller: Caller) -> None:
        """Tables of the caller's own, in front of ours."""
        self._db.execute(sql.SQL("set local role {}").format(sql.Identifier(caller.role)))
        self._db.execute("create temp table widgets (id uuid, owner_id uuid, is_active bool) on commit drop")
        self._db.execute("create temp table widget_analytics (widget_id uuid, session_id text) on commit drop")
        self._db.execute("create temp view owned_widget_ids as select gen_random_uuid() as id")
        self._db.execute("set local search_path = pg_temp, public, widget_internal")
        self._db.execute("reset role")

    def _ask_and_look(self, caller: Caller, statement: Statement) -> Answer:
        """What it writes is looked at and undone."""
        if not statement.is_writing:
            return self._run(caller, statement)
        is_a_door = statement.function is not None and statement.function.name in _DOORS
        with self._db.transaction(force_rollback=True):
            before, events = self._rows_of_others(caller), self._events()
            answer = self._run(caller, statement)
            if not events <= self._events():
                raise Leak(f"{caller} changed or deleted events: {statement}")
            if caller.role != "service_role" and not is_a_door and self._rows_of_others(caller) != before:
                raise Leak(f"{caller} changed rows of others: {statement}")
        self.seen["followed by a look at every row"] += 1
        return answer

    def _run(self, caller: Caller, statement: Statement) -> Answer:
        """In a savepoint: an error undoes the statement and nothing else."""
        arguments = {str(place): value for place, value in enumerate(statement.arguments)}
        try:
            with self._db.transaction():
                self._db.execute(sql.SQL("set local role {}").format(sql.Identifier(caller.role)))
                done = self._cursor.execute(statement.text.format(*statement.relations).encode(), arguments)
                rows = done.fetchall() if done.description else []
                self._db.execute("reset role")
                return Answer(tuple(sorted(map(str, rows))))
        except psycopg.Error as error:
            code = error.sqlstate
            if code is None or code[:2] in ("XX", "P0", "08"):
                raise
            # All that REST hands on of it.
            told = (error.diag.message_primary, error.diag.message_detail, error.diag.message_hint)
            return Answer(code=code, said=str(told))

    def _judge_rights(self, caller: Caller, statement: Statement, answer: Answer) -> None:
        if statement.verb == "NOTHING":
            may = False
        elif statement.function is not None:
            may = caller.role in self.catalog.rights.get(statement.function.name, {})
        else:
            rights = self.catalog.rights
            may = all(statement.verb in rights.get(name, {}).get(caller.role, set()) for name in statement.relations)
        refusals = {"42501"} | (_NOBODY_CAN if statement.function is None else set())
        if not may and answer.code not in refusals:
            raise Leak(f"{caller.role} may not do this, and was not refused ({answer}): {statement}")

    def _judge_sight(self, caller: Caller, statement: Statement, answer: Answer) -> None:
        for mark in self.world.foreign_marks(caller.owner):
            if mark not in statement.sent and any(mark in text for text in (*answer.rows, answer.said)):
                raise Leak(f"{caller} was told {mark}: {statement}\n{answer}")
        if answer.code == "42501":
            return
        with self._db.transaction(force_rollback=True):
            self._take_others_away(caller)
            alone = self._run(caller, statement)
        if answer != alone:
            raise Leak(f"{caller} is told {answer}; without the rows of others {alone}: {statement}")
        self.seen["the same without the rows of others"] += 1

    def _take_others_away(self, caller: Caller) -> None:
        parts = [
            f"delete from {relation.name} where ({relation.whose} = any({_array(caller.own)})) is not true"
            for relation in self.catalog.relations.values()
            if relation.is_table and relation.whose
        ]
        user_ids = _array([caller.owner.user_id] if caller.owner else [])
        parts.append(f"delete from auth.users where id <> all({user_ids})")
        # No trigger and no foreign key has a say.
        self._db.execute("set local session_replication_role = replica")
        self._db.execute("; ".join(parts).encode())
        self._db.execute("set local session_replication_role = origin")

    def _rows_of_others(self, caller: Caller) -> str:
        """A fingerprint of every row that is not the caller's."""
        parts = [
            f"select coalesce(md5(string_agg(t::text, '|' order by t::text)), '') as rows from {relation.name} t"
            + (f" where ({relation.whose} = any({_array(caller.own)})) is not true" if relation.whose else "")
            for relation in self.catalog.relations.values()
            if relation.is_table
        ]
        return str(self._db.execute(" union all ".join(parts).encode()).fetchall())

    def _events(self) -> set[str]:
        """What the ledger says for bills."""
        rows = self._db.execute(f"select row({_FACTS})::text as event from {LEDGER}".encode()).fetchall()
        return {row["event"] for row in rows}


def _array(ids: list[UUID]) -> str:
    return "array[" + ", ".join(f"'{each}'" for each in ids) + "]::uuid[]"


def roam(
    db: Connection,
    world: World,
    *,
    count: int,
    seed: int,
    about: Collection[str] = (),
    on_progress: Callable[[], object] = lambda: None,
) -> Counter[str]:
    """Raise a Leak if some statement gets what it must not; else say what was asked. `about` names what to ask for."""
    tenants = Tenants(db, world)
    if empty := tenants.empty():
        raise AssertionError(f"without rows they prove nothing: {', '.join(empty)}")
    catalog = tenants.catalog.about(about) if about else tenants.catalog

    @with_seed(seed)
    @settings(
        # Not shrunk: a statement is short by itself.
        max_examples=count, deadline=None, database=None, phases=[Phase.generate],
        report_multiple_bugs=False, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(callers(world), statements(catalog, world), st.integers(0, 4))
    def every_statement(caller: Caller, statement: Statement, chance: int) -> None:
        tenants.ask(caller, statement, shadowed=chance == 0)
        on_progress()

    every_statement()
    return tenants.seen
