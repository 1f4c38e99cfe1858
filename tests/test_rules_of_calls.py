"""Identity, end, outcome and evidence: how a session's events make calls."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from local_stack.stack import Stack
from tests.conftest import NewWidget
from tests.support import Connection, Row, calls_of, differences, record, session_name, wait_until_blocked

T0 = datetime(2026, 5, 4, 9, tzinfo=UTC)
ROWS_READ = """
    select idx_tup_fetch + seq_tup_read as rows from pg_stat_xact_all_tables
    where relid = 'public.widget_analytics'::regclass
"""


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.fixture
def widget_id(new_widget: NewWidget) -> UUID:
    return new_widget()


def durations(db: Connection, widget_id: UUID) -> list[Any]:
    assert differences(db, widget_id) == []
    return [call["duration_seconds"] for call in calls_of(db, widget_id)]


def only_call(db: Connection, widget_id: UUID) -> Row:
    assert differences(db, widget_id) == []
    (call,) = calls_of(db, widget_id)
    return call


def test_r4_call_ids_part_overlapping_calls(db: Connection, widget_id: UUID) -> None:
    """Events that name a call belong to it, whatever else goes on in the session."""
    record(db, widget_id, "s", "call_start", at(0), call_id="a")
    record(db, widget_id, "s", "call_start", at(10), call_id="b")
    record(db, widget_id, "s", "call_end", at(100), call_id="a")
    record(db, widget_id, "s", "call_end", at(30), call_id="b")

    assert [(call["call_id"], call["duration_seconds"]) for call in calls_of(db, widget_id)] == [("a", 100), ("b", 20)]


def test_r4_without_call_ids_time_decides(db: Connection, widget_id: UUID) -> None:
    """Two 2-minute calls 20 minutes apart in one session bill 240 seconds, not 1,320."""
    record(db, widget_id, "s", "call_start", at(0))
    record(db, widget_id, "s", "call_end", at(120))
    record(db, widget_id, "s", "call_start", at(1200))
    record(db, widget_id, "s", "call_end", at(1320))

    assert durations(db, widget_id) == [120, 120]


def test_r4_an_unnamed_call_has_its_start_events_id(db: Connection, widget_id: UUID) -> None:
    """Where the sender names no call its id is the call_start's, and events may name it by that."""
    first = record(db, widget_id, "s", "call_start", at(0))
    second = record(db, widget_id, "s", "call_start", at(600))
    record(db, widget_id, "s", "call_end", at(60), call_id=str(first))
    record(db, widget_id, "s", "call_end", at(660))

    assert [(call["call_id"], call["duration_seconds"]) for call in calls_of(db, widget_id)] == [
        (str(first), 60),
        (str(second), 60),
    ]


def test_r4_the_earliest_start_counts(db: Connection, widget_id: UUID) -> None:
    """A call that was started twice under one call_id started the first time."""
    record(db, widget_id, "s", "call_start", at(50), call_id="a")
    record(db, widget_id, "s", "call_start", at(0), call_id="a")
    record(db, widget_id, "s", "call_end", at(60), call_id="a")

    assert durations(db, widget_id) == [60]


def test_r4_an_end_without_a_start_makes_no_call(db: Connection, widget_id: UUID) -> None:
    """Orphan ends, named and unnamed, and ends before the first start, make no call."""
    record(db, widget_id, "s", "call_end", at(0))
    record(db, widget_id, "s", "call_error", at(1), call_id="nobody")
    record(db, widget_id, "s", "call_heartbeat", at(2), call_id="nobody")
    assert calls_of(db, widget_id) == []

    record(db, widget_id, "s", "call_start", at(10))

    assert only_call(db, widget_id)["outcome"] == "open"


@pytest.mark.parametrize("year", [1950, 1970, 2026, 2617, 9998])
def test_r5_times_are_exact_to_the_microsecond_in_any_century(db: Connection, widget_id: UUID, year: int) -> None:
    """What a call lasted is what its events say, whenever that was."""
    started_at = datetime(year, 11, 12, 13, 14, 15, 123457, tzinfo=UTC)
    record(db, widget_id, "s", "call_start", started_at, call_id="a")
    record(db, widget_id, "s", "call_end", started_at + timedelta(seconds=120, microseconds=1), call_id="a")

    call = only_call(db, widget_id)
    assert (call["started_at"], str(call["duration_seconds"])) == (started_at, "120.000001")


