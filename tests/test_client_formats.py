"""How rows are written: what a spreadsheet or a program finds in the file."""

import csv
import io
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from widget_analytics import Call, Evidence, Outcome
from widget_analytics._formats import FORMATS
from widget_analytics._lines import lines_of
from widget_analytics._spreadsheet import safe_text

WIDGET = UUID("0195f2a0-0000-7000-8000-000000000001")


def a_call(**changes: object) -> Call:
    fields = {
        "widget_id": WIDGET,
        "session_id": "s1",
        "call_id": "c1",
        "started_at": datetime(2026, 10, 1, 8, 30, tzinfo=UTC),
        "ended_at": datetime(2026, 10, 1, 8, 32, 0, 1, tzinfo=UTC),
        "outcome": Outcome.COMPLETED,
        "evidence": Evidence.OBSERVED,
        "duration_seconds": Decimal("120.000001"),
        "billable_seconds": Decimal("120.000001"),
        "rule": "exact duration",
        "amount": Decimal("0.200000"),
        "currency": "EUR",
        "is_closed": False,
    }
    return Call(**(fields | changes))  # type: ignore[arg-type]  # tests change what they mean to


def written(name: str, calls: tuple[Call, ...]) -> str:
    file = io.BytesIO()
    FORMATS[name].write(Call, lines_of(Call, calls, 1_000), file)
    return file.getvalue().decode()


def as_csv(*calls: Call) -> str:
    return written("csv", calls)


def as_jsonl(*calls: Call) -> str:
    return written("jsonl", calls)


def test_csv_is_rfc_4180_in_a_stable_order() -> None:
    """A header, CRLF, times in UTC to the microsecond, numbers as they are, nothing where there is nothing."""
    open_call = a_call(
        ended_at=None, outcome=Outcome.OPEN, evidence=None, duration_seconds=None, billable_seconds=Decimal(0)
    )

    assert as_csv(a_call(), open_call) == (
        "widget_id,session_id,call_id,started_at,ended_at,outcome,evidence,duration_seconds,billable_seconds,rule,"
        "amount,currency,is_closed\r\n"
        "0195f2a0-0000-7000-8000-000000000001,s1,c1,2026-10-01T08:30:00.000000Z,2026-10-01T08:32:00.000001Z,"
        "completed,observed,120.000001,120.000001,exact duration,0.200000,EUR,false\r\n"
        "0195f2a0-0000-7000-8000-000000000001,s1,c1,2026-10-01T08:30:00.000000Z,,open,,,0,exact duration,"
        "0.200000,EUR,false\r\n"
    )


def test_times_of_another_zone_are_written_in_utc() -> None:
    """08:30 at +02:00 is 06:30."""
    elsewhere = datetime(2026, 10, 1, 8, 30, tzinfo=timezone(timedelta(hours=2)))

    assert "2026-10-01T06:30:00.000000Z" in as_csv(a_call(started_at=elsewhere))


def test_csv_keeps_any_text_in_its_cell() -> None:
    """Separators, quotes, line breaks and other alphabets come back as they were."""
    text = 'a,b;"c"\r\nd\u2028é 🙂'

    rows = list(csv.reader(io.StringIO(as_csv(a_call(session_id=text)), newline="")))

    assert rows[1][1] == text
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t'=1"),
        ("\r=1", "'\r'=1"),
        ("\tx", "'\tx"),
        ("  =1", "'  =1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("a;=1", "a;'=1"),
        ('a",=1', "a\",'=1"),
        ("a\n=1", "a\n'=1"),
        ("a|-1", "a|'-1"),
        ("a-b=c", "a-b=c"),
        ("0195f2a0-0000-7000-8000-000000000001", "0195f2a0-0000-7000-8000-000000000001"),
        ("", ""),
    ],
)
def test_text_cannot_begin_a_formula(text: str, safe: str) -> None:
    """Wherever a cell may begin, an apostrophe stands before what begins a formula; other text stays as it is."""
    assert safe_text(text) == safe


def test_negative_numbers_stay_numbers_in_csv() -> None:
    """Only text is guarded: a correction of minus two minutes can be added up."""
    assert ",-120.5," in as_csv(a_call(billable_seconds=Decimal("-120.5")))


def test_json_lines_keep_every_digit_and_every_character() -> None:
    """Decimals are numbers that a reader who keeps digits gets whole; ids are to the letter."""
    digits = Decimal("123456789012345678.000001")

    line = json.loads(as_jsonl(a_call(billable_seconds=digits, session_id='=1+"é"')), parse_float=Decimal)

    assert line["billable_seconds"] == digits
    assert line["session_id"] == '=1+"é"'
    assert line["started_at"] == "2026-10-01T08:30:00.000000Z"
    assert list(line) == list(Call.columns())


def test_small_and_large_decimals_have_no_exponent() -> None:
    """1E-6 and 1E+3 are written out, as finance programs read them."""
    text = as_jsonl(a_call(duration_seconds=Decimal("1E-6"), billable_seconds=Decimal("1E+3")))

    assert '"duration_seconds":0.000001,"billable_seconds":1000,' in text


def test_an_open_call_has_nulls_in_json() -> None:
    """What is not known yet is null, not zero and not left out."""
    line = json.loads(as_jsonl(a_call(ended_at=None, evidence=None, duration_seconds=None)))

    assert (line["ended_at"], line["evidence"], line["duration_seconds"]) == (None, None, None)


# In KiB. Linux's `ru_maxrss` would count what the parent had when it started this process.
PRINT_PEAK = """
if sys.platform == "linux":
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
else:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "parquet"])
def test_many_rows_are_written_in_little_memory(tmp_path: Path, file_format: str) -> None:
    """50,000 calls pass through in under 200 MB; `scripts/bench --only export` measures the command."""
    program = """
import sys
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from widget_analytics import Call
from widget_analytics._formats import FORMATS
from widget_analytics._lines import batches, to_lines

def rows():
    for n in range(50_000):
        start = datetime(2026, 10, 1, tzinfo=UTC) + timedelta(seconds=n)
        yield {
            "widget_id": "0195f2a0-0000-7000-8000-000000000001", "session_id": f"session-{n:036}",
            "call_id": f"call-{n:08}",
            "started_at": start.isoformat(), "ended_at": (start + timedelta(seconds=n)).isoformat(),
            "outcome": "completed", "evidence": "observed", "duration_seconds": f"{n}.000001",
            "billable_seconds": f"{n}.000001", "rule": f"rule {n}", "amount": f"{n}.123456", "currency": "EUR",
            "is_closed": n % 2 == 0,
        }

with open(sys.argv[2], "wb") as file:
    lines = to_lines(Call, map(itemgetter(*Call.columns()), rows()))
    FORMATS[sys.argv[1]].write(Call, batches(lines, 1_000), file)
"""
    command = [sys.executable, "-c", program + PRINT_PEAK, file_format, str(tmp_path / "calls")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)

    assert int(done.stdout) / 1024 < 200
