"""erase_widget_session(): what tells of a visitor goes from every table, and no bill, past or future, changes.

On a database of its own, as it closes a month.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from local_stack.stack import Stack
from tests.conftest import Connect, NewOwner, NewWidget
from tests.support import Browser, Connection, Row, calls_of, clean_up, differences, events_of, record
from widget_analytics import Refused, WidgetAnalytics

PAGE, AGENT, EXTRA = "https://shop.example/cart-of-jane", "Jane's telephone", "jane@example.org"
FACTS = ("id", "widget_id", "event_type", "session_id", "timestamp", "call_id", "seq", "source", "received_at")
NOON = datetime(2025, 3, 10, 12, tzinfo=UTC)
MARCH = ("2025-03-01", "2025-04-01")


@pytest.fixture(scope="module")
def books() -> Iterator[Stack]:
    with Stack(durable=False, jobs=False, gateway=False) as stack:
        yield stack


@pytest.fixture
def own_db(books: Stack) -> Iterator[Connection]:
    with psycopg.connect(books.database_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def a_session(db: Connection, widget_id: UUID, session_id: str = "jane", at: datetime = NOON) -> None:
    """A session as it comes in, each event with all that could tell of its visitor."""
    told = {"page_url": PAGE, "user_agent": AGENT, "properties": {"note": EXTRA, "duration_seconds": 9}}
    for seconds, kind in enumerate(["widget_load", "widget_open", "call_start", "call_heartbeat", "call_end"]):
        call = {"call_id": "c"} if kind.startswith("call") else {}
        record(db, widget_id, session_id, kind, at + timedelta(seconds=seconds), seq=seconds + 1, **call, **told)
    record(db, widget_id, session_id, "call_start", at, call_id="left open", **told)


def erase(db: Connection, widget_id: UUID, session_id: str = "jane") -> int:
    row = db.execute("select public.erase_widget_session(%s, %s) as answer", [widget_id, session_id]).fetchone()
    assert row is not None
    erased: int = row["answer"]["erased"]
    return erased


def where_it_stands(db: Connection, text: str) -> list[str]:
    """The tables and views, of ours and of others, in which some row holds a text in some column."""
    relations = db.execute(
        "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where c.relkind in ('r', 'v', 'm', 'p') and n.nspname in ('public', 'widget_internal')"
    ).fetchall()
    return [
        each["relname"]
        for each in relations
        if db.execute(
            sql.SQL("select from {} t where to_jsonb(t)::text like %s limit 1").format(
                sql.Identifier(each["nspname"], each["relname"])
            ),
            [f"%{text}%"],
        ).fetchone()
        is not None
    ]


def bill(db: Connection, widget_id: UUID, as_of: datetime | None = None) -> list[Row]:
    return db.execute(
        "select * from public.widget_billing_calls(%s, %s, %s) where widget_id = %s order by session_id, call_id",
        [*MARCH, as_of, widget_id],
    ).fetchall()


def a_widget(db: Connection) -> UUID:
    row = db.execute("insert into public.widgets default values returning id").fetchone()
    assert row is not None
    widget_id: UUID = row["id"]
    return widget_id


def test_what_tells_of_a_visitor_is_gone_from_every_table(own_db: Connection) -> None:
    """No table or view holds page, agent or properties of the session any more; ids, times and types stay."""
    widget_id = a_widget(own_db)
    a_session(own_db, widget_id)
    facts = [{name: row[name] for name in FACTS} for row in events_of(own_db, widget_id)]
    own_db.execute("select public.refresh_widget_health()")
    assert all("widget_analytics" in where_it_stands(own_db, text) for text in ("cart-of-jane", "Jane's", EXTRA))
    assert "widget_pages" in where_it_stands(own_db, "cart-of-jane")

    erased = erase(own_db, widget_id)

    assert erased == 6
    assert [where_it_stands(own_db, text) for text in ("cart-of-jane", "Jane's", EXTRA)] == [[], [], []]
    assert [{name: row[name] for name in FACTS} for row in events_of(own_db, widget_id)] == facts


def test_another_session_and_another_widget_keep_theirs(own_db: Connection) -> None:
    """A session is named by its widget and its id, both."""
    widget_id, other = a_widget(own_db), a_widget(own_db)
    for each, session in ((widget_id, "jane"), (widget_id, "Jane"), (other, "jane")):
        a_session(own_db, each, session)

    erase(own_db, widget_id)

    kept = [row for each in (widget_id, other) for row in events_of(own_db, each) if row["page_url"] is not None]
    assert {(row["widget_id"], row["session_id"]) for row in kept} == {(widget_id, "Jane"), (other, "jane")}
    assert len(kept) == 12
    own_db.execute("delete from public.widget_analytics where widget_id = any(%s)", [[widget_id, other]])


def test_calls_and_bills_stay_what_they_were(own_db: Connection) -> None:
    """Calls, the bill, the bill as of a past moment, corrections and records of a provider are as before."""
    widget_id = a_widget(own_db)
    a_session(own_db, widget_id)
    past = own_db.execute("select clock_timestamp() as moment").fetchone()
    assert past is not None
    provider = "select public.record_widget_call_evidence(%s, 'jane', 'p', 'provider', 'CA1', %s, %s) as answer"
    own_db.execute(provider, [widget_id, NOON, NOON + timedelta(seconds=77)])
    for call_id in ("c", "p"):
        own_db.execute("select public.correct_widget_call(%s, 'jane', %s, 5, 'agreed', 'bob')", [widget_id, call_id])
    clean_up(own_db)
    before = (calls_of(own_db, widget_id), bill(own_db, widget_id), bill(own_db, widget_id, past["moment"]))

    erase(own_db, widget_id)

    assert (calls_of(own_db, widget_id), bill(own_db, widget_id), bill(own_db, widget_id, past["moment"])) == before
    assert "set by bob: agreed" in before[1][0]["rule"]
    assert differences(own_db, widget_id) == []
    again = own_db.execute(provider, [widget_id, NOON, NOON + timedelta(seconds=77)]).fetchone()
    assert again is not None
    assert (again["answer"]["accepted"], again["answer"]["duplicates"]) == (0, 2)


def test_a_sender_cannot_hide_in_what_bills_need(own_db: Connection) -> None:
    """Of a backend's event only the few properties that bills read stay; of a browser's, none."""
    widget_id = a_widget(own_db)
    facts = {"record_id": "CA1", "reason": "agreed", "corrected_by": "bob", "login": "postgres"}
    for source in ("browser", "inferred", "server", "provider", "operator"):
        record(
            own_db, widget_id, "jane", "call_end", NOON, call_id="c", source=source, properties=facts | {"note": EXTRA}
        )

    erase(own_db, widget_id)

    kept = {row["source"]: row["properties"] for row in events_of(own_db, widget_id)}
    assert kept == {"browser": None, "inferred": None, "server": facts, "provider": facts, "operator": facts}


def test_closed_statements_do_not_change(own_db: Connection) -> None:
    """A closed month's rows and hashes are as they were, and nothing is to be adjusted."""
    widget_id = a_widget(own_db)
    a_session(own_db, widget_id, at=datetime(2024, 3, 10, 12, tzinfo=UTC))
    own_db.execute("select public.correct_widget_call(%s, 'jane', 'c', 5, 'agreed', 'bob')", [widget_id])
    own_db.execute("select public.close_widget_billing_period('2024-03')")
    tables = ("widget_billing_periods", "widget_statement_charges", "widget_statement_lines")
    before = [own_db.execute(f"select * from public.{table} order by 1, 2".encode()).fetchall() for table in tables]

    erase(own_db, widget_id)

    after = [own_db.execute(f"select * from public.{table} order by 1, 2".encode()).fetchall() for table in tables]
    assert after == before
    assert any(line["rule"].endswith("set by bob: agreed") for line in before[2])
    assert own_db.execute("select * from public.broken_widget_statements()").fetchall() == []
    assert own_db.execute("select * from public.widget_pending_adjustments()").fetchall() == []
    assert before[0][0]["period"] == date(2024, 3, 1)


