"""The database agrees with an independent model of calls and bills on random histories; scripts/oracle plays more."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import permutations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st

from tests.oracle import providers
from tests.oracle.histories import (
    History,
    Insert,
    archived_histories,
    door_histories,
    from_json,
    ledger_histories,
    rated_histories,
    to_json,
)
from tests.oracle.model import Event
from tests.oracle.play import Database, check
from tests.oracle.run import run


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """Of these tests' own: a cleanup meets every widget's open calls, and its counts are compared."""
    with Database.fresh() as database:
        yield database


@pytest.mark.parametrize(
    ("family", "count"), [("ledger", 150), ("ties", 50), ("rated", 60), ("archived", 60), ("door", 50)]
)
def test_calls_and_bills_are_what_the_model_says(database: Database, family: str, count: int) -> None:
    """Calls after every step, bills as of several moments, and the ledger itself equal the model's."""
    seen = run(database, family, count=count, seed=4)

    happened = {"cleanup runs", "inferred ends", "calls, observed", "calls, assumed", "calls, open"}
    assert happened <= (+seen).keys()


def test_providers_records_and_browsers_events_give_one_bill_in_any_order(database: Database) -> None:
    """No call is billed twice, whatever arrives first; scripts/oracle --family providers plays more."""
    seen = run(database, "providers", count=40, seed=4)

    assert {"calls billed once", "calls seen in another session, at no cost", "calls that only the provider knows"} <= (
        +seen
    ).keys()


@st.composite
def _four_events(draw: st.DrawFn) -> tuple[Event, ...]:
    history = draw(ledger_histories())
    told = [event for step in history.steps if isinstance(step, Insert) for event in step.events]
    return tuple({event.id: event for event in told if event.session_id == told[0].session_id}.values())[:4]


def test_every_order_of_arrival_gives_the_same_calls(database: Database) -> None:
    """All permutations of the events of a session make the calls that the model knows."""

    @with_seed(4)
    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(_four_events())
    def every_session(events: tuple[Event, ...]) -> None:
        ends = [check(database, History((Insert(order),)))["steps"][-1]["calls"] for order in permutations(events)]

        assert all(calls == ends[0] for calls in ends)

    every_session()


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(ledger_histories(), rated_histories(), archived_histories(), door_histories()))
def test_a_printed_history_is_the_same_history(history: History) -> None:
    """What a failure prints plays the very history that failed."""
    assert from_json(json.loads(json.dumps(to_json(history)))) == history


@settings(max_examples=20, deadline=None, database=None)
@given(providers.scenarios)
def test_a_printed_scenario_is_the_same_scenario(scenario: providers.Scenario) -> None:
    """The same of providers' records."""
    assert providers.from_json(json.loads(json.dumps(asdict(scenario)))) == scenario
