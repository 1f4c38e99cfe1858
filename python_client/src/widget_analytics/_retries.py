"""When a request is sent again, and after how long."""

from __future__ import annotations

from collections.abc import Callable

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from widget_analytics.errors import WidgetAnalyticsError

# Seconds. Who is told to wait longer than this gets the error, with its retry_after, instead of a silent hour.
_LONGEST_WAIT = 60.0
_backoff = wait_random_exponential(multiplier=0.3, max=8)


def retrying(
    attempts: int, wait: Callable[[RetryCallState], float] | None = None, *, patience: float = 30.0
) -> Retrying:
    """Call again what failed with one of our errors that may pass, so often in all; the last error is raised.

    ``wait`` gives the seconds in between; by default those that the answer asked for, else more each time. There is no
    further attempt once those made took ``patience`` seconds: a gateway that hangs goes on hanging.
    """
    return Retrying(
        retry=retry_if_exception(_may_pass),
        wait=wait or _wait,
        stop=lambda state: state.attempt_number >= attempts or _spent(state) >= patience,
        reraise=True,
    )


def _spent(state: RetryCallState) -> float:
    return (state.seconds_since_start or 0) - state.idle_for


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, WidgetAnalyticsError) and error.is_passing and (_asked_for(error) or 0) <= _LONGEST_WAIT


def _wait(state: RetryCallState) -> float:
    seconds = _asked_for(state.outcome.exception() if state.outcome else None)
    return _backoff(state) if seconds is None else seconds


def _asked_for(error: BaseException | None) -> float | None:
    seconds: float | None = getattr(error, "retry_after", None)
    return seconds
