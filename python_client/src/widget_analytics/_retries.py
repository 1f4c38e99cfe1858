"""When a request is sent again, and after how long."""

from __future__ import annotations

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from widget_analytics.errors import TooManyRequests, WidgetAnalyticsError

# Seconds. Who is told to wait longer than this gets the error, with its retry_after, instead of a silent hour.
_LONGEST_WAIT = 60.0
_backoff = wait_random_exponential(multiplier=0.3, max=8)


def retrying(attempts: int) -> Retrying:
    """Call again what failed with one of our errors that may pass, so often in all; the last error is raised."""
    return Retrying(retry=retry_if_exception(_may_pass), wait=_wait, stop=stop_after_attempt(attempts), reraise=True)


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, TooManyRequests) and (error.retry_after or 0) > _LONGEST_WAIT:
        return False
    return isinstance(error, WidgetAnalyticsError) and error.is_passing


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, TooManyRequests) and error.retry_after is not None:
        return error.retry_after
    return _backoff(state)
