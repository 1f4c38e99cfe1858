"""Months that leave the ledger for Parquet files: what moves, what comes late, and who is killed meanwhile."""

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
from psycopg.rows import tuple_row

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
    new_server,
    new_widget,
    rows,
    session,
    session_names,
)
from tests.archive_victim import archive_and_die
from tests.support import Connection, record
from widget_analytics._archive.bill import archived_calls
from widget_analytics._archive.manifest import ArchivedMonth
from widget_analytics._archive.move import archive_month
from widget_analytics._archive.place import Place


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


def move(url: str, place: Path | str, month: str, **options: Any) -> None:
    with psycopg.connect(url, autocommit=True, row_factory=tuple_row) as connection:
        archive_month(connection, Place(str(place)), month, **options)


def bill(place: Path | str, month: str) -> list[tuple[Any, ...]]:
    stored = Place(str(place))
    calls = archived_calls(stored, ArchivedMonth.read(stored, month))
    return [(call.session_id, call.billable_seconds, call.rule) for call in calls]


def test_a_closed_month_leaves_whole_and_its_bill_with_it(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path
) -> None:
    """The command moves the month's sessions; what it moved is in the files to the letter, and bills the same."""
    session(db, widget_id, JANUARY, "january")
    session(db, widget_id, FEBRUARY, "february")
    close_months(db, "2026-01", "2026-02")
    there = [row for row in ledger(db) if row["session_id"] == "january"]
    usage = rows(db, "select * from public.widget_billing_usage('2026-01-01', '2026-02-01')")
    statement = rows(db, "select * from public.widget_statement_lines order by period, session_id")

    moved = command(url, "archive", "--month", "2026-01", "--to", tmp_path)
    billed = command(url, "bill", "--archive", tmp_path, "--month", "2026-01", "--format", "jsonl")

    assert moved.returncode == 0, moved.stderr
    assert "2026-01: 3 events left the database now" in moved.stderr
    assert session_names(db) == {"february"}
    assert rows(db, "select session_id from public.widget_calls") == [{"session_id": "february"}]
    assert rows(db, "select * from widget_internal.widget_calls_differences()") == []
    assert rows(db, "select * from public.widget_statement_lines order by period, session_id") == statement
    assert rows(db, "select * from public.widget_pending_adjustments()") == []
    (file,) = tmp_path.glob("events/month=2026-01/*.parquet")
    in_file = [row | {"properties": row["properties"] and json.loads(row["properties"])} for row in read(file)]
    assert [{name: row[name] for name in there[0]} for row in in_file] == [
        row | {"id": str(row["id"]), "widget_id": str(row["widget_id"])} for row in there
    ]
    (line,) = [json.loads(line) for line in billed.stdout.splitlines()]
    assert {name: str(value) for name, value in line.items() if not name.endswith("seconds")} == {
        name: str(value) for name, value in usage[0].items() if not name.endswith("seconds")
    }
    assert line["billable_seconds"] == usage[0]["billable_seconds"] == 90


def read(file: Path) -> list[dict[str, Any]]:
    return sorted(pq.read_table(file).to_pylist(), key=lambda row: row["id"])


def test_a_session_of_two_months_leaves_with_the_later_one(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path
) -> None:
    """Until then the first month's files have a copy, so that each month's bill needs that month's files alone."""
    midnight = JANUARY.replace(day=31, hour=23, minute=59, second=30)
    session(db, widget_id, midnight, "both")
    record(db, widget_id, "both", "call_start", FEBRUARY, call_id="d", received_at=FEBRUARY)
    record(db, widget_id, "both", "call_end", FEBRUARY + timedelta(seconds=5), call_id="d", received_at=FEBRUARY)
    close_months(db, "2026-01", "2026-02")

    move(url, tmp_path, "2026-01")
    names_after_january = session_names(db)
    february_in_the_database = rows(db, "select calls from public.widget_billing_usage('2026-02-01', '2026-03-01')")
    move(url, tmp_path, "2026-02")

    assert names_after_january == {"both"}
    assert february_in_the_database == [{"calls": 1}]
    assert session_names(db) == set()
    assert [(name, int(seconds)) for name, seconds, _ in bill(tmp_path, "2026-01")] == [("both", 90)]
    assert [(name, int(seconds)) for name, seconds, _ in bill(tmp_path, "2026-02")] == [("both", 5)]


