"""The delivery benchmark in short: the figures that the README quotes come from its long run."""

from benchmarks import delivery
from local_stack.stack import Stack


def test_delivery(stack: Stack) -> None:
    """Every event arrives, for every way to leave."""
    report = delivery.run(stack, sessions=12, seed=3)

    assert report.lost() == set(), str(report)
    assert set(report.visits) == set(delivery.VISITS)
