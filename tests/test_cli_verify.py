"""`widget-analytics export --manifest`, `verify` and `report`, on a stack that has closed months."""

import csv
import hashlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg.rows import dict_row

from local_stack.stack import Stack
from tests.client_support import environment, run
from tests.support import Connection, record

AUGUST, SEPTEMBER, OCTOBER = (datetime(2020, month, 10, 12, tzinfo=UTC) for month in (8, 9, 10))
NAME = 'Shop <script>alert("x")</script> & $a$'


@dataclass(frozen=True)
class Books:
    """August and September 2020 are closed, October is open. One widget has a plan, one has none."""

    stack: Stack
    db: Connection
    planned: UUID
    free: UUID

    def run(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(environment(self.stack), folder, *arguments)

    def call(self, widget_id: UUID, at: datetime, seconds: float, session: str) -> None:
        """A call that was received as it happened, long ago."""
        end = at + timedelta(seconds=seconds)
        record(self.db, widget_id, session, "call_start", at, call_id="c", received_at=at)
        record(self.db, widget_id, session, "call_end", end, call_id="c", received_at=end)


@pytest.fixture(scope="module")
def books() -> Iterator[Books]:
    with (
        Stack(durable=False, jobs=False) as stack,
        psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as db,
    ):
        planned, free = (
            db.execute("insert into public.widgets (name) values (%s) returning id", [name]).fetchone()["id"]  # type: ignore[index]
            for name in (NAME, "")
        )
        db.execute(
            "insert into public.widget_plans"
            " (widget_id, valid_from, name, increment_seconds, price_per_minute, currency)"
            " values (%s, '2020-01-01', 'Pro', 6, 0.123456789, 'EUR')",
            [planned],
        )
        made = Books(stack, db, planned, free)
        for month in (AUGUST, SEPTEMBER, OCTOBER):
            for n in range(40):
                made.call(planned, month + timedelta(hours=n), 100 + n, f"{month:%B} {n}")
            made.call(free, month, 61.5, f"={month:%B}")
        close(db, "2020-08")
        db.execute("select public.correct_widget_call(%s, 'August 3', 'c', 0, 'goodwill', 'bob')", [planned])
        close(db, "2020-09")
        yield made


def close(db: Connection, month: str) -> None:
    db.execute("select * from public.close_widget_billing_period(%s)", [month])


def manifest_of(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.with_name(f"{file.name}.manifest.json").read_text())
    return content


def exported(books: Books, folder: Path, detail: str, name: str, *options: str) -> Path:
    """Export with a manifest: of the open month, or of the latest closed one."""
    file = folder / name
    month = "2020-10" if detail in ("calls", "usage") else "2020-09"
    done = books.run(
        folder,
        *("export", "--month", month, "--detail", detail, "--format", file.suffix[1:]),
        *("--output", name, "--manifest", *options),
    )
    assert done.returncode == 0, done.stderr
    return file


@pytest.mark.parametrize(
    ("detail", "file_format", "rows", "billed"),
    [
        ("calls", "parquet", 41, "4939.5"),
        ("usage", "csv", 2, "4939.5"),
        ("statements", "jsonl", 3, "4831.5"),
        ("statement-lines", "parquet", 42, "4831.5"),
        ("adjustments", "csv", 1, "-108"),
    ],
)
def test_what_is_exported_is_verified(
    books: Books, tmp_path: Path, detail: str, file_format: str, rows: int, billed: str
) -> None:
    """Each detail: the manifest tells rows, sums and hash, no key, and the database agrees."""
    file = exported(books, tmp_path, detail, f"bill.{file_format}")
    manifest = manifest_of(file)

    done = books.run(tmp_path, "verify", file.name)

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.startswith(f"bill.{file_format}: equal: {rows} ")
    assert manifest["totals"]["rows"] == rows
    assert Decimal(manifest["totals"]["billable_seconds"]) == Decimal(billed)
    assert manifest["file"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert manifest["project"] == "127.0.0.1"
    assert books.stack.secret_key not in json.dumps(manifest)


@pytest.mark.parametrize("detail", ["statements", "statement-lines", "adjustments"])
def test_a_closed_month_is_the_same_from_the_database_itself(books: Books, tmp_path: Path, detail: str) -> None:
    """Its files, in each format, and their manifests but for the moment; and --direct verifies them."""
    env = environment(books.stack, SUPABASE_DB_URL=books.stack.database_url)
    for form in ("csv", "jsonl", "parquet"):
        api = exported(books, tmp_path, detail, f"api.{form}")
        direct = exported(books, tmp_path, detail, f"direct.{form}", "--database-url", books.stack.database_url)

        done = run(env, tmp_path, "verify", api.name, "--direct")

        assert direct.read_bytes() == api.read_bytes()
        assert manifest_of(direct) | {"created_at": ""} == manifest_of(api) | {"created_at": ""}
        assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_what_comes_later_does_not_change_what_is_verified(books: Books, tmp_path: Path) -> None:
    """An end that arrives after the export is on the next one, and the first file is still equal."""
    at = datetime(2020, 11, 10, 12, tzinfo=UTC)
    books.call(books.free, at, 60, "s")
    arguments = ("export", "--month", "2020-11", "--detail", "calls")
    books.run(tmp_path, *arguments, "--manifest", "--output", "bill.csv")
    end = at + timedelta(seconds=30)
    record(books.db, books.free, "s", "call_end", end, call_id="c", source="provider")

    verified = books.run(tmp_path, "verify", "bill.csv")
    now = books.run(tmp_path, *arguments)

    assert (verified.returncode, "60.000000 billable seconds" in verified.stdout) == (0, True)
    assert "30.000000 billable seconds" in now.stderr


def test_each_change_of_a_file_is_named(books: Books, tmp_path: Path) -> None:
    """A number, a row too few, one too many and two in each other's place: exit code 1, and which they are."""
    file = exported(books, tmp_path, "calls", "bill.csv")
    lines = file.read_bytes().decode().split("\r\n")
    places = {line.split(",")[7]: number for number, line in enumerate(lines) if "," in line}
    lines[places["October 7"]] = lines[places["October 7"]].replace(",108,", ",9000,")
    lines[places["October 20"]], lines[places["October 21"]] = lines[places["October 21"]], lines[places["October 20"]]
    lines.insert(places["October 30"], lines[places["October 30"]].replace("October 30", "invented"))
    del lines[places["October 12"]]
    file.write_bytes("\r\n".join(lines).encode())

    done = books.run(tmp_path, "verify", file.name)

    assert done.returncode == 1
    told = done.stdout.splitlines()
    assert "is not the one that was exported" in told[0]
    assert [line.split("session_id ")[1] for line in told[1:]] == [
        "'October 7', call_id 'c': billable_seconds: file '9000', database '108'",
        "'October 12', call_id 'c': only in the database",
        "'October 21', call_id 'c': in another place in the file than in the database",
        "'invented', call_id 'c': only in the file",
    ]
    assert done.stderr == "widget-analytics: bill.csv differs in 5 points\n"


def test_a_damaged_parquet_file_differs(books: Books, tmp_path: Path) -> None:
    """Bytes that cannot be read are a difference, not a crash."""
    file = exported(books, tmp_path, "calls", "bill.parquet")
    content = bytearray(file.read_bytes())
    content[100:200] = bytes(100)
    file.write_bytes(content)

    done = books.run(tmp_path, "verify", file.name)

    assert done.returncode == 1
    assert "SHA-256" in done.stdout
    assert "rows:" not in done.stdout


def test_another_manifest_or_another_price_is_named(books: Books, tmp_path: Path) -> None:
    """Sums that were edited in the manifest, and a plan that was changed afterwards, show."""
    file = exported(books, tmp_path, "usage", "bill.jsonl")
    path = tmp_path / "bill.jsonl.manifest.json"
    path.write_text(path.read_text().replace('"rows": 2', '"rows": 3'))
    books.db.execute(
        "insert into public.widget_plans (widget_id, valid_from, name, increment_seconds, price_per_minute, currency)"
        " values (%s, '2020-10-01', 'New', 6, 1, 'EUR')",
        [books.planned],
    )

    done = books.run(tmp_path, "verify", file.name)

    # As it was, for the other tests.
    books.db.execute("delete from public.widget_plans where valid_from = '2020-10-01'")
    assert done.returncode == 1
    amount, totals, rows = done.stdout.splitlines()
    assert re.search(r"amount: file '10\.\d+', database '\d+\.\d+'", amount)
    assert "amounts: manifest" in totals
    assert rows == "bill.jsonl: rows: manifest 3, database 2"


def test_a_manifest_that_is_missing_or_another_file_is_an_error(books: Books, tmp_path: Path) -> None:
    """One line and exit code 8, which is not that of a difference."""
    (tmp_path / "other.csv").write_text("x")
    (tmp_path / "other.csv.manifest.json").write_text('{"widget_analytics_manifest": 2}')

    missing = books.run(tmp_path, "verify", "none.csv")
    newer = books.run(tmp_path, "verify", "other.csv")

    assert (missing.returncode, newer.returncode) == (8, 8)
    assert missing.stderr == "widget-analytics: cannot read none.csv.manifest.json: No such file or directory\n"
    assert newer.stderr.endswith("is of version 2, this program knows version 1\n")


def test_parquet_has_exact_types(books: Books, tmp_path: Path) -> None:
    """Decimals as decimal128, times in UTC to the microsecond, ids as strings, and the values that CSV has."""
    charges = exported(books, tmp_path, "statements", "charges.parquet")
    lines = exported(books, tmp_path, "adjustments", "lines.parquet")
    as_csv = exported(books, tmp_path, "statements", "charges.csv")

    table = pq.read_table(charges)
    (line,) = pq.read_table(lines).to_pylist()

    assert table.schema.field("new_amount").type == pa.decimal128(38, 6)
    assert table.schema.field("price_per_minute").type == pa.decimal128(38, 12)
    assert table.schema.field("period").type == pa.date32()
    assert pq.read_schema(lines).field("started_at").type == pa.timestamp("us", tz="UTC")
    assert pq.read_schema(lines).field("event_ids").type == pa.list_(pa.string())
    rows = list(csv.DictReader(io.StringIO(as_csv.read_bytes().decode(), newline="")))
    for ours, theirs in zip(table.to_pylist(), rows, strict=True):
        assert ours["widget_id"] == theirs["widget_id"]
        assert ours["new_seconds"] == Decimal(theirs["new_seconds"])
        assert (ours["price_per_minute"] or "") == (theirs["price_per_minute"] and Decimal(theirs["price_per_minute"]))
    assert (line["started_at"], line["session_id"]) == (AUGUST + timedelta(hours=3), "August 3")
    assert (line["old_seconds"], line["new_seconds"], len(line["event_ids"])) == (108, 0, 2)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--format", "parquet"), "--format parquet cannot be streamed: name a file, --output calls.parquet"),
        (("--format", "parquet", "--output", "/dev/null"), "--format parquet cannot be streamed"),
        (("--manifest",), "--manifest lies beside a file: name one"),
        (("--detail", "statements"), "--month: 2020-10 is not closed, so it has no statement yet"),
        (
            ("--detail", "adjustments", "--manifest", "--output", "x.csv"),
            "--manifest: 2020-10 is open, and what is pending changes",
        ),
        (
            ("--detail", "adjustments", "--as-of", "2020-11-01"),
            "--detail adjustments is of a closed month",
        ),
        (("--manifest", "--output", "x.csv", "--as-of", "2999-01-01"), "--as-of: with --manifest at most 20"),
    ],
)
def test_what_makes_no_sense_is_refused(books: Books, tmp_path: Path, arguments: tuple[str, ...], reason: str) -> None:
    """One line, exit code 2, and no file."""
    done = books.run(tmp_path, "export", "--month", "2020-10", *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"widget-analytics: {reason}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "arguments", "said", "extra"),
    [
        (
            "pyarrow",
            ("export", "--format", "parquet"),
            "Parquet needs pyarrow",
            "parquet",
        ),
        ("psycopg", ("export", "--direct"), "--direct needs psycopg", "direct"),
        ("matplotlib", ("report",), "the report needs matplotlib", "report"),
    ],
)
def test_a_missing_extra_is_named(
    tmp_path: Path, package: str, arguments: tuple[str, ...], said: str, extra: str
) -> None:
    """Without the package, one line says how to get it; nothing is asked of the API before."""
    program = f"import sys; sys.modules[{package!r}] = None; from widget_analytics.cli import main; main()"
    env = {"SUPABASE_URL": "http://127.0.0.1:9", "SUPABASE_SECRET_KEY": "sb_secret_x"}

    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--month", "2020-10", "--output", "x"],
        capture_output=True,
        text=True,
        env=env,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )

    how = f"in the repository of widget analytics, pip install './python_client[{extra}]'"
    assert (done.returncode, done.stderr) == (2, f"widget-analytics: {said}: {how}\n")


