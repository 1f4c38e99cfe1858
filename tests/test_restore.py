"""docs/operations.md, "Backup and restore": a real dump of one project, restored into two others as the page says."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from local_stack.places import ROOT
from local_stack.stack import Stack
from tests.client_support import environment, run
from tests.documents import Block
from tests.reader import Reader
from tests.support import Row, record
from tests.test_getting_started import section

pytestmark = pytest.mark.pg_cron

SECTION = ("docs/operations.md", "Backup and restore", "Rotating keys")


def page() -> list[Block]:
    return section(*SECTION)


def rows(stack: Stack, query: str, **values: object) -> list[Row]:
    with psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as db:
        return db.execute(query.encode(), values).fetchall()


@pytest.fixture(scope="module")
def widget_id() -> UUID:
    return uuid4()


@pytest.fixture(scope="module")
def source(widget_id: UUID) -> Iterator[Stack]:
    """A project with an owner, a plan, a closed month, an open call, a refusal, alerts and settings of its own."""
    now = datetime.now(UTC)
    with (
        Stack(durable=False, jobs=False, gateway=False) as stack,
        psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as db,
    ):
        db.execute("insert into auth.users (id, email) values (%s, 'owner@shop.example')", [widget_id])
        db.execute(
            "insert into widgets (id, owner_id, name, allowed_domains) values (%s, %s, 'Shop', '{shop.example}')",
            [widget_id, widget_id],
        )
        db.execute("update widget_internal.settings set billing_time_zone = 'Europe/Vienna'")
        db.execute(
            "insert into widget_plans (widget_id, valid_from, name, price_per_minute, currency)"
            " values (%s, date_trunc('month', now() - interval '100 days'), 'Basic', 1, 'EUR')",
            [widget_id],
        )
        # What enable_widget_alerts() does where pg_net is.
        db.execute(
            "insert into widget_internal.alert_settings"
            " (url, min_delivery_rate, min_completion_rate, min_cases, repeat_after)"
            " values ('https://hooks.example/', 0.9, 0.8, 20, '1 day')"
        )
        db.execute(
            "insert into widget_internal.scheduled_jobs"
            " values ('widget_send_alerts', '*/5 * * * *', 'select widget_internal.send_alerts()')"
        )
        db.execute(
            "select cron.schedule(name, schedule, command) from widget_internal.scheduled_jobs"
            " where name = 'widget_send_alerts'"
        )
        for days, call in ((62, "past"), (61, None), (0.01, "recent"), (0.001, "open")):
            at = now - timedelta(days=days)
            record(db, widget_id, f"session {call}", "call_start", at, call_id=call)
            if call != "open":
                record(db, widget_id, f"session {call}", "call_end", at + timedelta(seconds=90), call_id=call)
        for origin in ("https://shop.example", "https://elsewhere.example"):
            with db.transaction():
                db.execute("select set_config('request.headers', %s, true)", [json.dumps({"origin": origin})])
                db.execute("select track_event(%s, 'widget_load', 'door')", [widget_id])
        db.execute("select complete_stale_sessions()")
        for month in db.execute("select to_char(month, 'YYYY-MM') as name from widget_months_to_close()").fetchall():
            db.execute("select close_widget_billing_period(%s)", [month["name"]])
        db.execute("select refresh_widget_health()")
        yield stack


@pytest.fixture(scope="module")
def clone(source: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the backup in it."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "supabase").symlink_to(ROOT / "supabase")
    Reader(folder, source.database_url, {}, {"SUPABASE_DB_URL": source.database_url}).run(page()[0])
    return folder


@pytest.fixture(scope="module")
def empty() -> Iterator[Stack]:
    """A project as the platform makes it, and a gateway that answers once something is restored."""
    with Stack(durable=False, jobs=False, migrate=False) as stack:
        yield stack


def restore(block: Block, clone: Path, target: Stack) -> None:
    Reader(clone, target.database_url, {}, {"NEW_DB_URL": target.database_url}).run(block)
    target.restart_gateway()


def complete(clone: Path, target: Stack) -> str:
    """What the page runs after either way; returns what it prints."""
    reader = Reader(clone, target.database_url, {})
    return "".join(reader.run(block) for block in page()[3:])


def assert_whole(source: Stack, target: Stack) -> None:
    """Each table has the source's rows, whatever they are, but for what ran after the restore."""
    tables = rows(source, """
        select format('%%I.%%I', n.nspname, c.relname) as name
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind = 'r' and (n.nspname in ('public', 'widget_internal') or c.oid = 'auth.users'::regclass)
          and c.relname not in ('widget_cleanup_runs', 'health_state', 'provider_state', 'compared_calls')
        order by 1
        """)  # fmt: skip
    for table in tables:
        query = f"select to_jsonb(t) as row from {table['name']} t order by to_jsonb(t)::text"
        assert rows(target, query) == rows(source, query), table["name"]
    jobs = "select jobname, schedule, command from cron.job order by 1"
    assert rows(target, jobs) == rows(source, jobs) != []


