"""What the archive refuses, and how: other runs, poolers, roles of the API, months that must stay, mistakes."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from local_stack.stack import Stack
from tests.archive_support import (
    JANUARY,
    close_months,
    command,
    connect,
    database_copy,
    ledger,
    move,
    new_server,
    new_widget,
    session,
)
from tests.support import Connection
from widget_analytics._archive.move import refuse_pooler
from widget_analytics.errors import UsageError


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


def test_each_step_runs_in_the_server_process_that_holds_the_lock(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path
) -> None:
    """A transaction pooler may change it: a step elsewhere is refused, and so is a second run in the same process."""
    session(db, widget_id, JANUARY, "s")
    close_months(db, "2026-01")
    steps = (
        "start_archive('2026-01-01', 'x')",
        "next_archive_part('2026-01-01')",
        "archived_events('2026-01-01', 1)",
        "release_archive_part('2026-01-01', 1, 0, 0)",
    )
    with connect(url) as holder:
        holder.execute("select widget_internal.hold_archive(take => true)")

        with pytest.raises(psycopg.errors.LockNotAvailable, match="another archive is running"):
            holder.execute("select widget_internal.hold_archive(take => true)")
        for step in steps:
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="does not hold the archive's lock"):
                db.execute(f"select widget_internal.{step}")
        at_work = command(url, "archive", "--month", "2026-01", "--to", tmp_path)
    done = command(url, "archive", "--month", "2026-01", "--to", tmp_path)

    assert at_work.returncode == 6
    assert "another archive is running" in at_work.stderr
    assert done.returncode == 0, done.stderr


def test_connections_that_share_a_server_process_are_refused(url: str) -> None:
    """As behind a transaction pooler, where a lock that was taken would stay when the command is gone."""
    with psycopg.connect(url) as one, psycopg.connect(url) as other:
        refuse_pooler(one, other)

        with pytest.raises(UsageError, match="transaction pooler"):
            refuse_pooler(one, one)


@pytest.mark.parametrize(
    ("role", "grants"), [("anon", True), ("authenticated", True), ("anon", False), ("service_role", False)]
)
def test_no_role_of_the_api_can_move_events(db: Connection, role: str, *, grants: bool) -> None:
    """A visitor is refused in the body, too: a restore may bring the platform's grants back."""
    steps = ("hold_archive(true)", "start_archive('2026-01-01', 'x')", "release_archive_part('2026-01-01', 1, 0, 0)")
    if grants:
        db.execute(f"grant execute on all functions in schema widget_internal to {role}")
    db.execute(f"set role {role}")

    for step in steps:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute(f"select widget_internal.{step}")


@pytest.mark.parametrize(
    ("month", "closed", "problem"),
    [
        ("2026-01", (), "month: 2026-01 is not closed"),
        ("2026-10", ("2026-10",), "has not been over for 35 days"),
    ],
)
def test_a_month_that_must_not_leave_is_refused(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path, month: str, closed: tuple[str, ...], problem: str
) -> None:
    """Months leave when they are closed and long over."""
    session(db, widget_id, JANUARY if month != "2026-10" else JANUARY.replace(month=10), "s")
    close_months(db, *closed)

    done = command(url, "archive", "--month", month, "--to", tmp_path)

    assert done.returncode == 6
    assert problem in done.stderr
    assert len(ledger(db)) == 3


def test_a_month_is_finished_before_the_next_and_where_it_began(
    url: str, db: Connection, widget_id: UUID, tmp_path: Path
) -> None:
    """Else an event could be in two files."""
    session(db, widget_id, JANUARY, "s")
    close_months(db, "2026-01", "2026-02")

    def stop(_step: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move(url, tmp_path, "2026-01", on_step=stop)

    with pytest.raises(psycopg.errors.InvalidParameterValue, match="the archive of 2026-01 is not finished"):
        move(url, tmp_path, "2026-02")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="is archived at file://"):
        move(url, tmp_path / "elsewhere", "2026-01")
    assert move(url, tmp_path, "2026-01").events == 3


def test_mistakes_are_told_in_a_line(url: str, db: Connection, widget_id: UUID, tmp_path: Path) -> None:
    """Each names what to change, and nothing has changed."""
    session(db, widget_id, JANUARY, "s")
    close_months(db, "2026-01")
    archive = ("archive", "--month", "2026-01", "--to", tmp_path)

    told = {
        "wrong role": (3, command(url.replace("postgres@", "authenticator@"), *archive)),
        "no setting": (3, command("", *archive)),
        "no address": (3, command("postgres@somewhere", *archive)),
        "nobody there": (4, command("postgresql://postgres@127.0.0.1:1/postgres", *archive)),
        "no place": (2, command(url, "archive", "--month", "2026-01", "--to", "nowhere://x")),
        "no month": (2, command(url, "archive", "--month", "January", "--to", tmp_path)),
        "no archive": (8, command(url, "bill", "--archive", tmp_path, "--month", "2026-01")),
        "a statement": (2, command(url, "bill", "--archive", tmp_path, "--detail", "statements")),
    }

    assert {what: done.returncode for what, (_, done) in told.items()} == {
        what: code for what, (code, _) in told.items()
    }
    assert all(done.stderr.startswith("widget-analytics: ") for _, done in told.values()), told
    assert all(len(done.stderr.splitlines()) == 1 for _, done in told.values()), told
    assert len(ledger(db)) == 3
