"""The verbs that write what bills rest on: they show what will happen, ask, and say what to do instead."""

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from local_stack.stack import Stack
from tests.billing_books import add_plan, call, close, correct
from tests.client_support import command, environment, run
from tests.support import Connection
from widget_analytics import WidgetAnalytics

AUGUST, SEPTEMBER, OCTOBER = (datetime(2020, month, 10, 12, tzinfo=UTC) for month in (8, 9, 10))


@dataclass(frozen=True)
class Books:
    """August 2020 is closed and has something pending; September and October wait. Two widgets share a name."""

    stack: Stack
    db: Connection
    folder: Path
    shop: UUID
    twins: tuple[UUID, UUID]

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return run(environment(self.stack), self.folder, *arguments)

    def value(self, query: str, *values: object) -> Any:
        row = self.db.execute(query.encode(), values).fetchone()
        return None if row is None else next(iter(row.values()))


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with (
        Stack(durable=False, jobs=False) as stack,
        psycopg.connect(stack.database_url, autocommit=True, row_factory=dict_row) as db,
    ):

        def widget(name: str) -> UUID:
            row = db.execute("insert into public.widgets (name) values (%s) returning id", [name]).fetchone()
            assert row is not None
            made: UUID = row["id"]
            return made

        shop, twins = widget("Müller's shop"), (widget("Twin"), widget("Twin"))
        add_plan(db, shop, AUGUST.date().replace(day=1), included_seconds=60)
        for month in (AUGUST, SEPTEMBER, OCTOBER):
            call(db, shop, month, 120, session=f"{month:%B}")
        close(db, "2020-08")
        correct(db, shop, 60, "August")
        yield Books(stack, db, tmp_path_factory.mktemp("books"), shop, twins)


def seconds_of(books: Books, session: str) -> Decimal:
    query = "select duration_seconds from public.widget_calls where widget_id = %s and session_id = %s"
    return Decimal(books.value(query, books.shop, session))


CORRECT = (
    "correct",
    "--widget",
    "müller's SHOP",
    "--call",
    "c",
    "--session",
    "October",
    "--reason",
    "heard",
    "--by",
    "B",
)


def test_a_dry_run_changes_nothing(books: Books) -> None:
    """What is billed now and what will be, and nothing else."""
    done = books.run(*CORRECT, "--seconds", "30", "--dry-run")

    assert done.returncode == 0
    assert "billed   120 s, 0.200000 EUR" in done.stdout
    assert "will be  30 s long, as B says: heard" in done.stdout
    assert done.stdout.endswith("nothing was changed (--dry-run)\n")
    assert seconds_of(books, "October") == 120


def test_without_a_terminal_it_takes_yes(books: Books) -> None:
    """A script that forgets --yes is told; with it the call is corrected."""
    refused = books.run(*CORRECT, "--seconds", "40")
    before = seconds_of(books, "October")
    done = books.run(*CORRECT, "--seconds", "40", "--yes")

    assert (refused.returncode, before == 120) == (2, True)
    assert (
        refused.stderr == "widget-analytics: nothing was changed: to be asked takes a terminal; in a script add --yes\n"
    )
    assert "billed   40 s, 0.066667 EUR: exact duration" in done.stdout
    assert seconds_of(books, "October") == 40