def test_r4_sessions_and_widgets_are_apart(db: Connection, widget_id: UUID, new_widget: NewWidget) -> None:
    """An end in another session, or of another widget, ends no call here."""
    record(db, widget_id, "s", "call_start", at(0), call_id="a")
    record(db, widget_id, "other", "call_end", at(5), call_id="a")
    record(db, new_widget(), "s", "call_end", at(5), call_id="a")

    assert only_call(db, widget_id)["outcome"] == "open"


SOURCES = ["operator", "provider", "server", "browser", "inferred"]


@pytest.mark.parametrize(("higher", "lower"), list(itertools.pairwise(SOURCES)))
@pytest.mark.parametrize("higher_first", [True, False])
def test_r5_the_higher_source_wins(
    db: Connection, widget_id: UUID, higher: str, lower: str, higher_first: bool
) -> None:
    """operator, provider, server, browser, inferred: the earlier outranks, whichever arrives first or is later."""
    ends = [(higher, at(100)), (lower, at(200))]
    record(db, widget_id, "s", "call_start", at(0), call_id="a")
    for source, ended_at in ends if higher_first else reversed(ends):
        record(db, widget_id, "s", "call_end", ended_at, call_id="a", source=source)

    assert durations(db, widget_id) == [100]


@pytest.mark.parametrize("browser_first", [True, False])
def test_r5_a_providers_legs_are_one_call(db: Connection, widget_id: UUID, browser_first: bool) -> None:
    """A call that a provider reports in two legs lasts from the first start to the last end."""
    said = [("browser", 12, 280), ("provider", 0, 300), ("provider", 300, 1200)]
    for source, start, end in said if browser_first else reversed(said):
        record(db, widget_id, "s", "call_start", at(start), call_id="a", source=source)
        record(db, widget_id, "s", "call_end", at(end), call_id="a", source=source)

    call = only_call(db, widget_id)
    assert (call["started_at"], call["duration_seconds"], call["evidence"]) == (at(0), 1200, "provider")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_r5_an_operators_latest_decision_counts(db: Connection, widget_id: UUID, order: tuple[int, ...]) -> None:
    """Of two corrections the one received later holds, even where it says shorter, whichever is stored first."""
    events: list[dict[str, Any]] = [
        {"source": "browser", "length": 500, "received_at": at(500)},
        {"source": "operator", "length": 400, "received_at": at(1000)},
        {"source": "operator", "length": 50, "received_at": at(2000)},
    ]
    for index in order:
        said = events[index]
        columns = {"call_id": "a", "source": said["source"], "received_at": said["received_at"]}
        record(db, widget_id, "s", "call_start", at(0), **columns)
        record(db, widget_id, "s", "call_end", at(said["length"]), **columns)

    assert durations(db, widget_id) == [50]
    assert only_call(db, widget_id)["evidence"] == "operator"


@pytest.mark.parametrize(("end_type", "outlives"), [("call_end", 61), ("call_error", 61), ("call_end", 59)])
def test_r5_an_end_that_heartbeats_outlive_was_none(
    db: Connection, widget_id: UUID, end_type: str, outlives: int
) -> None:
    """A page that came back from the cache went on with its call: it is completed at its last heartbeat."""
    record(db, widget_id, "s", "call_start", at(0), call_id="a")
    record(db, widget_id, "s", end_type, at(60), call_id="a")
    record(db, widget_id, "s", "call_heartbeat", at(60 + outlives), call_id="a")

    call = only_call(db, widget_id)
    expected = (121, "completed", "heartbeat") if outlives > 60 else (60, "completed", "observed")
    assert (call["duration_seconds"], call["outcome"], call["evidence"]) == expected


def test_r5_no_event_states_a_length(db: Connection, widget_id: UUID) -> None:
    """duration_seconds among the properties means nothing, whoever sends it."""
    record(db, widget_id, "s", "call_start", at(0), call_id="a")
    record(db, widget_id, "s", "call_end", at(60), call_id="a", source="provider", properties={"duration_seconds": 10})

    assert durations(db, widget_id) == [60]