def test_each_erasure_that_erased_something_is_on_record(own_db: Connection) -> None:
    """Who, when and how many; a second run erases and records nothing, one after a late event both."""
    widget_id = a_widget(own_db)
    a_session(own_db, widget_id)

    runs = [erase(own_db, widget_id), erase(own_db, widget_id)]
    record(own_db, widget_id, "jane", "widget_open", NOON, page_url=PAGE)
    runs.append(erase(own_db, widget_id))

    audit = own_db.execute(
        "select * from public.widget_erasures where widget_id = %s order by id", [widget_id]
    ).fetchall()
    assert runs == [6, 0, 1]
    assert [(row["session_id"], row["erased_by"], row["events"]) for row in audit] == [
        ("jane", "postgres", 6),
        ("jane", "postgres", 1),
    ]


def age_erasures(db: Connection, widget_id: UUID, days: int) -> None:
    db.execute(
        "update public.widget_erasures set erased_at = erased_at - %s where widget_id = %s",
        [timedelta(days=days), widget_id],
    )


def erase_daily(db: Connection) -> int:
    """What pg_cron does every day."""
    row = db.execute("select erased_events from widget_internal.prune()").fetchone()
    assert row is not None
    erased: int = row["erased_events"]
    return erased


def test_what_arrives_late_is_erased_by_the_daily_job(own_db: Connection) -> None:
    """A week later too, on record, calls and bill unchanged; a second run finds nothing, other sessions keep theirs."""
    widget_id = a_widget(own_db)
    a_session(own_db, widget_id)
    a_session(own_db, widget_id, "joe")
    erase(own_db, widget_id)
    age_erasures(own_db, widget_id, 8)
    happened_at = datetime.now(UTC) - timedelta(days=15)
    told = {"page_url": PAGE, "user_agent": AGENT, "properties": {"note": EXTRA}}
    for seq, kind in enumerate(["call_start", "call_heartbeat", "call_end"]):
        at = happened_at + timedelta(minutes=seq)
        record(own_db, widget_id, "jane", kind, at, call_id="late", received_at=at + timedelta(days=7), **told)
    calls, bills = calls_of(own_db, widget_id), bill(own_db, widget_id)
    facts = [{name: row[name] for name in FACTS} for row in events_of(own_db, widget_id)]

    runs = [erase_daily(own_db), erase_daily(own_db)]

    told_of = {row["session_id"] for row in events_of(own_db, widget_id) if row["page_url"] or row["user_agent"]}
    audit = own_db.execute(
        "select session_id, events from public.widget_erasures where widget_id = %s order by id", [widget_id]
    ).fetchall()
    assert runs == [3, 0]
    assert told_of == {"joe"}
    assert audit == [{"session_id": "jane", "events": 6}, {"session_id": "jane", "events": 3}]
    assert (calls_of(own_db, widget_id), bill(own_db, widget_id)) == (calls, bills)
    assert [{name: row[name] for name in FACTS} for row in events_of(own_db, widget_id)] == facts
    assert differences(own_db, widget_id) == []
    own_db.execute("delete from public.widget_analytics where widget_id = %s", [widget_id])


