"""Months whose events leave the ledger for Parquet files: what moves, what stays, and what is interrupted meanwhile."""

import json
import multiprocessing
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from local_stack.stack import Stack
from tests.archive_support import (
    FEBRUARY,
    JANUARY,
    MARCH,
    close_months,
    command,
    connect,
    database_copy,
    ledger,
    move,
    new_server,
    new_widget,
    rows,
    session,
    session_names,
    usage,
)
from tests.archive_victim import archive_and_die
from tests.support import Connection, Row, calls_of, record
from widget_analytics._archive.bill import archived_usage
from widget_analytics._archive.move import archive_month
from widget_analytics._archive.place import Place

# What the archive takes of an event; the rest of the ledger's columns tell of a visitor.
KEPT = ("id", "widget_id", "event_type", "source", "session_id", "call_id", "seq", "timestamp", "received_at")


@pytest.fixture(scope="module")
def server() -> Iterator[Stack]:
    with new_server() as stack:
        yield stack


@pytest.fixture
def url(server: Stack) -> Iterator[str]:
    with database_copy(server) as url:
        yield url


@pytest.fixture
def db(url: str) -> Iterator[Connection]:
    with connect(url) as connection:
        yield connection


@pytest.fixture
def widget_id(db: Connection) -> UUID:
    return new_widget(db)


def stored_events(place: Path, month: str = "*") -> list[Row]:
    files = sorted(place.glob(f"events/month={month}/*.parquet"))
    return sorted((row for file in files for row in pq.ParquetFile(file).read().to_pylist()), key=lambda row: row["id"])


def test_a_closed_months_events_leave_and_its_calls_stay(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path
) -> None:
    """What left is in the files to the letter; calls and bills are as before, and the files say the same."""
    session(db, widget_id, JANUARY, "january")
    session(db, widget_id, FEBRUARY, "february")
    record(db, widget_id, "a load alone", "widget_load", JANUARY, received_at=JANUARY)
    close_months(db, "2026-01", "2026-02")
    there = [row for row in ledger(db) if row["timestamp"] < FEBRUARY]
    calls, sums = calls_of(db, widget_id), usage(db, "2026-01")

    moved = command(url, "archive", "--month", "2026-01", "--to", tmp_path)
    billed = command("", "bill", "--archive", tmp_path, "--month", "2026-01", "--format", "jsonl")

    assert moved.returncode == 0, moved.stderr
    assert "2026-01: 4 events left the database" in moved.stderr
    assert session_names(db) == {"february"}
    assert [{name: str(row[name]) for name in KEPT} for row in stored_events(tmp_path)] == [
        {name: str(row[name]) for name in KEPT} for row in sorted(there, key=lambda row: str(row["id"]))
    ]
    assert calls_of(db, widget_id) == calls
    assert usage(db, "2026-01") == sums
    assert rows(db, "select * from widget_internal.widget_calls_differences()") == []
    assert rows(db, "select * from public.widget_pending_adjustments()") == []
    (line,) = [json.loads(line) for line in billed.stdout.splitlines()]
    assert line["widget_id"] == str(widget_id)
    assert line["billable_seconds"] == sums[0]["billable_seconds"] == 90


def test_the_files_hold_nothing_that_an_erasure_would_remove(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path
) -> None:
    """No page, no agent, no property but those that bills rest on: an erasure before or after changes no file."""
    session(db, widget_id, JANUARY, "s")
    properties = {"record_id": "r", "visitor": "Ann"}
    record(
        db,
        widget_id,
        "s",
        "call_end",
        JANUARY,
        received_at=JANUARY,
        call_id="c",
        source="server",
        properties=properties,
    )
    close_months(db, "2026-01")
    of_ledger = columns(db, "public.widget_analytics")

    move(url, tmp_path, "2026-01")

    in_files = stored_events(tmp_path)
    assert set(in_files[0]) == of_ledger - {"page_url", "user_agent"}
    assert [row["properties"] for row in in_files if row["properties"]] == ['{"record_id": "r"}']
    assert rows(db, "select public.erase_widget_session(%s, 's') as answer", widget_id) == [{"answer": {"erased": 0}}]


def columns(db: Connection, relation: str) -> set[str]:
    query = "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped"
    return {row["attname"] for row in rows(db, query, relation)}