def test_what_is_sent_again_after_it_was_archived_is_a_duplicate(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path
) -> None:
    """R1 knows no time window: the sender hears of a duplicate, and when the session is back it is the same row."""
    before = session(db, widget_id, JANUARY, "s")
    close_months(db, "2026-01")
    there = ledger(db)
    move(url, tmp_path, "2026-01")

    answers = [
        rows(
            db,
            "select public.track_event(%s, %s, 's', event_id => %s, call_id => 'c') as answer",
            *(widget_id, event_type, event_id),
        )[0]["answer"]
        for event_type, event_id in zip(("widget_load", "call_start", "call_end"), before, strict=True)
        for _ in range(2)
    ]
    in_between = ledger(db)
    restored = command(url, "restore")

    assert all(answer == {"accepted": 0, "duplicates": 1, "rejected": []} for answer in answers)
    assert in_between == []
    assert f"{widget_id} 's': 3 events" in restored.stderr
    assert ledger(db) == there
    assert rows(db, "select * from public.widget_late_events") == []
    assert rows(db, "select * from public.widget_pending_adjustments()") == []


def test_what_comes_late_for_an_archived_session_becomes_an_adjustment(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path
) -> None:
    """It waits until the session is restored, is billed as a difference, and leaves with the next month."""
    session(db, widget_id, JANUARY, "s")
    session(db, widget_id, FEBRUARY, "other")
    close_months(db, "2026-01")
    move(url, tmp_path, "2026-01")
    close_months(db, "2026-02")

    record_late(db, widget_id, "s", JANUARY + timedelta(seconds=100))
    calls_while_it_waits = rows(db, "select session_id from public.widget_calls")
    restored = command(url, "restore")
    pending = rows(db, "select * from public.widget_pending_adjustments()")
    move(url, tmp_path, "2026-02")
    names_before_it_is_billed = session_names(db)
    close_months(db, "2026-03")
    move(url, tmp_path, "2026-03")

    assert calls_while_it_waits == [{"session_id": "other"}]
    assert restored.returncode == 0, restored.stderr
    assert [(row["session_id"], int(row["difference_seconds"])) for row in pending] == [("s", 10)]
    # What no statement shows yet stays.
    assert names_before_it_is_billed == {"s"}
    assert session_names(db) == set()
    charged = rows(db, "select period::text, difference_seconds::int from public.widget_statement_charges order by 1")
    assert [tuple(row.values()) for row in charged] == [("2026-01-01", 90), ("2026-02-01", 90), ("2026-03-01", 10)]
    assert rows(db, "select * from public.widget_pending_adjustments()") == []


def record_late(db: Connection, widget_id: UUID, session_id: str, at: Any) -> None:
    db.execute(
        "insert into public.widget_analytics (widget_id, session_id, event_type, call_id, timestamp)"
        " values (%s, %s, 'call_end', 'c', %s)",
        [widget_id, session_id, at],
    )


def test_what_the_company_sends_for_an_archived_session_is_refused(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path
) -> None:
    """A record or a correction is not put off silently: who sends it is told to restore the session, and then can."""
    session(db, widget_id, JANUARY, "s")
    close_months(db, "2026-01")
    move(url, tmp_path, "2026-01")
    evidence = "select public.record_widget_call_evidence(%s, 's', 'c', 'provider', 'r', ended_at => %s) as answer"
    correction = "select public.correct_widget_call(%s, 's', 'c', 0, 'wrong', 'Ann') as call"

    with pytest.raises(psycopg.errors.InvalidParameterValue, match="this session is in the archive"):
        db.execute(evidence, [widget_id, JANUARY])
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="this session is in the archive"):
        db.execute(correction, [widget_id])
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="this session is in the archive"):
        db.execute("select public.erase_widget_session(%s, 's')", [widget_id])
    restored = command(url, "restore", "--widget", str(widget_id), "--session", "s")
    (corrected,) = rows(db, correction, widget_id)

    assert restored.returncode == 0, restored.stderr
    assert corrected["call"]["duration_seconds"] == 0
    assert rows(db, "select * from public.widget_late_events") == []


