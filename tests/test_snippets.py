"""The queries in supabase/snippets, as a person runs them in the SQL editor: each finds a planted case."""

from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from local_stack.places import SUPABASE
from local_stack.stack import Stack
from tests.conftest import NewWidget
from tests.support import Browser, Connection, Row, clean_up, record
from tests.test_rules_of_cleanup import ago

SNIPPETS = sorted((SUPABASE / "snippets").glob("*.sql"))


def run(db: Connection, name: str) -> list[Row]:
    db.execute("select public.refresh_widget_health()")
    return db.execute((SUPABASE / "snippets" / f"{name}.sql").read_bytes()).fetchall()


def row_of(rows: list[Row], widget_id: object, key: str = "widget") -> Row:
    (row,) = (row for row in rows if str(row[key]) == str(widget_id))
    return row


@pytest.fixture
def widget_id(new_widget: NewWidget) -> UUID:
    return new_widget()


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda path: path.stem)
def test_each_opens_with_what_good_looks_like(db: Connection, snippet: Path) -> None:
    """A comment says what the query answers and what a good answer is; the query runs, and changes nothing."""
    comment = [line for line in snippet.read_text().splitlines() if line.startswith("--")]

    with db.transaction():
        db.execute("set transaction read only")
        db.execute(snippet.read_bytes())

    assert any("Good" in line or "good" in line for line in comment)
    assert snippet.read_text().startswith("-- ")


def test_delivery_rate(db: Connection, widget_id: UUID) -> None:
    """Three of four numbered events arrived."""
    for seq in (1, 2, 4):
        record(db, widget_id, "s", "widget_open", ago(hours=1), seq=seq)

    row = row_of(run(db, "widget_delivery_rate"), widget_id)

    assert (row["delivery_rate"], row["events_arrived"], row["events_lost"]) == (0.75, 3, 1)


def test_completion_rate(db: Connection, widget_id: UUID) -> None:
    """Of two calls that are over one ended by itself; one is still open, and one end has no call."""
    for session, events in {
        "seen": ("call_start", "call_end"),
        "broken off": ("call_start",),
        "orphan": ("call_end",),
    }.items():
        for event_type in events:
            record(db, widget_id, session, event_type, ago(hours=2), call_id=session)
    clean_up(db)
    record(db, widget_id, "open", "call_start", ago(minutes=1), call_id="open")

    row = row_of(run(db, "widget_completion_rate"), widget_id)

    assert (row["completion_rate"], row["calls_inferred"], row["calls_open"], row["orphan_ends"]) == (0.5, 1, 1, 1)


def test_cleanup_runs(db: Connection, widget_id: UUID) -> None:
    """The run that completed a call stands first, with the minutes since the one before."""
    clean_up(db)
    record(db, widget_id, "s", "call_start", ago(hours=2), call_id="c")
    clean_up(db)

    first = run(db, "widget_cleanup_runs")[0]

    assert (first["calls_completed"], first["error"], first["minutes_since_the_one_before"]) == (1, None, 0)


def test_response_times(db: Connection, widget_id: UUID) -> None:
    """What the widget's own clock measured."""
    record(db, widget_id, "s", "widget_open", ago(hours=1), properties={"rtt_ms": 500})

    row = row_of(run(db, "widget_response_times"), widget_id)

    assert row["response_ms_p95"] == pytest.approx(500, rel=0.05)


def test_database_times(db: Connection, stack: Stack, http: httpx.Client, widget_id: UUID) -> None:
    """Calls over REST are counted with what they took in the database."""
    before = {row["called"]: row["calls"] for row in run(db, "widget_database_times")}
    browser = Browser(http, stack.publishable_key)
    for _ in range(3):
        assert browser.track(widget_id, "widget_load", "s").status_code == 200

    after = row_of(run(db, "widget_database_times"), "track_event", key="called")

    assert after["calls"] - before.get("track_event", 0) == 3
    assert 0 < after["mean_ms"] <= after["slowest_ms"] < 5000


