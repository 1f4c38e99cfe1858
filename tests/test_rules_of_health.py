"""Health counts what happened, wherever and whenever it arrives, and is what a full count of the ledger gives."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from local_stack.stack import Stack
from tests.conftest import Connect, NewOwner, NewWidget
from tests.support import Connection, Row, clean_up, record, wait_until_blocked

HOUR = datetime(2026, 3, 4, 10, tzinfo=UTC)
SHOP = "https://shop.example/"


def refresh(db: Connection) -> Row:
    row = db.execute("select * from public.refresh_widget_health()").fetchone()
    assert row is not None
    return row


def health(db: Connection, widget_id: UUID) -> list[Row]:
    refresh(db)
    return db.execute("select * from public.widget_health where widget_id = %s order by hour", [widget_id]).fetchall()


def differences(db: Connection, *widget_ids: UUID) -> list[Row]:
    refresh(db)
    return db.execute(
        "select * from widget_internal.health_differences() where widget_id = any (%s)", [list(widget_ids)]
    ).fetchall()


def at(minute: float, hours: int = 0) -> datetime:
    return HOUR + timedelta(hours=hours, minutes=minute)


def days_ago(days: float) -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=days)


def named(row: Row, *names: str) -> list[Any]:
    return [row[name] for name in names]


@pytest.fixture
def widget_id(new_widget: NewWidget) -> UUID:
    return new_widget()


def test_a_session_and_its_call(db: Connection, widget_id: UUID) -> None:
    """What one visitor does counts in the hour in which it happened."""
    for seq, (event_type, minute) in enumerate(
        [("widget_load", 1), ("widget_open", 2), ("call_start", 3), ("call_end", 61)], start=1
    ):
        record(db, widget_id, "s", event_type, at(minute), seq=seq)

    first, second = health(db, widget_id)

    assert (first["hour"], second["hour"]) == (at(0), at(60))
    counted = ("events_received", "sessions", "loads", "opens", "calls_started", "calls_observed")
    assert named(first, *counted) == [3, 1, 1, 1, 1, 1]
    assert named(second, *counted) == [1, 0, 0, 0, 0, 0]
    assert named(first, "delivery_rate", "completion_rate", "orphan_ends", "refusals") == [1, 1, 0, 0]
    assert named(second, "delivery_rate", "completion_rate") == [None, None]


def test_gaps_in_the_numbers_are_lost_events_until_they_arrive(db: Connection, widget_id: UUID) -> None:
    """The highest number of a session says how many there should be; a number counts once; late ones heal the past."""
    for seq in (1, 2, 5, 8):
        record(db, widget_id, "s", "call_heartbeat", at(seq), seq=seq, call_id="c")
    record(db, widget_id, "s", "call_heartbeat", at(9), seq=8, call_id="c")
    record(db, widget_id, "without", "widget_load", at(1))
    record(db, widget_id, "forged", "widget_load", at(1), seq=999_999_999)
    (before,) = health(db, widget_id)

    for seq in (3, 4, 6):
        record(db, widget_id, "s", "call_heartbeat", at(seq), seq=seq, call_id="c")
    (after,) = health(db, widget_id)

    assert named(before, "events_received", "events_numbered", "events_expected", "delivery_rate") == [7, 4, 8, 0.5]
    assert named(after, "events_received", "events_numbered", "events_expected") == [10, 7, 8]


def test_an_event_sent_twice_is_one(db: Connection, widget_id: UUID, connect: Connect) -> None:
    """A duplicate is no row, so it counts nowhere."""
    sender = connect("anon", request__headers='{"origin": "https://shop.example"}')
    for _ in range(3):
        sender.execute(
            "select public.track_event(%s, 'widget_load', 's', event_id => %s, seq => 1)", [widget_id, widget_id]
        )

        (row,) = health(db, widget_id)

        assert named(row, "events_received", "loads", "events_numbered") == [1, 1, 1]


def test_a_late_start_moves_everything_to_its_hour(db: Connection, widget_id: UUID) -> None:
    """An end without a start is an orphan; the start arrives and makes it a call of an earlier hour."""
    hour, minute = days_ago(1), timedelta(minutes=1)
    record(db, widget_id, "s", "call_end", hour + 70 * minute, seq=3, call_id="c")
    record(db, widget_id, "s", "widget_open", hour + 65 * minute, seq=2)
    (orphaned,) = health(db, widget_id)

    record(db, widget_id, "s", "call_start", hour + 50 * minute, seq=1, call_id="c", page_url=SHOP)
    first, second = health(db, widget_id)

    next_hour = hour + 60 * minute
    assert named(orphaned, "hour", "orphan_ends", "calls_started", "events_expected") == [next_hour, 1, 0, 3]
    assert named(first, "hour", "orphan_ends", "calls_observed", "events_expected") == [hour, 0, 1, 3]
    assert named(second, "hour", "sessions", "orphan_ends", "events_received") == [next_hour, 0, 0, 2]


def test_an_earlier_start_of_the_same_call(db: Connection, widget_id: UUID) -> None:
    """The hour that a call leaves forgets it."""
    record(db, widget_id, "s", "call_start", at(70), call_id="c")
    health(db, widget_id)

    record(db, widget_id, "s", "call_start", at(10), call_id="c")
    first, second = health(db, widget_id)

    assert [first["calls_started"], second["calls_started"]] == [1, 0]


@pytest.mark.parametrize(
    ("source", "event_type", "counted", "rate"),
    [
        ("browser", "call_end", "calls_observed", 1),
        ("server", "call_error", "calls_observed", 1),
        ("provider", "call_end", "calls_provider", 1),
        ("operator", "call_end", "calls_operator", 1),
        ("inferred", "call_end", "calls_heartbeat", 0),
    ],
)
def test_later_and_better_evidence_replaces_what_was_counted(
    db: Connection, widget_id: UUID, source: str, event_type: str, counted: str, rate: int
) -> None:
    """A call that was open, then heard of again, counts once, by its last evidence."""
    record(db, widget_id, "s", "call_start", at(1), call_id="c")
    record(db, widget_id, "s", "call_heartbeat", at(2), call_id="c")
    (before,) = health(db, widget_id)

    record(db, widget_id, "s", event_type, at(5), call_id="c", source=source)
    (after,) = health(db, widget_id)

    assert named(before, "calls_started", "calls_open", "completion_rate") == [1, 1, 0]
    assert named(after, "calls_started", "calls_open", counted, "completion_rate") == [1, 0, 1, rate]
    assert after["calls_failed"] == (event_type == "call_error")


def test_a_cleanup_counts_too(db: Connection, widget_id: UUID) -> None:
    """Calls that broke off in silence are assumed, in the hour in which they started."""
    record(db, widget_id, "s", "call_start", at(55), call_id="c")
    clean_up(db)

    first, second = health(db, widget_id)

    assert named(first, "calls_started", "calls_assumed", "completion_rate") == [1, 1, 0]
    assert named(second, "calls_started", "events_received", "orphan_ends") == [0, 1, 0]


def test_response_times_are_the_senders_own(db: Connection, widget_id: UUID) -> None:
    """Median and 95th percentile within 5 %; what no clock can say is not counted, nor what no browser says."""
    for n in range(100):
        record(db, widget_id, "s", "widget_load", at(1), properties={"rtt_ms": 100 if n < 94 else 1500})
    for strange in (-1, 1e30, "50", None, [1]):
        record(db, widget_id, "s", "widget_load", at(1), properties={"rtt_ms": strange})
    record(db, widget_id, "s", "widget_load", at(1), properties={"rtt_ms": 1}, source="server")

    (row,) = health(db, widget_id)
    answers = db.execute(
        "select sum(answers) as n from public.widget_response_times where widget_id = %s", [widget_id]
    ).fetchone()

    assert row["response_ms_median"] == pytest.approx(100, rel=0.05)
    assert row["response_ms_p95"] == pytest.approx(1500, rel=0.05)
    assert answers == {"n": 100}


def test_refusals_are_there_at_once(db: Connection, widget_id: UUID, connect: Connect) -> None:
    """An hour with nothing but refusals is a row, and needs no refresh."""
    sender = connect("anon", request__headers='{"origin": "https://elsewhere.example"}')

    for _ in range(2):
        sender.execute("select public.track_event(%s, 'widget_load', 's')", [widget_id])

    rows = db.execute("select * from public.widget_health where widget_id = %s", [widget_id]).fetchall()
    assert [named(row, "refusals", "events_received") for row in rows] == [[2, 0]]


def test_pages_and_domains(db: Connection, widget_id: UUID, new_owner: NewOwner, connect: Connect) -> None:
    """A session counts for the page that it names first, also where that is heard of last."""
    day, next_day = date(2026, 3, 4), date(2026, 3, 5)
    record(db, widget_id, "a", "call_start", at(2), call_id="c")
    record(db, widget_id, "a", "widget_open", at(3), page_url=SHOP + "second")
    health(db, widget_id)
    record(db, widget_id, "a", "widget_load", at(1), page_url=SHOP + "first")
    record(db, widget_id, "b", "widget_load", at(0, hours=20), page_url="https://blog.shop.example/post")
    record(db, widget_id, "c", "widget_load", at(0, hours=20))
    record(db, widget_id, "d", "widget_load", at(4), page_url=SHOP + "x" * 3000)
    record(db, widget_id, "e", "widget_load", at(4), page_url=SHOP + "x" * 3001)
    refresh(db)

    pages = db.execute(
        """
        select day, host, page_url, sessions, loads, opens, calls from public.widget_pages
        where widget_id = %s order by day, calls desc, host
        """,
        [widget_id],
    ).fetchall()

    long_page = (SHOP + "x" * 600)[:512]
    assert [tuple(page.values()) for page in pages] == [
        (day, "shop.example", SHOP + "first", 1, 1, 1, 1),
        (day, "shop.example", long_page, 2, 2, 0, 0),
        (next_day, "blog.shop.example", "https://blog.shop.example/post", 1, 1, 0, 0),
        (next_day, None, None, 1, 1, 0, 0),
    ]


def test_the_pages_beyond_the_busiest_stand_together(db: Connection, widget_id: UUID) -> None:
    """Of fifty-three pages of a host three are the others; no session is missing."""
    for n in range(53):
        for copy in range(2 if n < 50 else 1):
            record(db, widget_id, f"s{n}-{copy}", "widget_load", at(1), page_url=f"{SHOP}{n}")
    refresh(db)

    pages = db.execute("select * from public.widget_pages where widget_id = %s", [widget_id]).fetchall()

    assert len(pages) == 51
    assert sum(page["loads"] for page in pages) == 103
    assert [page["sessions"] for page in pages if page["page_url"] == "(others)"] == [3]


def test_health_is_as_of_its_last_count(db: Connection, widget_id: UUID, stack: Stack) -> None:
    """What a transaction has not committed yet is neither counted nor ever forgotten."""
    with psycopg.connect(stack.database_url, row_factory=dict_row) as writer:
        record(writer, widget_id, "s", "widget_load", at(1))

        with pytest.raises(psycopg.errors.LockNotAvailable, match="nothing was changed"):
            refresh(db)
        writer.commit()
    moment = refresh(db)["counted_to"]

    (row,) = db.execute("select * from public.widget_health where widget_id = %s", [widget_id]).fetchall()
    assert named(row, "events_received", "as_of") == [1, moment]


def test_what_comes_while_others_are_counted_is_counted_next(db: Connection, widget_id: UUID, stack: Stack) -> None:
    """An event that is committed after the cut-off waits for the next count, and is in it once."""
    record(db, widget_id, "a", "widget_load", at(70), seq=1)
    with (
        psycopg.connect(stack.database_url, row_factory=dict_row) as holder,
        psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as refresher,
        ThreadPoolExecutor() as pool,
    ):
        # The cut-off is taken before any session is counted.
        holder.execute("lock table widget_internal.health_sessions")
        refreshed = pool.submit(refresh, refresher)
        wait_until_blocked(db, refresher)
        record(db, widget_id, "a", "widget_open", at(5), seq=3)
        holder.commit()
        refreshed.result()

    (counted,) = db.execute("select * from public.widget_health where widget_id = %s", [widget_id]).fetchall()
    first, second = health(db, widget_id)

    assert named(counted, "events_received", "sessions", "events_expected") == [1, 1, 1]
    assert named(first, "hour", "events_received", "sessions", "events_expected") == [at(0), 1, 1, 3]
    assert named(second, "hour", "events_received", "sessions", "events_expected") == [at(60), 1, 0, 0]
    assert differences(db, widget_id) == []


def test_writers_at_once_are_each_counted_once(db: Connection, new_widget: NewWidget, stack: Stack) -> None:
    """Four writers on the same sessions, and counts at any moment in between."""
    widget_ids = (new_widget(), new_widget())

    def write(seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 (no secret)
        with psycopg.connect(stack.database_url, row_factory=dict_row) as connection:
            for _ in range(120):
                # One call alone, so that two open transactions never wait for each other in a circle.
                for event in (random_event(chance) for _ in range(chance.randrange(1, 6))):
                    event["call_id"] = "c" if event["event_type"].startswith("call") else None
                    record(connection, widget_ids[0], **event | {"session_id": "s"})
                record(connection, widget_ids[1], f"s{chance.randrange(9)}", "widget_open", at(1), seq=1)
                connection.commit()

    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write, seed) for seed in range(4)]
        counts = 0
        while not all(writer.done() for writer in writers):
            refresh(db)
            counts += 1
        for writer in writers:
            writer.result()

    assert counts > 1
    assert differences(db, *widget_ids) == []


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_health_is_not_counted_from_an_old_snapshot(db: Connection, widget_id: UUID, stack: Stack, level: str) -> None:
    """What was committed after the snapshot and before the cut-off would never be counted."""
    with psycopg.connect(stack.database_url, row_factory=dict_row) as connection:
        connection.execute(f"set transaction isolation level {level}")
        connection.execute("select from public.widgets")
        record(db, widget_id, "s", "widget_load", at(1))

        with pytest.raises(psycopg.errors.FeatureNotSupported, match="read committed"):
            refresh(connection)

    assert differences(db, widget_id) == []


def test_rates_have_each_widget_and_all(db: Connection, new_widget: NewWidget) -> None:
    """Sums, rates and response times of each widget, and of all together; a quiet one has none."""
    quick, slow, quiet = new_widget(), new_widget(), new_widget()
    now = datetime.now(UTC)
    for widget, milliseconds in ((quick, 50), (slow, 5000)):
        for seq in (1, 2, 4):
            record(db, widget, "s", "widget_load", now, seq=seq, properties={"rtt_ms": milliseconds})
    refresh(db)

    rates = {
        row["widget_id"]: row
        for row in db.execute("select * from public.widget_rates(now() - interval '1 hour')").fetchall()
    }

    assert quiet not in rates
    assert named(rates[quick], "events_numbered", "events_expected", "delivery_rate") == [3, 4, 0.75]
    assert rates[quick]["response_ms_p95"] == pytest.approx(50, rel=0.05)
    assert rates[slow]["response_ms_median"] == pytest.approx(5000, rel=0.05)
    each = [row for widget, row in rates.items() if widget is not None]
    assert rates[None]["events_received"] == sum(row["events_received"] for row in each)
    # Other tests' widgets are in it: the quantile of all lies between those of its parts.
    parts = [row["response_ms_p95"] for row in each if row["response_ms_p95"] is not None]
    assert min(parts) <= rates[None]["response_ms_p95"] <= max(parts)


def random_event(chance: random.Random) -> Row:
    event_type = chance.choice(
        ["widget_load", "widget_open", *["call_start", "call_heartbeat", "call_end"] * 2, "call_error"]
    )
    source = chance.choice(["browser", "browser", "browser", "server", "provider", "operator", "inferred"])
    call_ids = [None, None, "a", "b"] if source == "browser" else ["a", "b"]
    return {
        "id": uuid4(),
        "session_id": f"s{chance.randrange(4)}",
        "event_type": event_type,
        "at": HOUR + timedelta(minutes=chance.randrange(60 * 26)),
        "call_id": chance.choice(call_ids) if event_type.startswith("call") else None,
        "seq": chance.choice([None, chance.randrange(1, 30), chance.randrange(1, 30)]),
        "source": source,
        "page_url": chance.choice([None, None, SHOP, SHOP + "cart", "https://blog.example/post"]),
    }


@pytest.mark.parametrize("seed", range(12))
def test_what_is_kept_is_what_a_full_count_gives(db: Connection, new_widget: NewWidget, seed: int) -> None:
    """After any history, counted at any moments in between, nothing differs from the ledger."""
    chance = random.Random(seed)  # noqa: S311 (no secret)
    widget_ids = (new_widget(), new_widget())

    for _ in range(25):
        batch = [random_event(chance) for _ in range(chance.randrange(1, 8))]
        with db.transaction():
            for event in batch:
                record(db, chance.choice(widget_ids), **event)
        if chance.random() < 0.2:
            clean_up(db, timedelta(minutes=chance.randrange(60)))
        if chance.random() < 0.5:
            refresh(db)

    assert differences(db, *widget_ids) == []


def test_a_rebuild_notices_what_was_changed_by_hand(db: Connection, widget_id: UUID) -> None:
    """Deleted and backdated rows differ from what is kept, and a rebuild mends that."""
    deleted = record(db, widget_id, "s", "widget_load", at(1), page_url=SHOP)
    refresh(db)
    db.execute("delete from public.widget_analytics where id = %s", [deleted])
    record(db, widget_id, "s", "call_end", at(2), received_at=at(2))
    record(db, widget_id, "other", "widget_open", at(2), received_at=at(2))
    assert {row["counted"] for row in differences(db, widget_id)} == {"events", "sessions", "pages"}

    db.execute("select widget_internal.rebuild_health()")

    assert differences(db, widget_id) == []


def test_an_erased_session_leaves_no_page(db: Connection, widget_id: UUID) -> None:
    """It still counts, under no page; a page that others name stays, one of its own goes; later events may name one."""
    for session, page in {"a": SHOP, "b": SHOP, "c": SHOP + "of-one"}.items():
        record(db, widget_id, session, "widget_load", at(1), page_url=page)
    refresh(db)

    for session in ("a", "c"):
        db.execute("select public.erase_widget_session(%s, %s)", [widget_id, session])

    pages = db.execute(
        "select page_url, sessions from widget_internal.health_pages where widget_id = %s order by page_url",
        [widget_id],
    ).fetchall()
    assert [tuple(page.values()) for page in pages] == [("", 2), (SHOP, 1)]
    assert differences(db, widget_id) == []
    record(db, widget_id, "a", "widget_open", at(2), page_url=SHOP)
    assert differences(db, widget_id) == []


def test_archived_months_keep_their_counts(db: Connection, widget_id: UUID) -> None:
    """What left the ledger stays counted, a call that is corrected takes nothing away, and nothing is rebuilt."""
    for session in ("a", "b"):
        record(db, widget_id, session, "call_start", at(1), call_id="c")
        record(db, widget_id, session, "call_end", at(2), call_id="c")
    (before,) = health(db, widget_id)

    with db.transaction(force_rollback=True):
        db.execute("update widget_internal.call_states set archived_at = now() where widget_id = %s", [widget_id])
        db.execute("delete from public.widget_analytics where widget_id = %s and session_id = 'b'", [widget_id])
        record(db, widget_id, "a", "call_end", at(3), call_id="c", source="operator")
        (after,) = health(db, widget_id)
        differing = differences(db, widget_id)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="in the archive"), db.transaction():
            db.execute("select widget_internal.rebuild_health()")

    counted = ("calls_started", "sessions")
    assert named(before, *counted) == named(after, *counted) == [2, 2]
    assert named(after, "events_received", "calls_observed", "calls_operator") == [5, 1, 1]
    assert differing == []


def rebuild(db: Connection) -> None:
    db.execute("select widget_internal.rebuild_health()")


def in_flight(db: Connection, widget_id: UUID) -> list[str]:
    query = "select session_id from widget_internal.health_sessions where widget_id = %s order by 1"
    return [row["session_id"] for row in db.execute(query, [widget_id]).fetchall()]


def test_sessions_are_kept_for_seven_days_and_their_counts_for_ever(db: Connection, widget_id: UUID) -> None:
    """A session whose events came in eight days ago has no row any more; one that goes on counts as a new one."""
    for session, seqs in {"old": (1, 3), "back": (1, 2)}.items():
        for seq in seqs:
            record(db, widget_id, session, "widget_open", days_ago(9), seq=seq, received_at=days_ago(8))
    record(db, widget_id, "young", "widget_open", days_ago(6), seq=1, received_at=days_ago(6))
    record(db, widget_id, "back", "widget_open", days_ago(0.1), seq=4, received_at=days_ago(0.1))

    rebuild(db)

    rows = db.execute("select * from public.widget_health where widget_id = %s order by hour", [widget_id]).fetchall()
    assert in_flight(db, widget_id) == ["back", "young"]
    assert [named(row, "sessions", "events_numbered", "events_expected") for row in rows] == [
        [2, 4, 5],
        [1, 1, 1],
        [1, 1, 4],
    ]
    assert differences(db, widget_id) == []


def test_a_late_record_of_a_session_that_is_kept_no_more(db: Connection, widget_id: UUID) -> None:
    """A provider's record is an event and improves its call, and makes no session."""
    record(db, widget_id, "s", "call_start", days_ago(9), seq=1, received_at=days_ago(9), call_id="c")
    rebuild(db)
    for event_type in ("call_start", "call_end"):
        record(db, widget_id, "s", event_type, days_ago(9), call_id="c", source="provider")

    (row,) = health(db, widget_id)

    assert named(row, "events_received", "sessions", "events_expected", "calls_provider") == [3, 1, 1, 1]
    assert differences(db, widget_id) == []