def test_a_bill_of_archived_months_is_refused_not_small(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path
) -> None:
    """Also as of a past moment, and for the owner; months that are still there answer as before."""
    session(db, widget_id, JANUARY, "january")
    session(db, widget_id, FEBRUARY, "february")
    close_months(db, "2026-01")
    move(url, tmp_path, "2026-01")

    for function in ("widget_billing_usage", "widget_billing_calls"):
        for period in ("'2026-01-01', '2026-02-01'", "'2026-01-31 23:00', '2026-03-01'", "'-infinity', 'infinity'"):
            for as_of in ("null", "'2026-01-20'"):
                with pytest.raises(psycopg.errors.InvalidParameterValue, match="end of 2026-01 are in the archive"):
                    db.execute(f"select * from public.{function}({period}, {as_of})")
    with db.transaction():
        db.execute("set local role authenticated")
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="in the archive"), db.transaction():
            db.execute("select * from public.widget_billing_usage('2026-01-01', '2026-02-01')")
    (february,) = rows(db, "select calls from public.widget_billing_usage('2026-02-01', '2026-03-01')")

    assert february == {"calls": 1}


def test_who_is_killed_at_any_step_begins_again(url: str, db: Connection, widget_id: UUID, tmp_path: Path) -> None:
    """Killed before each step in turn, the command goes on where it was, and nothing is lost or there twice."""
    db.execute(
        "insert into public.widget_analytics (widget_id, session_id, event_type, call_id, timestamp, received_at)"
        " select %s, 's' || n, e.type, 'c', %s + n * interval '1 minute' + e.after, %s"
        " from generate_series(0, 249) n, (values ('call_start', interval '0'), ('call_end', '9 s')) e (type, after)",
        [widget_id, JANUARY, JANUARY],
    )
    session(db, widget_id, MARCH, "march")
    close_months(db, "2026-01")
    seen: set[str] = set()
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.archive_victim"])

    for _ in range(30):
        reader, writer = processes.Pipe(duplex=False)
        victim = processes.Process(target=archive_and_die, args=(url, str(tmp_path), frozenset(seen), writer))
        victim.start()
        victim.join(60)
        if victim.exitcode == 0:
            break
        assert victim.exitcode == -signal.SIGKILL
        seen.add(reader.recv())

    assert victim.exitcode == 0
    assert seen == {
        *("marking sessions 0", "choosing sessions 0", "writing the manifest 0", "confirming 0", "finishing 0"),
        *(f"{step} {number}" for step in ("writing", "reading back") for number in range(3)),
        # The second try finds two of three chunks left.
        *("releasing 0", "releasing 1"),
    }
    assert session_names(db) == {"march"}
    assert {(name, int(seconds)) for name, seconds, _ in bill(tmp_path, "2026-01")} == {
        (f"s{number}", 9) for number in range(250)
    }
    assert len(bill(tmp_path, "2026-01")) == 250
    assert rows(db, "select * from widget_internal.sessions_to_archive") == []


def test_a_file_that_is_not_what_the_ledger_holds_is_written_again(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path
) -> None:
    """A part of a file, or a changed one, that an earlier try left behind is not believed."""
    session(db, widget_id, JANUARY, "s")
    close_months(db, "2026-01")
    file = tmp_path / "events" / "month=2026-01" / "part-0000001.parquet"
    with pytest.raises(KeyboardInterrupt):
        move(url, tmp_path, "2026-01", on_step=stop_at("writing the manifest"))
    table = pq.read_table(file)
    pq.write_table(table.set_column(table.column_names.index("seq"), "seq", [[None, 2, 4]]), file)

    move(url, tmp_path, "2026-01")

    assert sorted(row["seq"] or 0 for row in read(file)) == [0, 2, 3]
    assert len(bill(tmp_path, "2026-01")) == 1