def test_a_call_over_the_turn_of_months_moves_with_the_later_one(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path
) -> None:
    """So its state is complete when it is marked. Its load, which belongs to no call, goes by its own time."""
    session(db, widget_id, JANUARY.replace(day=31, hour=23, minute=59, second=30), "both")
    close_months(db, "2026-01", "2026-02")

    move(url, tmp_path, "2026-01")
    after_january = [row["event_type"] for row in ledger(db)]
    move(url, tmp_path, "2026-02")

    assert sorted(after_january) == ["call_end", "call_start"]
    assert ledger(db) == []
    assert [len(stored_events(tmp_path, month)) for month in ("2026-01", "2026-02")] == [1, 2]


def test_a_session_whose_events_name_no_call_moves_only_whole(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path
) -> None:
    """Calls are matched anew whenever such an event comes, so a part of the session would make others of them."""
    for at in (JANUARY, FEBRUARY, MARCH):
        record(db, widget_id, "mine", "call_start", at, received_at=at)
        record(db, widget_id, "mine", "call_end", at + timedelta(seconds=30), received_at=at)
    close_months(db, "2026-01", "2026-02", "2026-03")
    calls = calls_of(db, widget_id)

    events = [move(url, tmp_path, month).events for month in ("2026-01", "2026-02", "2026-03")]
    record(db, widget_id, "mine", "call_end", MARCH + timedelta(minutes=1))
    record(db, widget_id, "mine", "call_start", MARCH + timedelta(days=9))

    assert events == [0, 0, 6]
    assert calls_of(db, widget_id)[:3] == calls
    assert rows(db, "select * from widget_internal.widget_calls_differences()") == []


def test_what_must_stay_stays(url: str, db: Connection, widget_id: UUID, tmp_path: Path) -> None:
    """An open call, what was received after the latest statement, and who corrected a call and why."""
    record(db, widget_id, "open", "call_start", JANUARY, received_at=JANUARY, call_id="c")
    session(db, widget_id, JANUARY, "late")
    session(db, widget_id, JANUARY, "corrected")
    db.execute("select public.correct_widget_call(%s, 'corrected', 'c', 60, 'wrong', 'Ann')", [widget_id])
    close_months(db, "2026-01")
    record(db, widget_id, "late", "call_end", JANUARY + timedelta(seconds=95), call_id="c")
    bill = usage(db, "2026-01")

    move(url, tmp_path, "2026-01")
    pending = rows(db, "select * from public.widget_pending_adjustments()")
    left = {(row["session_id"], row["event_type"], row["source"]) for row in ledger(db)}
    close_months(db, "2026-02")
    move(url, tmp_path, "2026-02")

    assert left == {
        ("open", "call_start", "browser"),
        ("late", "call_end", "browser"),
        ("corrected", "call_start", "operator"),
        ("corrected", "call_end", "operator"),
    }
    assert usage(db, "2026-01") != bill
    assert [(row["session_id"], len(row["event_ids"])) for row in pending] == [("late", 1)]
    assert session_names(db) == {"open", "corrected"}
    assert rows(db, "select * from widget_internal.widget_calls_differences()") == []


def test_after_the_move_browsers_change_a_call_no_more_and_the_company_does(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path
) -> None:
    """A correction or a record becomes an adjustment of the next statement, and of the files by the next run."""
    (load, start, _) = session(db, widget_id, JANUARY, "s")
    session(db, widget_id, JANUARY, "provided")
    close_months(db, "2026-01")
    move(url, tmp_path, "2026-01")
    calls = calls_of(db, widget_id)

    for event_id, event_type in ((load, "widget_load"), (start, "call_start"), (uuid4(), "call_end")):
        at = JANUARY + timedelta(seconds=300)
        record(db, widget_id, "s", event_type, at, id=event_id, call_id=None if event_id == load else "c")
    after_the_browser = calls_of(db, widget_id)
    db.execute("select public.correct_widget_call(%s, 's', 'c', 10, 'wrong', 'Ann')", [widget_id])
    db.execute(
        "select public.record_widget_call_evidence(%s, 'provided', 'c', 'provider', 'r', ended_at => %s)",
        [widget_id, JANUARY + timedelta(seconds=120)],
    )
    pending = rows(db, "select * from public.widget_pending_adjustments() order by session_id")
    close_months(db, "2026-02")
    again = command(url, "archive", "--month", "2026-01", "--to", tmp_path)

    assert after_the_browser == calls
    assert [(row["session_id"], int(row["difference_seconds"])) for row in pending] == [("provided", 30), ("s", -80)]
    assert "calls and charges written: 2026-01" in again.stderr
    (in_files,) = archived_usage(Place(str(tmp_path)), ["2026-01"])
    assert in_files.billable_seconds == usage(db, "2026-01")[0]["billable_seconds"] == 130


