"""The accuracy benchmark's goals hold in a smaller month than the one that scripts/bench-accuracy bills."""

import pytest

from benchmarks import accuracy


@pytest.fixture(scope="module")
def month() -> tuple[float, accuracy.Result, accuracy.Result]:
    with accuracy.database() as connection:
        return accuracy.measure(connection, calls=2500, seed=7)


def test_no_call_is_billed_too_high_and_the_total_is_near_the_floor(
    month: tuple[float, accuracy.Result, accuracy.Result],
) -> None:
    """With heartbeats from the start, no call is over by more than a second, the total within 0.1 % of the floor."""
    floor, _, ours = month

    assert accuracy.goals_missed(floor, ours) == []


def test_the_floor_is_what_the_broken_off_calls_lose(month: tuple[float, accuracy.Result, accuracy.Result]) -> None:
    """Billing calls that break off up to their last heartbeat loses less than one percent, and some."""
    floor, _, _ = month

    assert -1 < floor < -0.2


def test_the_original_query_bills_the_same_month_far_too_high(
    month: tuple[float, accuracy.Result, accuracy.Result],
) -> None:
    """The benchmark has teeth: the document's own SQL is off by more than ten percent."""
    _, original, _ = month

    assert original.total_percent > 10
