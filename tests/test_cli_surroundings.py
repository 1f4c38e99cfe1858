"""The command where its surroundings are odd: one line says what is wrong, and nothing is half done."""

import os
import shlex
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from local_stack.stack import Stack
from tests.client_support import command, environment, run
from tests.conftest import NewWidget
from tests.support import Connection, record
from widget_analytics._push.charges import customers_of


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("export --from 0001-01-01T00:00+05:00 --to 2026-10-01", 2, "--from: '0001-01-01T00:00+05:00' is not a date"),
        ("export --from 2026-10-01 --to 9999-12-31T23:59-05:00", 2, "--to: '9999-12-31T23:59-05:00' is not a date"),
        ("close --schedule 99999999999 --dry-run", 2, "--schedule: must be off, or 7 to 3660 days"),
        ("what-if huge.json --month 2026-10", 2, "huge.json: included_seconds must be at most 2147483647, not 1E+30"),
        ("export --month 2026-10 --widget \udcff", 2, "--widget: there is no widget '\\udcff'"),
        (
            "correct --widget {widget} --session s --call \udcff --seconds 1 --reason r --by me --yes",
            2,
            "an option's value is not text in this system's encoding: '\\udcff'",
        ),
    ],
)
def test_values_that_no_bill_has(
    stack: Stack, tmp_path: Path, new_widget: NewWidget, line: str, code: int, said: str
) -> None:
    """Times at the ends of the calendar, huge numbers, bytes that are no UTF-8."""
    (tmp_path / "huge.json").write_text('{"price_per_minute": 1, "currency": "EUR", "included_seconds": 1e30}')

    done = run(environment(stack), tmp_path, *line.format(widget=new_widget()).split())

    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert done.stderr.startswith(f"widget-analytics: {said}")


def test_a_cleanup_after_longer_than_time_lasts(stack: Stack, tmp_path: Path) -> None:
    """The option's greatest value is named."""
    done = run(environment(stack), tmp_path, "cleanup", "--stale-after", "1e300")

    assert done.returncode == 2
    assert "Invalid value for '--stale-after'" in done.stderr


@pytest.mark.parametrize("url", ["http://[::1", "http://localhost:port", "http://localhost:99999", "http://a..b"])
def test_a_url_that_is_none(stack: Stack, tmp_path: Path, url: str) -> None:
    """A setting that cannot be right is 3, not the 1 by which `status` says that the cleanup is late."""
    done = run(environment(stack, SUPABASE_URL=url), tmp_path, "status")

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("widget-analytics: SUPABASE_URL must look like https://your-project.supabase.co")


@pytest.mark.parametrize(
    ("name", "value"), [("HTTP_PROXY", "gopher://127.0.0.1"), ("SSL_CERT_FILE", "/no/such/file.pem")]
)
def test_a_proxy_or_certificates_that_cannot_be_used(stack: Stack, tmp_path: Path, name: str, value: str) -> None:
    """They are settings too; `doctor` says the same."""
    env = environment(stack, **{name: value})

    done, examined = (run(env, tmp_path, verb) for verb in ("status", "doctor"))

    said = "the proxy or the certificates that the environment names cannot be used"
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert done.stderr.startswith(f"widget-analytics: {said}")
    assert examined.returncode == 15
    assert examined.stdout.startswith(f"settings          problem  {said}")


def test_a_settings_file_in_another_encoding(stack: Stack, tmp_path: Path) -> None:
    """As an editor on Windows may save it; no line of it is shown, as it holds keys."""
    (tmp_path / ".env").write_text("SUPABASE_URL=http://localhost", encoding="utf-16")

    done = run(environment(stack), tmp_path, "status")

    assert done.returncode == 3
    assert done.stderr == f"widget-analytics: {tmp_path / '.env'} cannot be read: save it as UTF-8\n"


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("widget list > /dev/full", 7, "widget-analytics: cannot write standard output: No space left on device\n"),
        ("status > /dev/full", 7, "widget-analytics: cannot write standard output: No space left on device\n"),
        ("export --month 2026-10 >&-", 7, "widget-analytics: cannot write standard output: it is closed\n"),
        (
            "widget add X <&-",
            2,
            "widget-analytics: nothing was changed: to be asked takes a terminal; in a script add ",
        ),
        ("PYTHONIOENCODING=latin-1 widget list", 0, ""),
    ],
)
def test_streams_that_take_nothing(
    stack: Stack, tmp_path: Path, new_widget: NewWidget, line: str, code: int, said: str
) -> None:
    """A full disk, closed streams, a terminal whose alphabet lacks a widget's letters."""
    new_widget(name="東京")
    settings, _, arguments = line.rpartition("latin-1 ")
    words = f"{settings}latin-1 " if settings else ""

    done = subprocess.run(
        ["/bin/bash", "-c", f"{words}{shlex.join(command())} {arguments}"],
        env=environment(stack), cwd=tmp_path, capture_output=True, check=False, timeout=60,
    )  # fmt: skip

    assert done.returncode == code
    assert done.stderr.decode().startswith(said)
    assert b"Traceback" not in done.stderr
    assert words == "" or rb"\u6771\u4eac" in done.stdout


def test_a_user_without_a_name(
    stack: Stack, tmp_path: Path, db: Connection, new_widget: NewWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that runs under a number: who corrects a bill has to be said."""
    widget_id = new_widget()
    record(db, widget_id, "s", "call_start", datetime.now(UTC), call_id="c")
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    correct = ("correct", "--widget", str(widget_id), "--call", "c", "--seconds", "1", "--reason", "r", "--yes")

    done = run(environment(stack), tmp_path, *correct)

    assert (done.returncode, done.stderr) == (2, "widget-analytics: --by: this login has no name, say who decides\n")


@pytest.mark.parametrize("verb", ["add", "set"])
def test_a_customer_that_cannot_be_leaves_no_half_of_a_widget(
    stack: Stack, tmp_path: Path, db: Connection, new_widget: NewWidget, verb: str
) -> None:
    """It is refused before anything is written: run again with the right customer, one widget is there."""
    name = f"Half {verb}"
    which = [name] if verb == "add" else [str(new_widget()), "--name", name]

    done = run(environment(stack), tmp_path, "widget", verb, *which, "--customer", "x\ny", "--yes")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "widget-analytics: --customer: must be a line of 1 to 100 letters\n"
    found: list[UUID] = [row["id"] for row in db.execute("select id from public.widgets where name = %s", [name])]
    assert found == []


def test_a_customer_without_widgets(stack: Stack, tmp_path: Path, new_widget: NewWidget) -> None:
    """The list does not say that there is no widget at all."""
    new_widget()

    done = run(environment(stack), tmp_path, "widget", "list", "--customer", "nobody")

    assert done.stdout == "no widget has the customer 'nobody'\n"


def test_a_customers_file_with_a_short_line(tmp_path: Path) -> None:
    """An id without a reference is nobody's."""
    (tmp_path / "customers.csv").write_text("id,reference\ncus_1\ncus_2,K-2\n")

    assert customers_of(tmp_path / "customers.csv") == {"K-2": "cus_2", "": "cus_1"}