def test_an_erased_session_that_is_kept_no_more_leaves_no_page(db: Connection, widget_id: UUID) -> None:
    """Its loads, opens and calls move with it, on the day on which they were counted."""
    for session, page in {"a": SHOP, "b": SHOP + "of-one"}.items():
        for event_type in ("widget_load", "widget_open", "call_start"):
            record(db, widget_id, session, event_type, days_ago(9), received_at=days_ago(9), page_url=page)
    rebuild(db)
    assert in_flight(db, widget_id) == []

    db.execute("select public.erase_widget_session(%s, 'b')", [widget_id])

    pages = db.execute(
        "select page_url, sessions, loads, opens, calls from public.widget_pages where widget_id = %s order by 1",
        [widget_id],
    ).fetchall()
    assert [tuple(page.values()) for page in pages] == [(SHOP, 1, 1, 1, 1), (None, 1, 1, 1, 1)]
    assert differences(db, widget_id) == []


def test_an_erasure_before_the_count(db: Connection, widget_id: UUID) -> None:
    """What was not counted yet is counted under no page, and nothing twice."""
    record(db, widget_id, "a", "widget_load", at(1), page_url=SHOP)
    refresh(db)
    record(db, widget_id, "a", "widget_open", at(0), page_url=SHOP + "earlier")

    db.execute("select public.erase_widget_session(%s, 'a')", [widget_id])

    assert differences(db, widget_id) == []