@pytest.mark.parametrize(("answer", "code", "after"), [("n", 1, 40), ("y", 0, 50)])
def test_a_terminal_is_asked(books: Books, answer: str, code: int, after: int) -> None:
    """No changes nothing and exits with 1; yes does it."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(*CORRECT, "--seconds", "50"),
        env=environment(books.stack),
        cwd=books.folder,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(ours, f"{answer}\n".encode())
    _, said = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)

    assert (process.returncode, "Go on? [y/N]" in said) == (code, True)
    assert seconds_of(books, "October") == after


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("widget", "set", "Twin", "--inactive"), "NAME: 2 widgets are called 'Twin', give the id: 'Twin' ("),
        (
            ("widget", "set", "Mullers shop", "--inactive"),
            "NAME: no widget is called 'Mullers shop'; do you mean \"Müller's",
        ),
        (
            ("export", "--month", "2020-08", "--widget", "Nothing"),
            "--widget: there is no widget 'Nothing'; there are: ",
        ),
        (
            ("widget", "add", "X", "--domain", "https://a.example/x"),
            "--domain: 'https://a.example/x' has a scheme; a host",
        ),
        (
            ("widget", "add", "X", "--domain", "a.example:8080"),
            "--domain: 'a.example:8080' has a port; a host alone is",
        ),
        (("widget", "add", "X", "--domain", "[::1]:3000"), "--domain: '[::1]:3000' has a port; a host alone is meant"),
        (("widget", "add", "X", "--domain", "a.example/shop"), "--domain: 'a.example/shop' has a path; all pages of a"),
        (("widget", "add", "X", "--domain", "a b"), "--domain: 'a b' is no host; write it as shop.example"),
        (
            ("widget", "add", "X", "--owner", "who@x.example"),
            "--owner: no user has the address 'who@x.example': invite",
        ),
        (("widget", "add", "a\nb"), "NAME: must be a line of 1 to 100 letters"),
        (("widget", "set", "Müller's shop"), "say what to change: --name, --domain"),
        (("close", "--month", "2020-10"), "--month: close --month 2020-09 first: it waits to be closed"),
        (("close", "--month", "2999-01"), "--month: close --month 2020-09 first"),
        (("close", "--schedule", "6"), "--schedule: must be off, or 7 to 3660 days"),
        (
            ("void", "--widget", "Müller's shop", "--call", "c", "--reason", "x"),
            "--call: 3 sessions have a call 'c', give",
        ),
        (("void", "--widget", "Müller's shop", "--call", "d", "--reason", "x"), '--call: "Müller\'s shop" has no call'),
        ((*CORRECT, "--seconds", "-1"), "--seconds: must be a number of 0 or more, not '-1'"),
        (
            ("record", "--widget", "Twin", "--session", "s", "--call", "c", "--record", "r"),
            "say when the call began or",
        ),
        (("plan", "set", "--widget", str(UUID(int=1)), "--from", "2020-11"), "--widget: there is no widget"),
        (
            ("plan", "set", "--widget", "Müller's shop", "--from", "2020-11", "--currency", "euro"),
            "plan set: currency must",
        ),
        (
            ("report", "--month", "2020-08", "-o", "x", "--customer", "C-9"),
            "--customer: no widget has 'C-9'; there are: ",
        ),
        (("report", "--month", "2020-08", "-o", "x", "--customer", "a", "--owner", "b"), "a page is of one of these"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_do(books: Books, arguments: tuple[str, ...], said: str) -> None:
    """One line, exit code 2."""
    done = books.run(*arguments)

    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"widget-analytics: {said}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("plan", "set", "--widget", "Müller's shop", "--from", "2020-08", "--price", "1", "--yes"),
            "refused: valid_from: this plan would hold, or holds, for 2020-08, which is closed (Add a plan that holds",
        ),
        ((*CORRECT, "--seconds", "99999", "--yes"), "refused: duration_seconds: must be from 0, which voids the call"),
        (
            (
                *("record", "--widget", "Müller's shop", "--session", "other", "--call", "c", "--record", "r"),
                *("--from", "2020-10-10T12:00:00Z", "--yes"),
            ),
            "refused: session_id: call c is known as one of session October (Give that session_id",
        ),
    ],
)
def test_what_the_database_refuses_says_what_to_do(books: Books, arguments: tuple[str, ...], said: str) -> None:
    """Its own words and hint, exit code 6."""
    done = books.run(*arguments)

    assert (done.returncode, done.stderr.startswith(f"widget-analytics: {said}")) == (6, True), done.stderr


def test_a_widget_is_added_and_changed(books: Books) -> None:
    """Hosts in small letters and punycode, localhost, owner and customer; a customer can be taken away again."""
    owner_id = books.value("insert into auth.users (id, email) values (gen_random_uuid(), 'o@x.example') returning id")
    added = books.run(
        *("widget", "add", "Reisebüro", "--domain", "Münchner-Büro.example", "--domain", "*.Travel.example"),
        *("--domain", "localhost", "--customer", "C-1", "--owner", "O@x.example", "--yes"),
    )
    widget_id = added.stdout.splitlines()[-1]
    listed = books.run("widget", "list", "--customer", "C-1").stdout
    changed = books.run("widget", "set", widget_id, "--customer", "", "--domain", "*", "--inactive", "--yes")

    row = books.db.execute(
        "select name, allowed_domains, is_active, owner_id from public.widgets where id = %s", [widget_id]
    ).fetchone()
    assert "xn--mnchner-bro-thbi.example, *.travel.example, localhost" in listed
    assert "o@x.example" in listed
    assert changed.returncode == 0, changed.stderr
    assert "allowed domains: xn--mnchner-bro-thbi.example, *.travel.example, localhost -> *" in changed.stdout
    assert row == {"name": "Reisebüro", "allowed_domains": ["*"], "is_active": False, "owner_id": owner_id}
    assert books.value("select count(*) from public.widget_customers where widget_id = %s", widget_id) == 0


def test_a_plan_is_set_from_a_file(books: Books) -> None:
    """Options go before the file; digits stay; what the bill becomes is shown; the month's own plan is replaced."""
    (books.folder / "plan.json").write_text('{"price_per_minute": 0.123456789, "currency": "EUR", "monthly_fee": 5}')
    set_plan = ("plan", "set", "--widget", str(books.shop), "--from", "2020-10", "--file", "plan.json", "--name", "New")
    first = books.run(*set_plan, "--yes")
    second = books.run(*set_plan, "--assumed", "300", "--yes")

    row = books.db.execute(
        "select name, price_per_minute, monthly_fee, included_seconds, assumed_calls from public.widget_plans"
        " where widget_id = %s and valid_from = '2020-10-01'",
        [books.shop],
    ).fetchall()
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "now      Pro from 2020-08: 0.10 EUR a minute, 60 s included" in first.stdout
    assert "will be  New: 0.123456789 EUR a minute, 5.00 EUR a month" in first.stdout
    assert "2020-10  0.00 EUR -> 5.10 EUR" in first.stdout
    assert "(is replaced)" in second.stdout
    assert [list(one.values()) for one in row] == [["New", Decimal("0.123456789"), 5, 0, "300"]]


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        ("[]", 8, "plan.json must hold an object"),
        ("{", 8, "plan.json is no JSON"),
        ('{"price_per_minute": 1}', 2, "plan.json: a plan needs currency"),
        (
            '{"price_per_minute": 1, "currency": "EUR", "discount": 5}',
            2,
            "plan.json: a plan has no 'discount'; it has price",
        ),
        ('{"price_per_minute": "x", "currency": "EUR"}', 2, "plan.json: price_per_minute must be a number, not 'x'"),
        ('{"price_per_minute": -1, "currency": "EUR"}', 2, "plan.json: price_per_minute must be 0 or more"),
        (
            '{"price_per_minute": 1, "currency": "EUR", "included_seconds": 1.5}',
            2,
            "plan.json: included_seconds must be whole",
        ),
        (
            '{"price_per_minute": 1, "currency": "EUR", "assumed_calls": "some"}',
            2,
            "plan.json: assumed_calls must be full",
        ),
        (
            '{"price_per_minute": 1, "currency": "EUR", "bills_failed_calls": 1}',
            2,
            "plan.json: bills_failed_calls must be",
        ),
    ],
)
def test_a_draft_that_is_no_plan_is_refused(books: Books, content: str, code: int, said: str) -> None:
    """One line that names the column."""
    (books.folder / "plan.json").write_text(content)

    done = books.run("what-if", "plan.json", "--month", "2020-08")

    assert (done.returncode, done.stderr.startswith(f"widget-analytics: {said}")) == (code, True), done.stderr