@pytest.mark.parametrize("source", ["server", "provider", "operator"])
def test_r4_only_a_browser_leaves_its_call_unnamed(db: Connection, widget_id: UUID, source: str) -> None:
    """An event of a trusted source that names no call is refused with what to give, and nothing is stored."""
    with pytest.raises(psycopg.errors.CheckViolation, match="must name its call"):
        record(db, widget_id, "s", "call_end", at(0), source=source)

    assert calls_of(db, widget_id) == []


def test_r5_an_end_beats_an_error_and_the_latest_wins(db: Connection, widget_id: UUID) -> None:
    """Within one source call_end beats call_error, and then the latest wins."""
    record(db, widget_id, "s", "call_start", at(0), call_id="a")
    record(db, widget_id, "s", "call_error", at(300), call_id="a")
    record(db, widget_id, "s", "call_end", at(100), call_id="a")
    record(db, widget_id, "s", "call_end", at(90), call_id="a")

    call = only_call(db, widget_id)
    assert (call["duration_seconds"], call["outcome"]) == (100, "completed")


def test_r5_an_inferred_end_does_not_say_when(db: Connection, widget_id: UUID) -> None:
    """Where an inferred end wins, the call ended at its last heartbeat, even one that came in later."""
    record(db, widget_id, "s", "call_start", at(0))
    record(db, widget_id, "s", "call_heartbeat", at(30))
    call_id = str(only_call(db, widget_id)["call_id"])
    record(db, widget_id, "s", "call_end", at(1800), call_id=call_id, source="inferred")
    assert durations(db, widget_id) == [30]

    record(db, widget_id, "s", "call_heartbeat", at(60))

    assert durations(db, widget_id) == [60]
    assert only_call(db, widget_id)["evidence"] == "heartbeat"


def test_r5_a_late_real_end_replaces_an_inferred_one(db: Connection, widget_id: UUID) -> None:
    """A 5-minute call whose real end arrives after the inferred one bills 300 seconds, not 1,800."""
    record(db, widget_id, "s", "call_start", at(0), call_id="a")
    record(db, widget_id, "s", "call_end", at(1800), call_id="a", source="inferred")
    assert durations(db, widget_id) == [1800]

    record(db, widget_id, "s", "call_end", at(300), call_id="a")

    assert durations(db, widget_id) == [300]


def test_r5_a_call_never_ends_before_it_starts_nor_too_late(db: Connection, widget_id: UUID) -> None:
    """ended_at lies between the start and four hours after it."""
    record(db, widget_id, "s", "call_start", at(0), call_id="early")
    record(db, widget_id, "s", "call_end", at(-60), call_id="early")
    record(db, widget_id, "s", "call_start", at(1), call_id="late")
    record(db, widget_id, "s", "call_end", at(5 * 3600), call_id="late")

    assert durations(db, widget_id) == [0, 4 * 3600]


def test_r5_the_longest_duration_is_a_setting(db: Connection, widget_id: UUID) -> None:
    """A changed max_call_duration recomputes the calls that the old or the new limit cuts."""
    record(db, widget_id, "s", "call_start", at(0), call_id="a")
    record(db, widget_id, "s", "call_end", at(5 * 3600), call_id="a")

    found = []
    try:
        for hours in (6, 1, 4):
            db.execute("update widget_internal.settings set max_call_duration = make_interval(hours => %s)", [hours])
            found += durations(db, widget_id)
    finally:
        db.execute("update widget_internal.settings set max_call_duration = '4 hours'")

    assert found == [5 * 3600, 3600, 4 * 3600]


@pytest.mark.parametrize("setting", ["max_call_duration", "assumed_call_duration"])
@pytest.mark.parametrize("value", ["1 day", "169 hours", "300000 years"])
def test_r5_lengths_are_hours_that_every_call_can_have(db: Connection, setting: str, value: str) -> None:
    """A day differs by the session's time zone, and a moment past the calendar's end would refuse all ends of calls."""
    with pytest.raises(psycopg.errors.CheckViolation, match="call_durations_are"):
        db.execute(f"update widget_internal.settings set {setting} = '{value}'".encode())


