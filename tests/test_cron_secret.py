"""CRON_SECRET, over the real function, gateway and database: who cannot run the cleanup."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest

from local_stack.stack import Stack
from tests.conftest import NewWidget
from tests.support import Connection, calls_of, record

SECRET = "correct horse battery staple"


@pytest.fixture(scope="module")
def doors(stack: Stack) -> Iterator[dict[str, str]]:
    """The function under each environment that leaves it closed, by what is wrong with it; and with a secret."""
    environments: dict[str, dict[str, str | None]] = {
        "no secret": {"CRON_SECRET": None},
        "an empty secret": {"CRON_SECRET": ""},
        "a blank secret, and a switch that is not quite on": {
            "CRON_SECRET": "  ", "CLEANUP_ALLOW_UNAUTHENTICATED": "TRUE",
        },
        "a secret": {"CRON_SECRET": SECRET, "CLEANUP_ALLOW_UNAUTHENTICATED": "true"},
    }  # fmt: skip
    with ExitStack() as running:
        yield {name: running.enter_context(stack.function("cleanup", each)) for name, each in environments.items()}


@pytest.fixture
def stale_call(db: Connection, new_widget: NewWidget) -> UUID:
    """A widget whose one call any cleanup would complete."""
    widget_id = new_widget()
    record(db, widget_id, "s", "call_start", datetime.now(UTC) - timedelta(hours=1))
    return widget_id


def attempts(stack: Stack) -> list[tuple[str, dict[str, str]]]:
    """Method and headers, each wrong in one way where a secret is set, and of no use where none is."""
    wrong: list[dict[str, str]] = [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer undefined"},
        {"authorization": "Bearer null"},
        {"authorization": f"Bearer {SECRET[:-1]}"},
        {"authorization": f"Bearer {SECRET[1:]}"},
        {"authorization": f"Bearer {SECRET}x"},
        {"authorization": f"Bearer {SECRET.title()}"},
        {"authorization": f"Bearer {SECRET}, Bearer {SECRET}"},
        {"authorization": f"Bearer\t{SECRET}"},
        {"authorization": f"Bearer{SECRET}"},
        {"authorization": f"Basic {SECRET}"},
        {"authorization": f"Token {SECRET}"},
        {"authorization": SECRET},
        {"authorization": "Bearer \xff\xfe"},
        {"authorization": "Bearer " + "x" * 8000},
        {"x-cron-secret": SECRET, "cookie": f"CRON_SECRET={SECRET}", "apikey": SECRET},
        {"x-vercel-cron": "1", "user-agent": "vercel-cron/1.0"},
        {"authorization": f"Bearer {stack.secret_key}", "apikey": stack.secret_key},
        {"authorization": f"Bearer {stack.keys.service_role_key}", "apikey": stack.keys.service_role_key},
    ]
    right: dict[str, str] = {"authorization": f"Bearer {SECRET}"}
    return [(method, headers) for headers in wrong for method in ("GET", "POST")] + [
        (method, right) for method in ("PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CRON")
    ]


def in_bytes(headers: dict[str, str]) -> dict[bytes, bytes]:
    """As the function reads them: a character a byte."""
    return {name.encode(): value.encode("latin-1") for name, value in headers.items()}


def test_nobody_without_the_secret_runs_the_cleanup(
    stack: Stack, doors: dict[str, str], db: Connection, stale_call: UUID
) -> None:
    """Unset, empty, wrong, cut, under another scheme, by another method: refused, and nothing is written."""
    count = "select count(*) as runs from public.widget_cleanup_runs"
    before = db.execute(count).fetchone()

    with httpx.Client(timeout=30) as http:
        answers = {
            (door, method, str(headers)): http.request(method, url, headers=in_bytes(headers)).status_code
            for door, url in doors.items()
            for method, headers in attempts(stack)
        }
        by_query = [http.post(f"{url}?CRON_SECRET={SECRET}&secret={SECRET}").status_code for url in doors.values()]

    assert {status for (door, *_), status in answers.items() if door != "a secret"} == {405, 503}
    assert {status for (door, *_), status in answers.items() if door == "a secret"} <= {400, 401, 405, 431}
    assert by_query == [503, 503, 503, 401]
    assert db.execute(count).fetchone() == before
    assert [call["outcome"] for call in calls_of(db, stale_call)] == ["open"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_who_knows_the_secret_runs_it(doors: dict[str, str], db: Connection, stale_call: UUID, method: str) -> None:
    """The same door opens for the secret: so it was the secret that was missing."""
    answer = httpx.request(method, doors["a secret"], headers={"authorization": f"Bearer {SECRET}"}, timeout=30)

    assert answer.status_code == 200, answer.text
    assert [call["outcome"] for call in calls_of(db, stale_call)] == ["completed"]
