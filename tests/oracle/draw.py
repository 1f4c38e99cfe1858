"""Draws many examples from one seed; the first that raises is made as small as it can be, and told."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed
from hypothesis.strategies import SearchStrategy

Example = TypeVar("Example")


def play_each(
    examples: SearchStrategy[Example],
    play: Callable[[Example], None],
    *,
    count: int,
    seed: int,
    to_json: Callable[[Example], dict[str, Any]],
) -> None:
    """Raises what `play` raised of the smallest example found, and says how to play that one again."""

    @with_seed(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(examples)
    def every_example(example: Example) -> None:
        try:
            play(example)
        except Exception as error:
            error.add_note(f"Play it again with: scripts/oracle --replay '{json.dumps(to_json(example))}'")
            raise

    every_example()