def stop_at(wanted: str) -> Any:
    def on_step(step: str, _number: int, _of: int) -> None:
        if step == wanted:
            raise KeyboardInterrupt

    return on_step


def test_the_database_itself_refuses_to_release_what_is_not_in_the_files(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path
) -> None:
    """A count or a sum that is not that of the rows that would go releases none of them."""
    session(db, widget_id, JANUARY, "s")
    close_months(db, "2026-01")
    with pytest.raises(KeyboardInterrupt):
        move(url, tmp_path, "2026-01", on_step=stop_at("releasing"))
    (chunk,) = ArchivedMonth.read(Place(str(tmp_path)), "2026-01").chunks
    release = "select widget_internal.release_archived_chunk('2026-01-01', 1, %s, %s)"

    for events, digest_sum in ((chunk.events - 1, chunk.digest_sum), (chunk.events, chunk.digest_sum[:-1] + "x")):
        with pytest.raises(psycopg.errors.DataCorrupted, match="nothing of it was released"):
            db.execute(release, [events, digest_sum])
    assert len(ledger(db)) == 3
    db.execute(release, [chunk.events, chunk.digest_sum])

    assert ledger(db) == []


def test_a_changed_manifest_releases_nothing(url: str, db: Connection, widget_id: UUID, tmp_path: Path) -> None:
    """Between two tries the manifest must stay what the database was told of."""
    session(db, widget_id, JANUARY, "s")
    close_months(db, "2026-01")
    with pytest.raises(KeyboardInterrupt):
        move(url, tmp_path, "2026-01", on_step=stop_at("releasing"))
    manifest = tmp_path / "manifests" / "2026-01.json"
    manifest.write_text(manifest.read_text() + " ")

    again = command(url, "archive", "--month", "2026-01", "--to", tmp_path)

    assert again.returncode == 8
    assert "its SHA-256 is not" in again.stderr
    assert len(ledger(db)) == 3


def test_what_must_stay_stays(url: str, db: Connection, widget_id: UUID, tmp_path: Path) -> None:
    """An open call, and a session whose id says that it is young, whatever its events say, are only copied."""
    record(db, widget_id, "open", "call_start", JANUARY, received_at=JANUARY)
    young = f"{'f' * 8}-ffff-7{uuid4().hex[:3]}-8000-{'0' * 12}"
    session(db, widget_id, JANUARY, young)
    old = "019b0000-0000-7000-8000-000000000000"
    session(db, widget_id, JANUARY, old)
    close_months(db, "2026-01")

    move(url, tmp_path, "2026-01")
    late = [
        rows(db, "select public.track_event(%s, 'widget_open', %s) as answer", widget_id, name)[0]["answer"]["accepted"]
        for name in (young, old, str(uuid4()))
    ]

    assert session_names(db) >= {"open", young}
    assert old not in session_names(db)
    assert {name for name, _, _ in bill(tmp_path, "2026-01")} == {"open", young, old}
    assert late == [1, 0, 1]


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_who_cannot_see_what_was_archived_adds_nothing_old(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path, isolation: str
) -> None:
    """A transaction with an older view of the ledger is refused, not believed."""
    session(db, widget_id, JANUARY, "s")
    close_months(db, "2026-01")
    move(url, tmp_path, "2026-01")

    db.execute(f"set default_transaction_isolation = '{isolation}'")

    with pytest.raises(psycopg.errors.FeatureNotSupported, match=isolation):
        record_late(db, widget_id, "s", JANUARY)


def test_an_event_on_its_way_while_its_session_is_marked_is_archived_with_it(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path
) -> None:
    """A transaction that looked before the marks were there is waited for, or the archive gives up for now."""
    session(db, widget_id, JANUARY, "s")
    close_months(db, "2026-01")
    move_nothing = pytest.raises(KeyboardInterrupt)
    with move_nothing:
        move(url, tmp_path, "2026-01", on_step=stop_at("marking sessions"))
    with connect(url) as other:
        with other.transaction():
            other.execute(
                "insert into public.widget_analytics (widget_id, session_id, event_type, timestamp)"
                " values (%s, 's', 'widget_open', %s)",
                [widget_id, JANUARY],
            )
            busy = command(url, "archive", "--month", "2026-01", "--to", tmp_path)
        done = command(url, "archive", "--month", "2026-01", "--to", tmp_path)

    assert busy.returncode != 0
    assert "Try again" in busy.stderr or "lock" in busy.stderr
    assert done.returncode == 0, done.stderr
    assert "4 events left the database" in done.stderr


