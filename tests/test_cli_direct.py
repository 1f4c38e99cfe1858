"""`export` and `verify` with --direct: what the database itself gives is what the API gives, to the byte."""

import csv
import io
import json
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.rows import dict_row

from local_stack.stack import Stack
from tests.client_support import command, environment, run
from tests.support import Connection
from widget_analytics._spreadsheet import is_surely_safe, safe_text

MONTH, START = "2021-02", datetime(2021, 2, 1, tzinfo=UTC)
# What a sender may call its sessions, to make a line of CSV hard to read, or a formula of it.
NAMES = [
    *("plain", "a,b", 'a"b', '"', '""', ",", "a\nb", "a\r\nb", "\r", "a\tb", "\\.", "\\", " lead", "trail ", "NULL"),
    *("=1+1", "+1", "-1", "@x", "  =1", "a;=1", "a,-1", 'a",=1', "a\n=1", "\n-1", "\t=1", "a|-1", "a-b=c", "a--b", ";"),
    *("\uff1d1", "\uff0d1", "a\u00a0-1", "\u3000-1", "\u2028=1", "ünïcödé", "😀", "\x1f-1", "\x7f", "'=1"),
]  # fmt: skip

_COPY = "copy public.widget_analytics (widget_id, event_type, session_id, call_id, timestamp, received_at) from stdin"


