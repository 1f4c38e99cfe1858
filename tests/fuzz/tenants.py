"""Made-up statements as every role: what one may see is one's own, and what one may change is next to nothing.

A statement is asked twice in one transaction, the second time after all rows of others were taken away. An owner must
get the same answer, errors included: so nothing that others have can be told from it, not even a count.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from uuid import UUID

import psycopg
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st
from psycopg import sql
from psycopg.rows import tuple_row
from psycopg.types.string import TextLoader

from tests.fuzz.statements import LEDGER, Caller, Statement, callers, read_catalog, statements
from tests.fuzz.world import World
from tests.support import Connection

# Changed by anybody who may send events; no owner's bill is safe from a page that is allowed to send.
_DOORS = {"public.track_event", "public.track_events", "widget_internal.record_events"}
# Errors that come before rights are looked at: a view, or a column that is computed, cannot be written.
_NOBODY_CAN = {"55000", "42809", "428C9", "0A000"}
# What an event says about a call and its time. An erasure may take away the rest.
_FACTS = "id, widget_id, session_id, event_type, timestamp, received_at, call_id, seq, source"


@dataclass(frozen=True)
class Answer:
    rows: tuple[str, ...] = ()
    code: str | None = None
    said: str = ""
    """What the error says."""

    def __str__(self) -> str:
        return f"{self.code} {self.said}" if self.code else f"{len(self.rows)} rows: {self.rows[:5]}"


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
