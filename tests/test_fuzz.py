"""What no sender can do, whatever it sends; scripts/fuzz sends more of it."""

from local_stack.stack import Stack
from tests.fuzz.senders import fuzz, nothing_else_changes, reach_the_limits
from tests.fuzz.stage import stage


def test_bad_input_breaks_nothing(stack: Stack) -> None:
    """No 5xx; what is accepted, and only that, is stored; the good in a batch is taken; refusals name their field."""
    with stage(stack) as at, nothing_else_changes(at.db):
        at_the_limits, accepted_there = reach_the_limits(at.target)
        seen, accepted = fuzz(at.target, count=400, seed=6)

        assert at.stored() == accepted + accepted_there

    assert {"400 22023, the field is named", "403 42501, the field is named", "events rejected by name"} <= set(+seen)
    assert at_the_limits["413 54000, the field is named"] == 1