def test_a_draft_rates_a_closed_months_calls(books: Books) -> None:
    """Before: what was charged. By the draft: the calls as they are now, of which one was corrected since."""
    (books.folder / "draft.json").write_text('{"price_per_minute": 0.60, "currency": "EUR"}')

    done = books.run("what-if", "draft.json", "--month", "2020-08", "--widget", "Müller's shop")

    assert done.stdout.splitlines()[4].split() == (
        "Müller's shop 120 60 0.10 EUR 0.60 EUR 0.50 EUR".split()  # noqa: SIM905
    )


def test_months_wait_and_something_is_pending(books: Books) -> None:
    """`status`, `close` and `adjustments` say so, with when to close and the schedule, off unless switched on."""
    status = books.run("status").stdout
    listed = books.run("close").stdout
    pending = books.run("adjustments", "--month", "2020-09").stdout
    switched = [books.run("close", "--schedule", days).stdout for days in ("9", "off")]
    dry = books.run("close", "--month", "2020-09", "--dry-run").stdout
    reports = []
    for days in ("9", "off"):
        books.run("close", "--schedule", days)
        books.run("report", "--month", "2020-10", "--output", "open.html")
        reports.append(" ".join((books.folder / "open.html").read_text().split()))

    assert "to close         2020-09 waits to be closed: close --month 2020-09" in status
    assert "pending          2020-08 is closed, and 1 call changed since: -60 seconds, -0.10 EUR" in status
    assert listed.splitlines()[-1].startswith(
        "close --schedule 8 has months closed by themselves, 8 days after their end"
    )
    assert pending.splitlines()[2].split()[-3:] == ["120", "60", "-60"]
    assert switched == [
        "months are closed by themselves, 9 days after their end\n",
        "months are closed by nobody but you\n",
    ]
    assert books.value("select close_months_after from widget_internal.settings") is None
    by_itself, by_hand = reports
    assert "months wait to be closed, the earliest: September 2020. It is closed by itself from " in by_itself
    assert "Nothing closes it by itself: widget-analytics close --month 2020-09<" in by_hand
    assert "2020-08 adjusted      -60" in dry
    assert "to be paid: 0.00 EUR" in dry
    assert books.value("select count(*) from public.widget_billing_periods") == 1