@pytest.mark.parametrize("receipt", ["0 * n", "n"], ids=["at once", "one by one"])
def test_many_uncounted_events_are_counted_part_by_part(
    db: Connection, widget_id: UUID, stack: Stack, receipt: str
) -> None:
    """A call whose time is short counts what fits and says what is left; the next ones count the rest, each once."""
    events = 200_000
    counted_to = refresh(db)["counted_to"]
    db.execute(
        f"insert into public.widget_analytics (widget_id, session_id, event_type, seq, timestamp, received_at)"
        f" select %s, 's' || n / 10, 'widget_open', 1 + n %% 10, %s,"
        f"   %s::timestamptz + (1 + {receipt}) * interval '1 microsecond'"
        f" from generate_series(0, %s - 1) n",
        [widget_id, HOUR, counted_to, events],
    )

    answers: list[Row] = []
    with psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("set statement_timeout = '2s'")
        while not answers or answers[-1]["events_left"] > 0:
            answers.append(refresh(connection))

    (row,) = db.execute("select * from public.widget_health where widget_id = %s", [widget_id]).fetchall()
    assert named(row, "events_received", "sessions", "events_expected", "delivery_rate") == [events, 20_000, events, 1]
    assert len(answers) > 1
    assert sum(answer["events_counted"] for answer in answers) == events
    assert differences(db, widget_id) == []