@pytest.mark.parametrize(
    ("month", "closed", "problem"),
    [
        ("2026-01", (), "month: 2026-01 is not closed"),
        ("2026-02", ("2026-01", "2026-02"), "not the next month to archive, that is 2026-01"),
        ("2026-10", ("2026-10",), "ended less than 35 days ago"),
    ],
)
def test_a_month_that_must_not_leave_is_refused(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path, month: str, closed: tuple[str, ...], problem: str
) -> None:
    """Months leave when they are closed, long over, and in order."""
    at = JANUARY if month != "2026-10" else JANUARY.replace(month=10)
    session(db, widget_id, at, "s")
    close_months(db, *closed)

    done = command(url, "archive", "--month", month, "--to", tmp_path)

    assert done.returncode == 6
    assert problem in done.stderr
    assert len(ledger(db)) == 3


def test_mistakes_are_told_in_a_line(url: str, db: Connection, widget_id: UUID, tmp_path: Path) -> None:
    """Each names what to change, and nothing has changed."""
    session(db, widget_id, JANUARY, "s")
    close_months(db, "2026-01")
    archive = ("archive", "--month", "2026-01", "--to", tmp_path)
    wrong_role = command(url.replace("postgres@", "authenticator@"), *archive)
    db.execute("select pg_advisory_lock(hashtextextended('widget_internal: archive', 0))")

    told = {
        "wrong role": wrong_role,
        "no setting": command("", *archive),
        "no address": command("postgres@somewhere", *archive),
        "nobody there": command("postgresql://postgres@127.0.0.1:1/postgres", *archive),
        "no place": command(url, "archive", "--month", "2026-01", "--to", "nowhere://x"),
        "no month": command(url, "archive", "--month", "January", "--to", tmp_path),
        "two at once": command(url, *archive),
        "no archive": command(url, "bill", "--archive", tmp_path, "--month", "2026-01"),
        "a statement": command(url, "bill", "--archive", tmp_path, "--month", "2026-01", "--detail", "statements"),
    }

    assert {what: done.returncode for what, done in told.items()} == {
        "no setting": 3,
        "no address": 3,
        "nobody there": 4,
        "wrong role": 3,
        "no place": 2,
        "no month": 2,
        "two at once": 2,
        "no archive": 8,
        "a statement": 2,
    }, told
    assert all(done.stderr.startswith("widget-analytics: ") for done in told.values()), told
    assert all(len(done.stderr.splitlines()) == 1 for done in told.values()), told
    assert len(ledger(db)) == 3


def test_an_s3_compatible_store_holds_an_archive_too(
    url: str, db: Connection, widget_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written, read back, billed and restored through a real server that speaks S3."""
    session(db, widget_id, JANUARY, "s")
    close_months(db, "2026-01")
    there = ledger(db)
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
        left = ledger(db)
        billed = command(url, "bill", "--archive", "s3://bucket/archive", "--month", "2026-01", **settings)
        record_late(db, widget_id, "s", JANUARY)
        restored = command(url, "restore", **settings)
    finally:
        store.stop()

    assert moved.returncode == billed.returncode == restored.returncode == 0, (moved, billed, restored)
    assert left == []
    assert f"{widget_id},1,90.000000" in billed.stdout
    assert len(ledger(db)) == len(there) + 1


def test_the_files_have_every_column_of_the_ledger(db: Connection) -> None:
    """A new column must go into the files, too, before it can be archived."""
    of_ledger = columns(db, "public.widget_analytics")
    of_files = columns(db, "widget_internal.events_to_archive")

    assert of_ledger <= of_files


def columns(db: Connection, relation: str) -> set[str]:
    return {
        row["attname"]
        for row in rows(
            db,
            "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped",
            relation,
        )
    }