def doctor(target: Stack, folder: Path) -> dict[str, Row]:
    env = environment(target, SUPABASE_PUBLISHABLE_KEY=target.publishable_key)
    return {one["check"]: one for one in json.loads(run(env, folder, "doctor", "--json").stdout)}


def problems(found: dict[str, Row]) -> list[str]:
    return [f"{check}: {one['message']}" for check, one in found.items() if one["result"] == "problem"]


def test_rights_that_a_restore_brings_back_let_nobody_change_a_bill(
    empty: Stack, clone: Path, source: Stack, widget_id: UUID
) -> None:
    """Restored as the page says, less `apply_rights()`: what visitors try is refused, and doctor says what to do."""
    block = page()[1]
    forgotten = Block(
        block.page, block.line, block.language, block.text.replace("-c 'select widget_internal.apply_rights()'", "")
    )
    assert forgotten.text != block.text
    restore(forgotten, clone, empty)
    bodies: dict[str, Row] = {
        "correct_widget_call": {
            "widget_id": str(widget_id), "session_id": "session past", "call_id": "past", "duration_seconds": 0,
            "reason": "none", "corrected_by": "nobody",
        },
        "record_widget_call_evidence": {
            "widget_id": str(widget_id), "source": "twilio", "record_id": "CA1", "session_id": "session past",
            "call_id": "past", "started_at": "2026-11-01T00:00Z", "ended_at": "2026-11-01T01:00Z",
        },
        "complete_stale_sessions": {"stale_after": "1 second"},
        "close_widget_billing_period": {"period": "2026-10"},
    }  # fmt: skip
    ledger, calls = "select count(*) from widget_analytics", "select * from widget_calls order by started_at"
    before = rows(empty, ledger), rows(empty, calls)

    with httpx.Client(base_url=f"{empty.api_url}/rest/v1") as http:
        answers = {
            name: http.post(f"/rpc/{name}", headers={"apikey": empty.publishable_key}, json=body).status_code
            for name, body in bodies.items()
        }
        deleted = http.delete("/widget_analytics?session_id=eq.door", headers={"apikey": empty.secret_key})
    found = doctor(empty, clone)

    assert rows(empty, "select * from widget_internal.rights_differences()") != []
    assert set(answers.values()) <= {401, 403}, answers
    assert deleted.status_code in (401, 403)
    assert (rows(empty, ledger), rows(empty, calls)) == before == (rows(source, ledger), rows(source, calls))
    assert "select widget_internal.apply_rights()" in found["rights"]["message"]
    assert "the job widget_complete_stale_sessions is missing" in found["jobs"]["message"]
    assert "the job widget_send_alerts is missing" in found["jobs"]["message"]


@pytest.mark.parametrize(("way", "migrate"), [(1, False), (2, True)], ids=["empty", "migrated"])
def test_a_backup_is_restored(way: int, migrate: bool, clone: Path, source: Stack) -> None:
    """Either way as the page says: nothing is lost, jobs and rights are back, bills agree, doctor is silent."""
    usage = "select * from widget_billing_usage(now() - interval '100 days', now())"
    with Stack(durable=False, jobs=False, migrate=migrate) as target:
        if migrate:
            # Half an hour after the push pg_cron has run each of them.
            for job in rows(target, "select command from widget_internal.scheduled_jobs"):
                rows(target, job["command"])
        restore(page()[way], clone, target)
        printed = complete(clone, target)
        found = doctor(target, clone)

        lines = [line.strip() for line in printed.splitlines() if line.strip("- +")]
        assert lines[:6] == ["jobs", "7", "calls_left", "0", "counted", "t"]
        assert len(lines[6:]) == 4, printed  # four headings, no row
        assert problems(found) == []
        assert {found[check]["result"] for check in ("rights", "jobs", "months", "silence", "alarms")} == {"well"}
        assert_whole(source, target)
        assert rows(target, usage) == rows(source, usage)
        assert "up to date" in target.push_migrations()
        with (
            psycopg.connect(target.database_url) as db,
            pytest.raises(psycopg.Error, match="has events or closed months"),
        ):
            db.execute((ROOT / "supabase" / "empty_for_restore.sql").read_bytes())