@pytest.mark.parametrize(
    "statement",
    [
        "delete from widget_calls",
        "update widget_calls set ended_at = started_at",
        "insert into widget_calls (widget_id, session_id, call_id) select widget_id, 'b', 'b' from widget_calls",
        "delete from widget_internal.settings",
        "truncate widget_internal.settings",
        "truncate widget_plans",
    ],
)
def test_what_a_bill_rests_on_is_not_lost_by_hand(db: Connection, widget_id: UUID, statement: str) -> None:
    """Even under its owner's hands: calls follow from events alone, and settings are there."""
    record(db, widget_id, "s", "call_start", at(0))

    with db.transaction(force_rollback=True), pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        db.execute(statement.encode())

    assert durations(db, widget_id) == [None]


@pytest.mark.parametrize(
    ("ends", "outcome", "evidence"),
    [
        ([], "open", None),
        ([("call_end", "browser")], "completed", "observed"),
        ([("call_error", "server")], "failed", "observed"),
        ([("call_end", "provider")], "completed", "provider"),
        ([("call_error", "operator"), ("call_end", "browser")], "failed", "operator"),
        ([("call_end", "inferred")], "completed", "assumed"),
        ([("call_end", "inferred"), ("call_heartbeat", "browser")], "completed", "heartbeat"),
        ([("call_heartbeat", "browser")], "open", None),
    ],
)
def test_r6_outcome_and_evidence(
    db: Connection, widget_id: UUID, ends: list[tuple[str, str]], outcome: str, evidence: str | None
) -> None:
    """What a call ended by decides its outcome; who said so, its evidence."""
    record(db, widget_id, "s", "call_start", at(0), call_id="a")
    for event_type, source in ends:
        record(db, widget_id, "s", event_type, at(60), call_id="a", source=source)

    call = only_call(db, widget_id)
    assert (call["outcome"], call["evidence"]) == (outcome, evidence)


HISTORY: list[dict[str, Any]] = [
    {"event_type": "call_start", "at": at(0)},
    {"event_type": "call_heartbeat", "at": at(30)},
    {"event_type": "call_end", "at": at(60)},
    {"event_type": "call_start", "at": at(100)},
    {"event_type": "call_start", "at": at(110), "call_id": "named"},
    {"event_type": "call_error", "at": at(150), "call_id": "named"},
]


def test_any_order_of_arrival_gives_the_same_calls(db: Connection, new_widget: NewWidget) -> None:
    """All 720 orders in which six events of a session can arrive make the same calls."""
    widget_id = new_widget()
    ids = [uuid4() for _ in HISTORY]
    expected = [
        (str(ids[0]), at(0), at(60), "completed"),
        (str(ids[3]), at(100), None, "open"),
        ("named", at(110), at(150), "failed"),
    ]

    for order in itertools.permutations(range(len(HISTORY))):
        with db.transaction(force_rollback=True):
            for index in order:
                record(db, widget_id, "s", **HISTORY[index], id=ids[index])
            found = calls_of(db, widget_id)
        assert [(c["call_id"], c["started_at"], c["ended_at"], c["outcome"]) for c in found] == expected, order


def test_r4_a_session_of_many_unnamed_calls_costs_no_more(db: Connection, widget_id: UUID) -> None:
    """One session for all of a sender's calls: an event reads the calls around it, not all of them, at either end."""
    with db.transaction(force_rollback=True):
        db.execute(
            """
            insert into public.widget_analytics (widget_id, session_id, event_type, "timestamp")
            select %s, 's', t.type, %s + n * interval '1 minute' + t.after
            from generate_series(1, 500) n
            cross join (values ('call_start', interval '0'), ('call_end', interval '5 s')) t (type, after)
            """,
            [widget_id, at(0)],
        )
        before = db.execute(ROWS_READ).fetchone()
        for seconds in (250 * 60 + 10, 600 * 60):
            record(db, widget_id, "s", "call_end", at(seconds))
        record(db, widget_id, "s", "call_start", at(30))
        after = db.execute(ROWS_READ).fetchone()

        lengths = durations(db, widget_id)

    assert before is not None
    assert after is not None
    assert after["rows"] - before["rows"] < 50
    assert sorted(length for length in lengths if length is not None) == [*[5] * 498, 10, 100 * 60]