def test_what_was_on_its_way_at_the_erasure_is_erased_by_the_daily_job(own_db: Connection, books: Stack) -> None:
    """An event that was received before the erasure and committed after it is late, too."""
    widget_id = a_widget(own_db)
    with psycopg.connect(books.database_url, row_factory=dict_row) as sender:
        record(sender, widget_id, "jane", "widget_open", datetime.now(UTC), page_url=PAGE)
        a_session(own_db, widget_id)
        erase(own_db, widget_id)

    assert erase_daily(own_db) == 1

    assert [row["page_url"] for row in events_of(own_db, widget_id) if row["page_url"]] == []
    own_db.execute("delete from public.widget_analytics where widget_id = %s", [widget_id])


def test_an_old_erasure_is_not_repeated(own_db: Connection) -> None:
    """After ten days nothing of before can arrive: who uses the same session then has not asked to be forgotten."""
    widget_id = a_widget(own_db)
    a_session(own_db, widget_id)
    erase(own_db, widget_id)
    age_erasures(own_db, widget_id, 10)
    record(own_db, widget_id, "jane", "widget_open", datetime.now(UTC), page_url=PAGE)

    assert erase_daily(own_db) == 0

    assert [row["page_url"] for row in events_of(own_db, widget_id) if row["page_url"]] == [PAGE]
    own_db.execute("delete from public.widget_analytics where widget_id = %s", [widget_id])


