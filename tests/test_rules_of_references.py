"""No event without its widget: a foreign key, and what the door answers meanwhile."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from local_stack.places import ROOT
from local_stack.stack import Stack
from tests.conftest import Connect, NewWidget
from tests.support import Connection, events_of, record
from tests.torture.traffic import await_true

HEADERS = '{"origin":"https://shop.example"}'
DELETE = "delete from public.widgets where id = %s"


@pytest.fixture
def deleter(stack: Stack) -> Iterator[Connection]:
    with psycopg.connect(stack.database_url, row_factory=dict_row) as connection:
        yield connection


def track(sender: Connection, widget_id: UUID) -> int:
    row = sender.execute(
        "select (public.track_event(%s, 'call_start', 's', event_id => gen_random_uuid()) ->> 'accepted')::int as n",
        [widget_id],
    ).fetchone()
    assert row is not None
    return int(row["n"])


def test_an_event_of_no_widget_is_refused(db: Connection) -> None:
    """Whoever writes into the ledger by hand hears the code of a foreign key, and nothing is stored."""
    unknown = uuid4()

    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        record(db, unknown, "s", "widget_load", datetime.now(UTC))

    assert events_of(db, unknown) == []


def test_an_event_cannot_be_moved_to_no_widget(db: Connection, new_widget: NewWidget) -> None:
    """Not even by the table's owner."""
    widget_id = new_widget()
    record(db, widget_id, "s", "widget_load", datetime.now(UTC))

    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        db.execute("update public.widget_analytics set widget_id = gen_random_uuid() where widget_id = %s", [widget_id])


@pytest.mark.parametrize("statement", [DELETE, "update public.widgets set id = gen_random_uuid() where id = %s"])
def test_a_widget_with_events_stays(db: Connection, new_widget: NewWidget, statement: str) -> None:
    """Its bills rest on it; a widget without events goes."""
    used, unused = new_widget(), new_widget()
    record(db, used, "s", "widget_load", datetime.now(UTC))

    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        db.execute(statement.encode(), [used])
    gone = db.execute(statement.encode(), [unused])

    assert gone.rowcount == 1


def test_an_event_waits_for_a_deletion_that_is_not_over(
    deleter: Connection, db: Connection, connect: Connect, new_widget: NewWidget
) -> None:
    """The sender hears what became of it: the widget is unknown then, and nothing is stored."""
    widget_id = new_widget()
    sender = connect("anon", request__headers=HEADERS)
    deleter.execute(DELETE, [widget_id])

    with ThreadPoolExecutor() as pool:
        answer = pool.submit(
            sender.execute, "select public.track_event(%s, 'call_start', 's') ->> 'code' as code", [widget_id]
        )
        await_true(
            lambda: (
                db.execute(
                    "select from pg_stat_activity where pid = %s and wait_event_type = 'Lock'",
                    [sender.info.backend_pid],
                ).fetchone()
                is not None
            ),
            seconds=30,
            what="the event waits",
        )
        deleter.commit()

        assert answer.result(timeout=30).fetchone() == {"code": "42501"}
    assert events_of(db, widget_id) == []


@pytest.mark.parametrize("by", ["the door", "hand"])
def test_an_event_that_is_being_stored_is_waited_for(
    deleter: Connection, stack: Stack, db: Connection, connect: Connect, new_widget: NewWidget, by: str
) -> None:
    """Who deletes meanwhile waits for its transaction, and is refused then."""
    widget_id = new_widget()
    sender = connect("anon", request__headers=HEADERS)
    with ThreadPoolExecutor() as pool, psycopg.connect(stack.database_url, row_factory=dict_row) as by_hand:
        if by == "the door":
            sender.execute("begin")
            track(sender, widget_id)
        else:
            record(by_hand, widget_id, "s", "call_start", datetime.now(UTC))

        def delete() -> None:
            deleter.execute(DELETE, [widget_id])
            deleter.commit()

        deletion = pool.submit(delete)
        await_true(
            lambda: (
                db.execute(
                    "select from pg_stat_activity where pid = %s and wait_event_type = 'Lock'",
                    [deleter.info.backend_pid],
                ).fetchone()
                is not None
            ),
            seconds=30,
            what="the deletion waits",
        )
        sender.execute("commit") if by == "the door" else by_hand.commit()
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            deletion.result(timeout=30)

    assert len(events_of(db, widget_id)) == 1


def test_a_widget_deleted_meanwhile_is_unknown_to_the_door(
    deleter: Connection, db: Connection, connect: Connect, new_widget: NewWidget
) -> None:
    """Once it is gone nothing more is stored of it."""
    widget_id = new_widget()
    sender = connect("anon", request__headers=HEADERS)
    deleter.execute(DELETE, [widget_id])
    deleter.commit()

    answer = sender.execute("select public.track_event(%s, 'widget_load', 's') as answer", [widget_id]).fetchone()

    assert answer is not None
    assert answer["answer"]["code"] == "42501"
    assert events_of(db, widget_id) == []


def test_a_widget_is_deleted_as_documented(db: Connection) -> None:
    """From each table that references it first."""
    page = (ROOT / "docs/operations.md").read_text()
    emptied = set(re.findall(r"delete from (\w+) where widget_id = 'YOUR-TEST-WIDGET-ID'", page))

    references = db.execute(
        "select relname from pg_constraint join pg_class c on c.oid = conrelid"
        " where confrelid = 'public.widgets'::regclass"
    ).fetchall()

    assert {row["relname"] for row in references} - emptied == set()
