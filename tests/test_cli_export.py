"""`widget-analytics export`, on the real stack."""

import csv
import io
import json
import os
import signal
import stat
import subprocess
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

from local_stack.stack import Stack
from local_stack.unreliable_proxy import Hold, UnreliableProxy, answering
from tests.client_support import LedgerCall, command, environment, insert_calls, run, run_process
from tests.conftest import NewWidget

Connection = psycopg.Connection[DictRow]


def month_of(widget_id: UUID) -> tuple[str, datetime]:
    """A month, and its start, that hardly any other widget of this run has calls in."""
    number = widget_id.int % 9_600
    year, month = 1100 + number // 12, 1 + number % 12
    return f"{year + 900}-{month:02}", datetime(year + 900, month, 1, tzinfo=UTC)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture(scope="module")
def many_calls(stack: Stack) -> UUID:
    """A widget with 2,600 calls in its month."""
    with psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as db:
        row = db.execute("insert into public.widgets (name) values ('Busy') returning id").fetchone()
        assert row is not None
        widget_id: UUID = row["id"]
        _, start = month_of(widget_id)
        calls = [
            LedgerCall(started_at=start + timedelta(minutes=n // 2), session_id=f"s{n}", call_id="c")
            for n in range(2_600)
        ]
        insert_calls(db, widget_id, calls)
    return widget_id


def test_calls_of_a_month_are_exported_whole_and_the_same_twice(stack: Stack, tmp_path: Path, many_calls: UUID) -> None:
    """2,600 calls, past the API's row limit: each once, in order; two exports are equal to the byte."""
    month, _ = month_of(many_calls)
    arguments = ("export", "--month", month, "--detail", "calls", "--widget", str(many_calls))

    first = run(environment(stack), tmp_path, *arguments, "--output", tmp_path / "first.csv")
    second = run(environment(stack), tmp_path, *arguments, "--output", tmp_path / "second.csv")
    printed = run_process(environment(stack), tmp_path, *arguments)

    assert (first.returncode, first.stdout) == (0, "")
    assert first.stderr == (
        f"2,600 calls, 312,000.000000 billable seconds -> {tmp_path / 'first.csv'}\n"
        "open: this is what the ledger says now\n"
    )
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes() == printed.stdout.encode()
    rows = rows_of(printed.stdout)
    assert len({row["session_id"] for row in rows}) == len(rows) == 2_600
    assert [row["started_at"] for row in rows] == sorted(row["started_at"] for row in rows)
    assert second.returncode == printed.returncode == 0


def test_usage_is_the_default_and_adds_up(stack: Stack, tmp_path: Path, db: Connection, new_widget: NewWidget) -> None:
    """A row for each widget, with the sums of its calls; numbers are bare numbers."""
    widget_id = new_widget()
    month, start = month_of(widget_id)
    insert_calls(
        db,
        widget_id,
        [
            LedgerCall(started_at=start, session_id="whole", call_id="c"),
            LedgerCall(started_at=start, session_id="short", call_id="c", lasts=timedelta(microseconds=1)),
            LedgerCall(started_at=start, session_id="failed", call_id="c", end="call_error"),
            LedgerCall(started_at=start, session_id="open", call_id="c", lasts=None),
        ],
    )

    done = run(environment(stack), tmp_path, "export", "--month", month, "--widget", str(widget_id))

    (row,) = rows_of(done.stdout)
    counts = [row[name] for name in ("widget_id", "calls", "observed_calls", "failed_calls", "open_calls")]
    assert counts == [str(widget_id), "4", "3", "1", "1"]
    assert row["billable_seconds"] == row["observed_seconds"] == "120.000001"
    assert done.stderr == "1 widget, 120.000001 billable seconds\nopen: this is what the ledger says now\n"


def test_json_lines_have_exact_numbers(stack: Stack, tmp_path: Path, db: Connection, new_widget: NewWidget) -> None:
    """Each line is an object; seconds have all digits; ids are to the letter."""
    widget_id = new_widget()
    month, start = month_of(widget_id)
    insert_calls(
        db,
        widget_id,
        [LedgerCall(started_at=start, session_id='=1+"é"', call_id="c", lasts=timedelta(hours=1, microseconds=1))],
    )

    done = run(
        environment(stack),
        tmp_path,
        "export",
        "--month",
        month,
        "--widget",
        str(widget_id),
        "--detail",
        "calls",
        "--format",
        "jsonl",
    )

    (line,) = done.stdout.splitlines()
    call = json.loads(line, parse_float=Decimal)
    assert call["duration_seconds"] == call["billable_seconds"] == Decimal("3600.000001")
    assert call["session_id"] == '=1+"é"'
    assert call["started_at"] == f"{start:%Y-%m-%d}T00:00:00.000000Z"


def test_a_sender_cannot_put_a_formula_into_finances_spreadsheet(
    stack: Stack, tmp_path: Path, db: Connection, new_widget: NewWidget
) -> None:
    """Ids that begin with = + - @ TAB or CR, or hide one behind a separator, get an apostrophe in front of it."""
    widget_id = new_widget()
    month, start = month_of(widget_id)
    evil = ['=HYPERLINK("http://x","y")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", 'x";=1', "x\n=1"]
    insert_calls(db, widget_id, [LedgerCall(started_at=start, session_id=name, call_id=name) for name in evil])

    done = run(
        environment(stack), tmp_path, "export", "--month", month, "--widget", str(widget_id), "--detail", "calls"
    )

    rows = rows_of(done.stdout)
    assert len(rows) == len(evil)
    for row in rows:
        for cell in (row["session_id"], row["call_id"]):
            assert cell[0] not in "=+-@\t\r"
            assert not any(f"{separator}=" in cell for separator in ',;"\n\t')
        assert Decimal(row["billable_seconds"]) == 120


def test_from_and_to_are_half_open_and_widgets_may_be_several(
    stack: Stack, tmp_path: Path, db: Connection, new_widget: NewWidget
) -> None:
    """--to itself is outside; --widget may be repeated; --as-of before the first event finds nothing."""
    first, second, third = new_widget(), new_widget(), new_widget()
    _, start = month_of(first)
    for widget_id in (first, second, third):
        insert_calls(
            db,
            widget_id,
            [LedgerCall(started_at=start + timedelta(days=n), session_id=f"d{n}", call_id="c") for n in range(3)],
        )
    arguments = (
        *("export", "--detail", "calls", "--widget", str(first), "--widget", str(second)),
        *("--from", f"{start:%Y-%m-%d}", "--to", (start + timedelta(days=2)).isoformat()),
    )

    done = run(environment(stack), tmp_path, *arguments)
    long_ago = run(environment(stack), tmp_path, *arguments, "--as-of", "2020-01-01")

    assert {(row["widget_id"], row["session_id"]) for row in rows_of(done.stdout)} == {
        (str(widget_id), day) for widget_id in (first, second) for day in ("d0", "d1")
    }
    assert (long_ago.returncode, rows_of(long_ago.stdout)) == (0, [])


def test_an_existing_file_is_replaced_and_keeps_its_mode(stack: Stack, tmp_path: Path, many_calls: UUID) -> None:
    """Also through a link, which stays one; nothing else is left in the folder."""
    month, _ = month_of(many_calls)
    target, link = tmp_path / "bill.csv", tmp_path / "latest.csv"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target.name)

    done = run(environment(stack), tmp_path, "export", "--month", month, "--output", "latest.csv")

    assert done.returncode == 0, done.stderr
    assert target.read_text().startswith("widget_name,customer_reference,")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bill.csv", "latest.csv"]


@pytest.mark.counts_answers
@pytest.mark.parametrize(
    ("number", "before"),
    [
        (signal.SIGINT, None),
        (signal.SIGTERM, None),
        (signal.SIGTERM, "last month's"),
        (signal.SIGKILL, None),
        (signal.SIGKILL, "last month's"),
    ],
)
def test_an_export_that_is_killed_leaves_what_was_there(
    stack: Stack, tmp_path: Path, many_calls: UUID, number: signal.Signals, before: str | None
) -> None:
    """In the middle of its pages: no file, or the old one whole; and nothing beside it, but after `kill -9`."""
    month, _ = month_of(many_calls)
    target = tmp_path / "bill.csv"
    if before is not None:
        target.write_text(before)
    with UnreliableProxy(stack.api_url) as network, network.fault(hold := Hold(network, after=6)):
        env = environment(stack, SUPABASE_URL=network.url)
        arguments = ("export", "--month", month, "--detail", "calls", "--widget", str(many_calls), "--output", target)
        process = subprocess.Popen(
            command(*arguments),
            env=env,
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that starts the tests in the background has them, and what they start, ignore interrupts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert hold.holding.wait(60)
        assert list(tmp_path.glob(".bill.csv.*.part"))

        process.send_signal(number)
        _, said = process.communicate(timeout=120)
        hold.released.set()

    assert (target.read_text() if target.exists() else None) == before
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        return
    assert process.returncode == 128 + number
    assert said in ("widget-analytics: interrupted\n", "widget-analytics: stopped\n")
    assert [path.name for path in tmp_path.iterdir()] == ([] if before is None else ["bill.csv"])


def test_an_export_that_fails_half_way_leaves_no_file(stack: Stack, tmp_path: Path, many_calls: UUID) -> None:
    """The API goes away between two pages: one line, exit code 4, and nothing in the folder."""
    month, _ = month_of(many_calls)
    with UnreliableProxy(stack.api_url) as network:
        network.next_faults = [*[network.pass_on] * 6, *[answering(503)] * 20]
        done = run(
            environment(stack, SUPABASE_URL=network.url),
            tmp_path,
            *("export", "--month", month, "--detail", "calls", "--widget", str(many_calls), "--output", "bill.csv"),
        )

    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert "HTTP 503" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_enough_ends_the_export_quietly(stack: Stack, tmp_path: Path, many_calls: UUID) -> None:
    """As `head` does: no traceback, and an exit code that is not success."""
    month, _ = month_of(many_calls)
    arguments = command("export", "--month", month, "--detail", "calls", "--widget", str(many_calls))
    process = subprocess.Popen(
        arguments, env=environment(stack), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None

    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()

    assert (process.wait(60), said) == (141, b"")


@pytest.mark.parametrize(
    ("output", "reason"),
    [("no/such/folder/bill.csv", "No such file or directory"), (".", "Is a directory"), ("/dev/full", "No space left")],
)
def test_a_file_that_cannot_be_written_is_named(
    stack: Stack, tmp_path: Path, many_calls: UUID, output: str, reason: str
) -> None:
    """One line with the path as it was given, and exit code 7."""
    month, _ = month_of(many_calls)

    done = run(environment(stack), tmp_path, "export", "--month", month, "--detail", "calls", "--output", output)

    assert done.returncode == 7
    assert done.stderr.startswith(f"widget-analytics: cannot write {output}: {reason}")
    assert done.stderr.count("\n") == 1


def test_a_pipe_can_be_written_to(stack: Stack, tmp_path: Path, many_calls: UUID) -> None:
    """What cannot be replaced, such as a device, is written to."""
    month, _ = month_of(many_calls)

    done = run_process(environment(stack), tmp_path, "export", "--month", month, "--output", "/dev/stdout")

    assert done.returncode == 0
    assert done.stdout.startswith("widget_name,customer_reference,")


def test_progress_shows_on_a_terminal_only(stack: Stack, tmp_path: Path, many_calls: UUID) -> None:
    """On a terminal a bar moves while the export runs; its last words are the same as elsewhere."""
    month, _ = month_of(many_calls)
    ours, theirs = os.openpty()
    arguments = command("export", "--month", month, "--detail", "calls", "--widget", str(many_calls), "-o", "bill.csv")

    process = subprocess.Popen(
        arguments, env=environment(stack, TERM="xterm", COLUMNS="100"), cwd=tmp_path, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            shown += os.read(ours, 4096)
        except OSError:
            break
    os.close(ours)

    assert process.wait(10) == 0
    assert b"reading" in shown
    assert b"2,600 calls, 312,000.000000 billable seconds -> bill.csv" in shown
