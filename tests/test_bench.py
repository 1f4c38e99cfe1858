"""The speed bench measures what it says; how fast things are, is not for a test to say."""

from collections.abc import Iterator

import pytest

from benchmarks import decisions, growth, loads
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
        (loads.track_load(), "public.widget_analytics"),
        (loads.track_load(widgets=loads.ONE_WIDGET, with_id=False), "public.widget_analytics"),
        (loads.track_load(schema="unprotected"), "public.widget_analytics"),
        (loads.track_call(), "public.widget_analytics"),
        (loads.track_no_call(), "public.widget_analytics"),
        (loads.track_batch(), "public.widget_analytics"),
        (loads.track_session(), "public.widget_analytics"),
        (loads.seed_insert(), "seed_baseline.widget_analytics"),
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
    """The load of call events makes calls that end, so that the trigger has its whole work."""
    bench.empty()

    run = play(bench.stack, loads.track_call(), clients=2, seconds=1)

    assert bench.number("select count(*) from public.widget_calls where outcome = 'completed'") == run.events / 3


def test_a_history_is_one_that_the_ledger_could_have_had(bench: Bench) -> None:
    """Each figure of growth is found on a history whose calls are what its events give."""
    bench.empty()

    findings = list(growth.measure(bench, 10_000))

    assert not bench.execute("select * from widget_internal.widget_calls_differences()")
    assert all(isinstance(finding, Finding) for finding in findings)
    assert {line.count(" | ") for line in table(findings).splitlines()[2:]} == {4}
    bench.check_nothing_was_refused()


def test_other_designs_are_made_and_measured(bench: Bench) -> None:
    """Each design of the ledger takes the same events, and gives one line of figures."""
    chosen = [variant for variant in decisions.VARIANTS if variant.schema in ("partitions", "side_table")]

    lines = list(decisions.measure(bench, chosen, 1000))

    assert [line.count(" | ") for line in lines] == [6, 6, 6]
    assert not bench.execute("select from pg_namespace where nspname in ('partitions', 'side_table')")


def test_a_refused_load_is_not_measured(bench: Bench) -> None:
    """The bench stops where the door refused events."""
    bench.execute("update public.widgets set is_active = false")

    play(bench.stack, loads.track_load(), clients=1, seconds=1)

    with pytest.raises(RuntimeError, match="widget_inactive"):
        bench.check_nothing_was_refused()