def test_why_is_my_widget_not_tracking(db: Connection, stack: Stack, http: httpx.Client, new_widget: NewWidget) -> None:
    """Each reason is named, with what to do."""
    tracks, elsewhere, silent = new_widget(), new_widget(), new_widget()
    demo, inactive, closed = new_widget(is_demo=True), new_widget(is_active=False), new_widget(allowed_domains=())
    malformed, unknown = new_widget(), uuid4()
    shop, blog = (Browser(http, stack.publishable_key, f"https://{host}.example") for host in ("shop", "blog"))
    shop.track(tracks, "widget_load", "s")
    blog.track(elsewhere, "widget_load", "s")
    shop.track(malformed, "widget_lod", "s")
    shop.track(unknown, "widget_load", "s")
    partly = new_widget()
    shop.track(partly, "widget_load", "s")
    blog.track(partly, "widget_load", "s")
    mended = new_widget()
    blog.track(mended, "widget_load", "s")
    db.execute("update public.widgets set allowed_domains = '{*.example}' where id = %s", [mended])

    rows = run(db, "why_is_my_widget_not_tracking")

    verdicts = {
        widget: row_of(rows, widget, key="widget_id")["verdict"]
        for widget in (
            tracks,
            elsewhere,
            silent,
            demo,
            inactive,
            closed,
            malformed,
            mended,
        )
    }
    assert verdicts[tracks] == "it tracks"
    other_page = "a page on blog.example uses it; if this is your page, add blog.example to allowed_domains"
    partial = row_of(rows, partly, key="widget_id")["verdict"]
    assert partial == f"it tracks, and some events are refused: {other_page}"
    assert verdicts[elsewhere] == other_page
    assert verdicts[mended] == "pages on blog.example were refused, and are allowed now"
    assert verdicts[silent].startswith("nothing arrives")
    assert verdicts[demo].startswith("it is a demo widget")
    assert verdicts[inactive].startswith("it is not active")
    assert verdicts[closed].startswith("no domain may use it")
    assert verdicts[malformed] == "its events are malformed; correct event_type"
    assert row_of(rows, unknown, key="detail")["verdict"].startswith("no widget has this id")


def test_which_calls_were_assumed(db: Connection, widget_id: UUID) -> None:
    """A call without any sign of life, and not the one that was seen to end."""
    record(db, widget_id, "silent", "call_start", ago(hours=2), call_id="c")
    record(db, widget_id, "seen", "call_start", ago(hours=2), call_id="c")
    record(db, widget_id, "seen", "call_end", ago(hours=1), call_id="c")
    clean_up(db)

    row = row_of(run(db, "which_calls_were_assumed"), widget_id, key="widget_id")

    assert (row["session_id"], row["evidence"], row["duration_seconds"]) == ("silent", "assumed", 1800)


def test_bills_and_ledger(db: Connection, widget_id: UUID) -> None:
    """A call that was changed by hand is found, and so is a count."""
    record(db, widget_id, "s", "call_start", ago(hours=1), call_id="c")
    run(db, "widget_bills_and_ledger")
    with db.transaction(force_rollback=True):
        db.execute("delete from widget_internal.call_states where widget_id = %s", [widget_id])
        db.execute("update widget_internal.health_hours set opens = 7 where widget_id = %s", [widget_id])

        found = [row["what"] for row in run(db, "widget_bills_and_ledger") if row["widget_id"] == widget_id]

    assert sorted(found) == ["call", "events"]


def test_who_is_over_quota(db: Connection, widget_id: UUID) -> None:
    """A widget of which events were refused for its quota."""
    db.execute(
        "select widget_internal.count_refusals(array_fill((%s, 'over_quota', '')::widget_internal.refusal, array[3]))",
        [widget_id],
    )

    row = row_of(run(db, "who_is_over_quota"), widget_id, key="widget_id")

    assert (row["refused"], row["hours"]) == (3, 1)
