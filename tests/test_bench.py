"""The speed bench measures what it says; how fast things are, is not for a test to say."""

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from benchmarks import company_day, exports, growth, loads, over_http, record, requests
from benchmarks.bench import Bench, Plan, running
from benchmarks.findings import Finding, table
from benchmarks.pgbench import Load, play


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with running(Plan(seconds=1, rounds=1)) as running_bench:
        yield running_bench


@pytest.mark.parametrize(
    ("load", "stored_in"),
    [
        *[(loads.tracker(name), "public.widget_analytics") for name in loads.REQUESTS],
        (loads.tracker(*loads.TWO_MINUTES, widgets=loads.ONE_WIDGET), "public.widget_analytics"),
        (loads.bare_insert(), "original_baseline.widget_analytics"),
    ],
    ids=lambda value: value.name if isinstance(value, Load) else "",
)
def test_each_load_stores_every_event_that_it_counts(bench: Bench, load: Load, stored_in: str) -> None:
    """No refusal and no duplicate is measured as an event."""
    bench.empty()

    run = play(bench.stack, load, clients=2, seconds=1)

    assert bench.number(f"select count(*) from {stored_in}") == run.events
    assert run.events_per_second > 0
    bench.check_nothing_was_refused()


def test_calls_of_the_loads_are_kept(bench: Bench) -> None:
    """The load of a call of two minutes makes calls that end."""
    bench.empty()

    run = play(bench.stack, loads.tracker(*loads.TWO_MINUTES), clients=2, seconds=1)

    calls = bench.number("select count(*) from public.widget_calls where outcome = 'completed'")
    assert calls * sum(len(loads.REQUESTS[name]) for name in loads.TWO_MINUTES) == run.events


def test_the_recorded_requests_are_those_that_the_tracker_sends() -> None:
    """If this fails, run scripts/record-requests and look at what changed."""
    sent = record.record()

    def shape(events: list[loads.Event]) -> list[dict[str, type]]:
        return [{name: type(value) for name, value in event.items() if name != "properties"} for event in events]

    recorded = {name: events for name, events in loads.REQUESTS.items() if name != "twenty loads"}
    assert {name: shape(events) for name, events in sent.items()} == {
        name: shape(events) for name, events in recorded.items()
    }


def test_processor_time_is_that_of_stored_requests(bench: Bench) -> None:
    """Each request is measured with its target, and what it sent is in the ledger."""
    findings = list(requests.measure(bench))

    requests.check(bench)
    assert [finding.what.split(":")[0] for finding in findings] == [*loads.REQUESTS, "a call of two minutes"]


def test_a_history_is_one_that_the_ledger_could_have_had(bench: Bench) -> None:
    """Each figure of growth is found on a history whose calls are what its events give."""
    bench.empty()

    findings = list(growth.measure(bench, 10_000))

    assert not bench.execute("select * from widget_internal.widget_calls_differences()")
    assert all(isinstance(finding, Finding) for finding in findings)
    assert {line.count(" | ") for line in table(findings).splitlines()[2:]} == {4}
    bench.check_nothing_was_refused()


def test_a_refused_load_is_not_measured(bench: Bench) -> None:
    """The bench stops where the door refused events."""
    bench.execute("update public.widgets set is_active = false")

    play(bench.stack, loads.tracker("load"), clients=1, seconds=1)

    with pytest.raises(RuntimeError, match="widget_inactive"):
        bench.check_nothing_was_refused()


def test_every_way_over_http_stores_what_it_sends() -> None:
    """The tracker's requests, the original endpoint and the RPC that inserts a row are answered, and store."""
    with over_http.peers() as (stack, endpoint_url, endpoint_pid):
        ways = over_http.ways(stack, endpoint_url, endpoint_pid, "a call of two minutes")
        for way in ways:
            over_http.send(stack, way, connections=2, seconds=1)

        with psycopg.connect(stack.database_url) as connection:
            stored = connection.execute(
                """
                select (select count(*) from public.widget_calls), (select count(*) from public.widget_refusals),
                  (select array_agg(distinct e.event_type::text) from public.widget_bench_analytics e)
                """
            ).fetchone()

    assert stored is not None
    assert stored[0] > 0
    assert stored[1] == 0
    assert set(stored[2]) == {"call_start", "call_end"}


def test_a_simulated_day_is_billed_as_it_was_played(capsys: pytest.CaptureFixture[str]) -> None:
    """Crashed calls included, no call is billed for more or less than was played."""
    code = company_day.main(["--minutes", "0.1", "--calls", "20000", "--speed", "60"])

    assert code == 0, capsys.readouterr()


def test_exports_are_measured() -> None:
    """The calls that are made for it are exported, and what that took is said."""
    with closing(exports.measure(Plan(seconds=1, rounds=1, calls=2000))) as findings:
        first = next(findings)

    assert first.what.startswith("export of 2,000 calls to csv, over the API: ")