def test_the_report_of_a_closed_month_is_its_statement(books: Books, tmp_path: Path) -> None:
    """One page that loads nothing: sums, credit and hash of the statement, names as text."""
    statement = books.db.execute(
        "select content_hash from public.widget_billing_periods where period = '2020-09-01'"
    ).fetchone()
    due = books.db.execute(
        "select sum(difference_amount) as due, min(difference_amount) as credit"
        " from public.widget_statement_charges where period = '2020-09-01'"
    ).fetchone()
    assert statement is not None
    assert due is not None

    done = books.run(tmp_path, "report", "--month", "2020-09", "--output", "report.html")

    page = (tmp_path / "report.html").read_text()
    assert (done.returncode, done.stderr) == (0, "")
    assert page.count("<svg") == 2
    assert "<strong>Closed</strong>" in page
    assert statement["content_hash"] in page
    assert f"<dd>{due['due']} EUR</dd>" in page
    assert due["credit"] < 0
    credit = f"{due['credit']} EUR".replace("-", "\N{MINUS SIGN}")
    assert f'<td data-label="Adjustments">{credit}</td>' in page
    assert "set by bob: goodwill" in page
    assert NAME in unescape(page)
    assert "<script" not in page
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?\s*(?:https?:)?//""", page)
    assert books.stack.secret_key not in page


def test_the_report_of_an_open_month_says_so(books: Books, tmp_path: Path) -> None:
    """An open month has its figures so far, an empty one none, and no hash."""
    done = books.run(tmp_path, "report", "--month", "2020-10", "--output", "open.html")
    empty = books.run(tmp_path, "report", "--month", "2020-12", "--output", "empty.html")

    page = (tmp_path / "open.html").read_text()
    assert (done.returncode, empty.returncode) == (0, 0)
    assert "<strong>Open</strong>" in page
    assert "<dt>calls</dt><dd>41</dd>" in page
    assert "SHA-256" not in page
    assert "No billable calls in this month." in (tmp_path / "empty.html").read_text()
