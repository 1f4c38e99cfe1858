"""A limit to how long a question may take in all, whatever the gateway does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from widget_analytics._settings import TIMEOUT
from widget_analytics.errors import Unreachable

Answer = TypeVar("Answer")


def within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """Give the answer, or raise Unreachable when it is late: time-outs of single reads do not add up to a limit."""
    return begin(ask)(seconds)


def begin(ask: Callable[[], Answer]) -> Callable[..., Answer]:
    """Ask in a thread, which nobody waits for when the program ends; what is given here waits for the answer."""
    answers: list[Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:
            errors.append(error)

    def answer(seconds: float | None = None) -> Answer:
        thread.join(seconds)
        if errors:
            raise errors[0]
        if not answers:
            raise late(seconds or 0)
        return answers[0]

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return answer


def late(seconds: float) -> Unreachable:
    """Say that no answer came within so many seconds."""
    return Unreachable(
        f"no answer within {seconds:g} s. Check SUPABASE_URL, the network and the project's state; "
        f"{TIMEOUT}=SECONDS waits longer."
    )
