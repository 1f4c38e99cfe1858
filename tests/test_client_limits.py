"""More rows than the API answers with at once: no list and no sum is short, on a project of 1,205 widgets."""

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from local_stack.stack import Stack
from tests.client_support import environment, run
from widget_analytics import Period, Thresholds, WidgetAnalytics

WIDGETS = 1_205
DAY = datetime(2021, 2, 3, tzinfo=UTC)


@pytest.fixture(scope="module")
def crowd() -> Iterator[Stack]:
    """Each widget has a call of a minute long ago, a refusal, and lost 39 of 40 events just now."""
    with Stack(durable=False, jobs=False) as stack:
        with psycopg.connect(stack.database_url, autocommit=True) as db:
            db.execute("insert into public.widgets (name) select 'w' || n from generate_series(1, %s) n", [WIDGETS])
            db.execute(
                "insert into public.widget_analytics (widget_id, event_type, session_id, call_id, timestamp)"
                " select w.id, e.type, 's', 'c', %s + e.after from public.widgets w,"
                " (values ('call_start', interval '0'), ('call_end', '1 minute')) e (type, after)",
                [DAY],
            )
            db.execute(
                "insert into public.widget_analytics (widget_id, event_type, session_id, seq, timestamp)"
                " select w.id, 'widget_open', 'lossy', 40, now() from public.widgets w"
            )
            db.execute("select public.track_event(w.id, 'nonsense', 's') from public.widgets w")
            db.execute("select public.refresh_widget_health()")
        yield stack


@pytest.fixture
def client(crowd: Stack) -> Iterator[WidgetAnalytics]:
    with WidgetAnalytics(url=crowd.api_url, secret_key=crowd.secret_key) as opened:
        yield opened


def test_usage_is_whole(client: WidgetAnalytics) -> None:
    """A row for each widget, and all of their seconds."""
    usage = list(client.usage(Period(DAY, DAY + timedelta(days=1))))

    assert len({one.widget_id for one in usage}) == WIDGETS
    assert sum(one.billable_seconds for one in usage) == Decimal(60 * WIDGETS)


@pytest.mark.parametrize("detail", ["usage", "calls"])
@pytest.mark.parametrize("file_format", ["csv", "jsonl", "parquet"])
def test_exports_are_whole(crowd: Stack, tmp_path: Path, detail: str, file_format: str) -> None:
    """Each format tells as many rows and seconds as there are."""
    noun = "widgets" if detail == "usage" else "calls"
    name = f"bill.{file_format}"

    done = run(
        environment(crowd),
        tmp_path,
        *("export", "--month", "2021-02", "--detail", detail, "--format", file_format, "--output", name),
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        f"1,205 {noun}, 72,300.000000 billable seconds -> {name}",
        "open: this is what the ledger says now",
    ]
    if file_format == "csv":
        with (tmp_path / name).open(newline="") as file:
            assert len(list(csv.DictReader(file))) == WIDGETS


def test_what_people_watch_is_whole(client: WidgetAnalytics) -> None:
    """Rates and alarms of each widget and of all together, and each widget's refusals."""
    since = datetime.now(UTC) - timedelta(hours=1)

    rates = client.rates(since=since)
    alarms = client.alarms(Thresholds(min_cases=1))
    refusals = list(client.refusals(since=since))

    assert rates[0].widget_id is None
    assert len({one.widget_id for one in rates}) == len(rates) == WIDGETS + 1
    assert len({one.widget_id for one in alarms if one.alarm == "delivery_low"}) == WIDGETS + 1
    assert len({one.widget_id for one in refusals}) == WIDGETS
    assert len(list(client.widgets())) >= WIDGETS


def test_doctor_sees_what_a_list_cut_short_hides(crowd: Stack, tmp_path: Path) -> None:
    """Rights stand behind 1,206 other alarms; these are told in a line that people can read."""
    with psycopg.connect(crowd.database_url, autocommit=True) as db:
        db.execute("grant execute on function public.complete_stale_sessions(interval) to anon")
        done = run(environment(crowd), tmp_path, "doctor", "--json")
        db.execute("select widget_internal.apply_rights()")

    found = {one["check"]: one for one in json.loads(done.stdout)}
    assert "complete_stale_sessions" in found["rights"]["message"]
    assert "more: widget-analytics status" in found["alarms"]["message"]
    assert len(found["alarms"]["message"]) < 1_000
    assert found["max rows"] == {
        "check": "max rows", "result": "well", "message": "lists come in pages of 1,000 or more"
    }  # fmt: skip


def test_the_latest_runs_of_the_cleanup(client: WidgetAnalytics, crowd: Stack) -> None:
    """As many as are asked for, though they are more than one answer has."""
    with psycopg.connect(crowd.database_url, autocommit=True) as db:
        db.execute(
            "insert into public.widget_cleanup_runs"
            " (started_at, calls_checked) select now() - n * interval '30 minutes', n from generate_series(1, 1300) n"
        )

    runs = client.cleanup_runs(limit=1_200)

    assert [run.calls_checked for run in runs] == list(range(1, 1_201))
