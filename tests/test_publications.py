"""A project may replicate all of its tables, as Supabase's Realtime and ETL do: nothing of ours stops working then."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from local_stack.stack import Stack
from tests.support import Connection, clean_up, event, record
from tests.test_alerts import PG_NET, delay_cleanup
from tests.test_rules_of_cleanup import ago


@pytest.fixture(scope="module")
def db() -> Iterator[Connection]:
    """A database of these tests' own, all of whose tables are published."""
    with Stack(durable=False, jobs=False, gateway=False) as stack:
        with psycopg.connect(stack.superuser_url, autocommit=True) as superuser:
            superuser.execute("create publication everything for all tables")
        with psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as connection:
            yield connection


def test_every_table_has_a_replica_identity(db: Connection) -> None:
    """Its primary key: PostgreSQL refuses updates and deletes of a published table without one."""
    without = db.execute(
        "select c.oid::regclass::text as name from pg_class c"
        " where c.relkind in ('r', 'p') and c.relnamespace in ('public'::regnamespace, 'widget_internal'::regnamespace)"
        " and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)"
    ).fetchall()

    assert without == []


def test_events_refusals_and_jobs_go_on(db: Connection) -> None:
    """A good and a refused event in a batch, twice; the cleanup, the count of health, the pruning, an alert."""
    widget = db.execute(
        "insert into public.widgets (allowed_domains) values ('{shop.example}') returning id"
    ).fetchone()
    assert widget is not None
    db.execute("""select set_config('request.headers', '{"origin": "https://shop.example"}', false)""")
    answers = []
    for session in ("a", "b"):
        good = event(widget["id"], "call_start", session, call_id="c")
        row = db.execute(
            "select public.track_events(%s) as answer", [Jsonb([good, good | {"event_type": "x"}])]
        ).fetchone()
        assert row is not None
        answers.append((row["answer"]["accepted"], len(row["answer"]["rejected"])))
    record(db, widget["id"], "a", "call_start", ago(hours=2), call_id="stale")
    clean_up(db)
    for _ in range(2):
        db.execute("select * from public.refresh_widget_health()")
    db.execute(
        "insert into widget_internal.refusal_counts (hour, reason, detail, shard, refusals)"
        " values (now() - interval '500 days', 'over_quota', '', 0, 1)"
    )
    pruned = db.execute("select * from widget_internal.prune()").fetchone()
    db.execute("select public.erase_widget_session(%s, 'a')", [widget["id"]])
    delay_cleanup(db, minutes=40)
    db.execute(PG_NET.encode())
    db.execute("select public.enable_widget_alerts('https://hooks.example/x')")
    db.execute("select widget_internal.send_alerts()")
    posted = db.execute("select count(*) as n from net.http_request_queue").fetchone()
    db.execute("select public.disable_widget_alerts()")

    assert answers == [(1, 1), (1, 1)]
    assert pruned is not None
    assert pruned["refusal_counts"] == 1
    assert posted == {"n": 1}