def test_a_month_that_is_not_over_is_only_shown(books: Books) -> None:
    """--dry-run shows this month so far, with what waits before it and until when events may come."""
    this_month = f"{datetime.now(UTC):%Y-%m}"

    shown = books.run("close", "--month", this_month, "--dry-run")

    assert shown.returncode == 0, shown.stderr
    assert "2020-09 waits to be closed before it" in shown.stdout
    assert "browsers' events may come until " in shown.stdout


def test_names_stand_in_exports_and_change_no_bill(books: Books) -> None:
    """Names, owner and customer label each row, alike with --direct; a name that changes later is no difference."""
    done = books.run("export", "--month", "2020-08", "--format", "excel", "-o", "a.csv")
    direct = books.run(
        *("export", "--month", "2020-08", "--format", "excel", "-o", "b.csv"),
        *("--database-url", books.stack.database_url),
    )
    books.run("export", "--month", "2020-08", "--detail", "calls", "-o", "c.csv", "--manifest")
    books.run("widget", "set", str(books.shop), "--name", "Renamed", "--yes")
    verified = books.run("verify", "c.csv")
    books.run("widget", "set", str(books.shop), "--name", "Müller's shop", "--yes")

    content = (books.folder / "a.csv").read_bytes()
    header, row = content.decode("utf-8-sig").splitlines()
    named = dict(zip(header.split(","), row.split(","), strict=True))
    assert content == (books.folder / "b.csv").read_bytes()
    assert content.startswith(
        b"\xef\xbb\xbfwidget_name,customer_reference,owner_id,owner_email,period_start,period_end,"
    )
    assert (named["widget_name"], named["period_start"]) == ("Müller's shop", "2020-08-01T00:00:00.000000Z")
    assert (named["amount"], named["pending_amount"], named["is_closed"]) == ("0.10", "-0.10", "true")
    assert done.stderr == direct.stderr.replace("b.csv", "a.csv")
    assert done.stderr.endswith(
        "closed: this is what was charged; pending, and not in it: 1 call, -60.000000 seconds, -0.10 EUR\n"
    )
    assert (verified.returncode, "equal" in verified.stdout) == (0, True), verified.stdout


def test_owners_export_their_own_names(books: Books) -> None:
    """A signed-in owner's directory has the own widgets alone, with the own address; nobody else's is told."""
    owner_id = books.value("insert into auth.users (id, email) values (gen_random_uuid(), 'me@x.example') returning id")
    books.db.execute("insert into public.widgets (name, owner_id) values ('Mine', %s)", [owner_id])
    token = books.stack.token_for(owner_id)
    with WidgetAnalytics(
        url=books.stack.api_url, publishable_key=books.stack.publishable_key, access_token=token
    ) as client:
        found = [(widget.name, widget.owner_email) for widget in client.widgets()]
    stranger = books.value("insert into auth.users (id, email) values (gen_random_uuid(), 's@x.example') returning id")
    with books.db.transaction(force_rollback=True):
        claims = json.dumps({"role": "authenticated", "sub": str(owner_id)})
        books.db.execute("select set_config('request.jwt.claims', %s, true)", [claims])
        books.db.execute("set local role authenticated")
        told = [books.value("select widget_internal.owner_email(%s)", user) for user in (owner_id, stranger)]

    assert found == [("Mine", "me@x.example")]
    assert told == ["me@x.example", None]


def test_a_period_of_closed_and_open_months_says_which(books: Books) -> None:
    """On standard error, and in each row."""
    part = books.run("export", "--from", "2020-08-05", "--to", "2020-09-20", "--detail", "calls")
    as_of = books.run("export", "--month", "2020-08", "--as-of", "2999-01-01")
    inside = books.run("export", "--from", "2020-08-05", "--to", "2020-08-20")

    assert "closed in part: of 2020-08 this is what was charged, of the rest what the ledger says now" in part.stderr
    assert [row.rsplit(",", 1)[1] for row in part.stdout.splitlines()[1:]] == ["true", "false"]
    assert "what the ledger said then, not what was charged for 2020-08" in as_of.stderr
    assert inside.stderr.splitlines()[1].startswith("closed: this is what was charged; pending")