def test_only_the_owner_and_the_company_erase(
    stack: Stack, http: httpx.Client, db: Connection, new_owner: NewOwner, new_widget: NewWidget
) -> None:
    """The owner and the secret key may, a visitor may not; a stranger's widget and an unknown one answer alike."""
    owner_id, stranger_id = new_owner(), new_owner()
    widget_id = new_widget(owner_id)
    browser = Browser(http, stack.publishable_key)
    for session in ("jane", "joe"):
        browser.track(widget_id, "widget_load", session, page_url=PAGE)

    def ask(widget: UUID, session: str = "jane", *, key: str = stack.publishable_key, user: UUID | None = None) -> Row:
        headers = {"apikey": key} | ({"authorization": f"Bearer {stack.token_for(user)}"} if user else {})
        body = {"widget_id": str(widget), "session_id": session}
        answer = http.post("/rest/v1/rpc/erase_widget_session", json=body, headers=headers)
        return {"status": answer.status_code, **answer.json()}

    foreign, unknown = ask(widget_id, user=stranger_id), ask(uuid4(), user=stranger_id)
    visitor, unknown_to_us = ask(widget_id), ask(uuid4(), key=stack.secret_key)
    bad = ask(widget_id, "", user=owner_id)
    untouched = [row["page_url"] for row in events_of(db, widget_id)]
    owned = ask(widget_id, user=owner_id)
    by_us = ask(widget_id, "joe", key=stack.secret_key)

    assert untouched == [PAGE, PAGE]
    assert foreign == unknown
    assert (foreign["status"], foreign["code"]) == (403, "42501")
    assert foreign["message"] == unknown_to_us["message"] == "widget_id: this widget is unknown, or not yours"
    assert (visitor["status"], visitor["code"]) in ((401, "42501"), (403, "42501"))
    assert (bad["status"], bad["message"]) == (400, "session_id: must have 1 to 255 characters")
    assert (owned, by_us) == ({"status": 200, "erased": 1}, {"status": 200, "erased": 1})
    assert [(row["page_url"], row["user_agent"]) for row in events_of(db, widget_id)] == [(None, None)] * 2
    audit = db.execute("select erased_by from public.widget_erasures where widget_id = %s order by id", [widget_id])
    assert [row["erased_by"] for row in audit] == [
        f"authenticator authenticated {owner_id}",
        "authenticator service_role",
    ]


def test_the_python_client_erases(stack: Stack, db: Connection, new_owner: NewOwner, new_widget: NewWidget) -> None:
    """An owner's token erases in its own widgets and is refused elsewhere, as an error with the reason."""
    owner_id = new_owner()
    widget_id, foreign = new_widget(owner_id), new_widget()
    record(db, widget_id, "jane", "widget_load", NOON, page_url=PAGE)

    with WidgetAnalytics(
        url=stack.api_url, publishable_key=stack.publishable_key, access_token=stack.token_for(owner_id)
    ) as client:
        runs = [client.erase_session(widget_id, "jane"), client.erase_session(str(widget_id), "jane")]
        with pytest.raises(Refused, match="unknown, or not yours") as refused:
            client.erase_session(foreign, "jane")

    assert runs == [1, 0]
    assert refused.value.status == 403


def test_no_api_role_changes_the_record(connect: Connect, new_owner: NewOwner, new_widget: NewWidget) -> None:
    """What was erased by whom cannot be made up or taken back, nor can the ledger be changed past the function."""
    owner_id = new_owner()
    widget_id = new_widget(owner_id)

    for role, user_id in (("anon", None), ("authenticated", owner_id), ("service_role", None)):
        caller = connect(role, user_id=user_id)
        for statement in (
            "insert into public.widget_erasures (widget_id, session_id, erased_by, events) values (%s, 's', 'x', 1)",
            "update public.widget_erasures set erased_by = 'x' where widget_id = %s",
            "delete from public.widget_erasures where widget_id = %s",
            "update public.widget_analytics set page_url = null where widget_id = %s",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                caller.execute(statement, [widget_id])