def test_a_bill_as_of_a_moment_before_the_move_is_refused(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path
) -> None:
    """It needs the events that left; the bill as it was charged, and other periods, do not."""
    session(db, widget_id, JANUARY, "january")
    session(db, widget_id, FEBRUARY, "february")
    close_months(db, "2026-01")
    move(url, tmp_path, "2026-01")

    for function in ("widget_billing_usage", "widget_billing_calls"):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="are in the archive since"):
            db.execute(f"select * from public.{function}('2026-01-01', '2026-02-01', '2026-01-20')")
    (january,) = rows(db, "select calls from public.widget_billing_usage('2026-01-01', '2026-02-01')")
    (february,) = rows(db, "select calls from public.widget_billing_usage('2026-02-01', '2026-03-01', now())")

    assert january == february == {"calls": 1}


def test_a_run_that_is_killed_at_any_step_is_resumed(url: str, db: Connection, widget_id: UUID, tmp_path: Path) -> None:
    """Killed before each step in turn, the command resumes; nothing is lost, and nothing is there twice."""
    db.execute(
        "insert into public.widget_analytics (widget_id, session_id, event_type, call_id, timestamp, received_at)"
        " select %s, 's' || n, e.type, 'c', %s + n * interval '1 minute' + e.after, %s"
        " from generate_series(0, 249) n, (values ('call_start', interval '0'), ('call_end', '9 s')) e (type, after)",
        [widget_id, JANUARY, JANUARY],
    )
    session(db, widget_id, MARCH, "march")
    close_months(db, "2026-01")
    ids = {str(row["id"]) for row in ledger(db) if row["timestamp"] < FEBRUARY}
    seen: list[str] = []
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.archive_victim"])

    for _ in range(30):
        reader, writer = processes.Pipe(duplex=False)
        victim = processes.Process(target=archive_and_die, args=(url, str(tmp_path), seen, writer))
        victim.start()
        victim.join(60)
        if victim.exitcode == 0:
            break
        assert victim.exitcode == -signal.SIGKILL
        seen.append(reader.recv())

    assert victim.exitcode == 0
    assert {f"{step} part {part}, 1" for step in ("writing", "reading", "deleting") for part in (1, 2, 3)} <= set(seen)
    assert "writing the calls of 2026-01, 1" in seen
    assert session_names(db) == {"march"}
    assert [row["id"] for row in stored_events(tmp_path)] == sorted(ids)
    assert [one.calls for one in archived_usage(Place(str(tmp_path)), ["2026-01"])] == [250]


def test_the_database_deletes_only_what_the_file_was_found_to_hold(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path
) -> None:
    """A file that lost a row, or has another value, after it was written deletes nothing, and is written again."""
    session(db, widget_id, JANUARY, "s")
    close_months(db, "2026-01")

    def damage(column: str | None) -> Any:
        def on_step(step: str) -> None:
            if step == "reading part 1":
                (file,) = tmp_path.glob("events/*/*.parquet")
                table = pq.ParquetFile(file).read()
                changed = (
                    table.slice(1)
                    if column is None
                    else table.set_column(
                        table.column_names.index(column), column, [table.column(column).take([2, 0, 1])]
                    )
                )
                pq.write_table(changed, file)

        return on_step

    # Its connection may stay open: a run that failed holds no other up.
    with psycopg.connect(url, autocommit=True) as open_connection:
        for column in (None, "call_id", "timestamp", "id"):
            with pytest.raises(psycopg.errors.DataCorrupted, match="nothing was deleted"):
                archive_month(open_connection, Place(str(tmp_path)), "2026-01", on_step=damage(column))
            assert len(ledger(db)) == 3
        move(url, tmp_path, "2026-01")

    assert ledger(db) == []
    assert len(stored_events(tmp_path)) == 3


def test_an_s3_compatible_store_holds_an_archive_too(
    url: str, db: Connection, widget_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written, read back and billed through a real server that speaks S3."""
    session(db, widget_id, JANUARY, "s")
    close_months(db, "2026-01")
    store = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    store.start()
    try:
        host, port = store.get_host_and_port()
        settings = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        Place("s3://bucket")._files.mkdir("bucket")

        moved = command(url, "archive", "--month", "2026-01", "--to", "s3://bucket/archive", **settings)
        billed = command("", "bill", "--archive", "s3://bucket/archive", **settings)
    finally:
        store.stop()

    assert moved.returncode == billed.returncode == 0, (moved, billed)
    assert ledger(db) == []
    assert f"{widget_id},1,90.000000" in billed.stdout