@pytest.fixture(scope="module")
def calls(stack: Stack) -> Stack:
    """A month of 700 calls under strange names, received as they happened, on four widgets; two have plans."""
    with psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as db:
        widgets: list[UUID] = [
            db.execute("insert into public.widgets (name) values ('w') returning id").fetchone()["id"]  # type: ignore[index]
            for _ in range(4)
        ]
        for widget_id, name, terms in ((widgets[0], 'Pro "6", 30', (6, 30)), (widgets[1], "-@ plan", (0, 0))):
            db.execute(
                "insert into public.widget_plans (widget_id, valid_from, name, increment_seconds, minimum_seconds,"
                " price_per_minute, currency) values (%s, '2021-01-01', %s, %s, %s, 0.123456789, 'EUR')",
                [widget_id, name, *terms],
            )
        with db.cursor() as cursor, cursor.copy(_COPY) as copy:
            for place, widget_id in enumerate(widgets):
                for number in range(175):
                    at = START + timedelta(hours=number // 3, microseconds=number // 3)
                    end = at + timedelta(seconds=number, microseconds=number % 5)
                    session = NAMES[number % len(NAMES)] + str(number) * (number >= len(NAMES))
                    call = NAMES[(number * 7 + place) % len(NAMES)]
                    copy.write_row((widget_id, "call_start", session, call, at, at))
                    if number % 17:
                        kind = "call_end" if number % 11 else "call_error"
                        copy.write_row((widget_id, kind, session, call, end, end))
    return stack


def exported(stack: Stack, folder: Path, file: str, *options: str) -> subprocess.CompletedProcess[str]:
    env = environment(stack, SUPABASE_DB_URL=stack.database_url)
    form = file.rpartition(".")[2]
    done = run(env, folder, *("export", "--month", MONTH, "--format", form, "--output", file), *options)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("detail", ["calls", "usage"])
@pytest.mark.parametrize("file_format", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("options", [(), ("--manifest",)], ids=["kept", "as of"])
def test_the_database_gives_what_the_api_gives(
    calls: Stack, tmp_path: Path, detail: str, file_format: str, options: tuple[str, ...]
) -> None:
    """File, manifest and what is said are the same, whatever the ids hold."""
    manifests: list[dict[str, Any]] = []
    for name, way in (("direct", ("--direct",)), ("api", ())):
        moment = ("--as-of", manifests[0]["export"]["as_of"]) if manifests else ()
        said = exported(calls, tmp_path, f"{name}.{file_format}", "--detail", detail, *way, *options, *moment).stderr
        if options:
            manifests.append(json.loads((tmp_path / f"{name}.{file_format}.manifest.json").read_text()))
        assert said.startswith("700 calls, " if detail == "calls" else "4 widgets, ")

    assert (tmp_path / f"direct.{file_format}").read_bytes() == (tmp_path / f"api.{file_format}").read_bytes()
    for manifest in manifests:
        del manifest["created_at"]
    assert not manifests or manifests[0] == manifests[1]


def test_parts_and_groups_of_rows_do_not_show(calls: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a period is parted to be read, and rows to be written, the file is the same."""
    monkeypatch.setattr("widget_analytics._parquet.ROWS_IN_GROUP", 50)
    monkeypatch.setattr("widget_analytics._copy._LINES_IN_BATCH", 50)
    monkeypatch.setattr("widget_analytics._copy._CALLS_IN_PART", 30)

    for file_format in ("csv", "parquet"):
        for name, way in (("direct", ("--direct",)), ("api", ())):
            exported(calls, tmp_path, f"{name}.{file_format}", "--detail", "calls", *way)
        assert (tmp_path / f"direct.{file_format}").read_bytes() == (tmp_path / f"api.{file_format}").read_bytes()


def test_some_widgets_and_some_days(calls: Stack, tmp_path: Path) -> None:
    """--widget, --from and --to mean the same."""
    with psycopg.connect(calls.database_url) as db:
        widgets = db.execute("select id::text from public.widgets where name = 'w' order by id limit 2").fetchall()
    env = environment(calls, SUPABASE_DB_URL=calls.database_url)
    chosen = [word for (widget,) in widgets for word in ("--widget", str(widget))]
    arguments = ("export", "--from", "2021-02-02", "--to", "2021-02-02T12:00:01", "--detail", "calls", *chosen)

    api, direct = (run(env, tmp_path, *arguments, *way) for way in ((), ("--direct",)))

    assert direct.stdout == api.stdout
    assert direct.stderr == api.stderr
    assert direct.stdout.count(str(widgets[0][0])) == direct.stdout.count(str(widgets[1][0])) > 10


def test_each_way_verifies_the_other(calls: Stack, tmp_path: Path) -> None:
    """A file from the one is equal to what the other reads; a changed one is not."""
    env = environment(calls, SUPABASE_DB_URL=calls.database_url)
    exported(calls, tmp_path, "api.csv", "--detail", "calls", "--manifest")
    exported(calls, tmp_path, "direct.parquet", "--detail", "calls", "--manifest", "--direct")
    exported(calls, tmp_path, "changed.jsonl", "--detail", "calls", "--manifest", "--direct")
    changed = tmp_path / "changed.jsonl"
    changed.write_text(changed.read_text().replace('"failed"', '"completed"', 1))

    checks = [
        run(env, tmp_path, "verify", "api.csv", "--direct"),
        run(env, tmp_path, "verify", "direct.parquet"),
        run(env, tmp_path, "verify", "changed.jsonl", "--database-url", calls.database_url),
    ]

    assert [done.returncode for done in checks] == [0, 0, 1], [done.stderr for done in checks]
    assert "outcome: file '\"completed\"', database '\"failed\"'" in checks[2].stdout


def test_no_api_is_asked(calls: Stack, tmp_path: Path) -> None:
    """Neither its address nor a key is needed; an address that is named comes before the environment's."""
    base = {name: value for name, value in environment(calls).items() if not name.startswith("SUPABASE")}
    arguments = ("export", "--month", MONTH, "--database-url", calls.database_url)

    done = run(base | {"SUPABASE_DB_URL": "postgresql://127.0.0.1:9/x"}, tmp_path, *arguments)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("", 3, "no database: set SUPABASE_DB_URL in the environment or in .env"),
        ("http://example.com", 3, "SUPABASE_DB_URL must look like postgresql://"),
        ("postgresql://postgres@127.0.0.1:9/postgres", 4, "the database of SUPABASE_DB_URL cannot be reached"),
        ("{url}/template1", 5, "the database lacks what this needs"),
        (
            "{url}/postgres?options=-crole%3Dauthenticated",
            3,
            "SUPABASE_DB_URL must be of a role that reads all widgets'",
        ),
        ("{url}/postgres?options=-crole%3Danon", 3, "SUPABASE_DB_URL must be of a role that reads all widgets' rows"),
    ],
)
def test_what_goes_wrong_is_one_line(calls: Stack, tmp_path: Path, url: str, code: int, said: str) -> None:
    """With the API's exit codes, and no file."""
    server = calls.database_url.rpartition("/")[0]
    env = environment(calls, SUPABASE_DB_URL=url.format(url=server))

    done = run(env, tmp_path, *("export", "--month", MONTH, "--detail", "calls", "--direct", "--output", "calls.csv"))

    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.startswith(f"widget-analytics: {said}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_enough_ends_a_direct_export_quietly(calls: Stack, tmp_path: Path) -> None:
    """As `head` does."""
    env = environment(calls, SUPABASE_DB_URL=calls.database_url)
    arguments = command("export", "--month", MONTH, "--detail", "calls", "--direct")
    process = subprocess.Popen(arguments, env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None

    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()

    assert process.wait(timeout=30) == 141
    assert said == b""


def test_a_direct_export_that_is_stopped_leaves_no_file(calls: Stack, db: Connection, tmp_path: Path) -> None:
    """Though the database computes and the other thread waits: soon, and with one line."""
    with psycopg.connect(calls.database_url) as holder:
        holder.execute("lock table public.widget_calls in access exclusive mode")
        env = environment(calls, SUPABASE_DB_URL=calls.database_url)
        arguments = command("export", "--month", MONTH, "--detail", "calls", "--direct", "--output", "calls.csv")
        process = subprocess.Popen(arguments, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        waits = "select from pg_stat_activity where application_name = 'widget-analytics' and wait_event_type = 'Lock'"
        while db.execute(waits).fetchone() is None:
            assert process.poll() is None
            time.sleep(0.05)

        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)

    assert (process.returncode, said) == (143, "widget-analytics: stopped\n")
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.text(alphabet=st.sampled_from("ab1-=+@,;|\"' \t\r\n\u00a0\uff1d\u3000é")), min_size=1, max_size=4))
def test_lines_that_are_surely_safe_are(texts: list[str]) -> None:
    """No cell of theirs could begin a formula."""
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\n").writerow(texts)

    if is_surely_safe(line.getvalue().encode()):
        assert [safe_text(text) for text in texts] == texts