def test_r4_a_late_event_of_a_long_unnamed_call_reads_it_once(db: Connection, widget_id: UUID) -> None:
    """Not what follows it anew for each event of the call: of thousands, that takes more time than a statement has."""
    with db.transaction(force_rollback=True):
        record(db, widget_id, "s", "call_start", at(0))
        db.execute(
            'insert into public.widget_analytics (widget_id, session_id, event_type, "timestamp")'
            " select %s, 's', 'call_heartbeat', %s + n * interval '1 s' from generate_series(1, 500) n",
            [widget_id, at(0)],
        )
        before = db.execute(ROWS_READ).fetchone()
        record(db, widget_id, "s", "call_heartbeat", at(1.5))
        after = db.execute(ROWS_READ).fetchone()

    assert before is not None
    assert after is not None
    assert after["rows"] - before["rows"] < 5 * 500


def test_calls_are_kept_however_events_come_in(db: Connection, widget_id: UUID) -> None:
    """After COPY, update, delete and a move between sessions the calls are what the ledger gives."""
    with db.cursor().copy(
        "copy public.widget_analytics (widget_id, session_id, event_type, call_id, timestamp) from stdin"
    ) as copy:
        for number in range(2000):
            copy.write_row((widget_id, f"s{number % 700}", "call_start", f"c{number}", at(number)))
            copy.write_row((widget_id, f"s{number % 700}", "call_end", f"c{number}", at(number + 5)))
    assert durations(db, widget_id) == [5] * 2000

    db.execute(
        "delete from public.widget_analytics where widget_id = %s and event_type = 'call_start' and call_id < 'c5'",
        [widget_id],
    )
    db.execute(
        "update public.widget_analytics set session_id = 'moved' where widget_id = %s and call_id = 'c777'", [widget_id]
    )

    assert differences(db, widget_id) == []
    moved = [call["call_id"] for call in calls_of(db, widget_id) if call["session_id"] == "moved"]
    assert moved == ["c777"]
    with db.transaction(force_rollback=True):
        db.execute("truncate public.widget_analytics")
        assert calls_of(db, widget_id) == []


def test_a_call_is_matched_without_what_is_being_deleted(stack: Stack, db: Connection, widget_id: UUID) -> None:
    """An unnamed event that comes while another of its session is deleted waits, and finds the ledger as it is then."""
    session = session_name()
    record(db, widget_id, session, "call_start", at(0))
    end = record(db, widget_id, session, "call_end", at(1800))
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as writer,
    ):
        with db.transaction():
            db.execute("delete from public.widget_analytics where id = %s", [end])
            heartbeat = pool.submit(record, writer, widget_id, session, "call_heartbeat", at(60))
            wait_until_blocked(db, writer)
        heartbeat.result(10)

    assert only_call(db, widget_id)["outcome"] == "open"


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_snapshot_takes_events_that_name_their_call(db: Connection, widget_id: UUID, level: str) -> None:
    """A join needs no look at what others have just added; matching unnamed events does, and is refused."""
    with db.transaction():
        db.execute(f"set transaction isolation level {level}".encode())
        record(db, widget_id, "s", "call_start", at(0), call_id="a")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match=level), db.transaction():
            record(db, widget_id, session_name(), "call_start", at(0))

    assert only_call(db, widget_id)["call_id"] == "a"


def test_an_archived_call_listens_to_the_trusted_alone(db: Connection, widget_id: UUID) -> None:
    """Once the archive took its events no browser event changes a call; a provider's and an operator's still do."""
    with db.transaction(force_rollback=True):  # where calls are archived, other tests cannot count health anew
        for call_id in ("a", "b"):
            record(db, widget_id, "s", "call_start", at(0), call_id=call_id)
            record(db, widget_id, "s", "call_end", at(60), call_id=call_id)
        unnamed = record(db, widget_id, "u", "call_start", at(0))
        record(db, widget_id, "u", "call_end", at(30))
        db.execute("update widget_internal.call_states set archived_at = now() where widget_id = %s", [widget_id])
        db.execute("delete from public.widget_analytics where widget_id = %s", [widget_id])

        record(db, widget_id, "s", "call_end", at(90), call_id="a")
        record(db, widget_id, "u", "call_end", at(45))
        record(db, widget_id, "s", "call_start", at(0), call_id="b", source="provider")
        record(db, widget_id, "s", "call_end", at(600), call_id="b", source="provider")

        assert {call["call_id"]: call["duration_seconds"] for call in calls_of(db, widget_id)} == {
            "a": 60, "b": 600, str(unnamed): 30,
        }  # fmt: skip
        assert differences(db, widget_id) == []
