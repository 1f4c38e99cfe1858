"""One HTTP conversation with the project's REST API: our errors, our retries, exact values."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from widget_analytics._answers import error_of
from widget_analytics.errors import TooManyRequests, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from supabase import Client

    from widget_analytics._settings import Settings

T = TypeVar("T")

# Seconds. Who is told to wait longer than this gets the error, with its retry_after, instead of a silent hour.
_LONGEST_WAIT = 60.0
_backoff = wait_random_exponential(multiplier=0.3, max=8)


class Transport:
    """A Supabase client whose answers are either good or one of our errors.

    Args:
        settings: where to and as whom.
        origin: the page that events are said to come from, sent as ``Origin``.
        timeout: seconds to wait for each answer.
        attempts: how often a request is sent at most, the first time included.
    """

    def __init__(self, settings: Settings, *, origin: str | None, timeout: float, attempts: int) -> None:
        # Only now: it takes most of the command's start, and neither --help nor a wrong option needs it.
        from supabase import ClientOptions, create_client  # noqa: PLC0415

        self._attempts = attempts
        #: When the latest answer was made, by the server's clock (to the second); None where no answer told.
        self.answered_at: datetime | None = None
        # Redirects are not followed: the key would go along.
        self._http = httpx.Client(
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10)),
            event_hooks={"response": [self._note_time, _raise_unless_good]},
        )
        headers = {"Authorization": f"Bearer {settings.access_token}"} | ({"Origin": origin} if origin else {})
        # postgrest's own retries know neither Retry-After nor POST; with ours on top, each would multiply the other.
        self.supabase: Client = create_client(
            settings.url,
            settings.api_key,
            ClientOptions(headers=headers, httpx_client=self._http, postgrest_client_retry=False),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, request: Callable[[Client], T]) -> T:
        """Run ``request``, again after a failure that may pass: no connection, HTTP 5xx, 429.

        Everything that this package sends may be sent twice: events have names, and cleaning up twice is cleaning up.

        Raises:
            WidgetAnalyticsError: the last attempt's.
        """
        again = Retrying(
            retry=retry_if_exception(_may_pass), wait=_wait, stop=stop_after_attempt(self._attempts), reraise=True
        )
        answer: T = again(self._send_once, request)
        return answer

    def _send_once(self, request: Callable[[Client], T]) -> T:
        try:
            return request(self.supabase)
        except httpx.TimeoutException as error:
            raise Unreachable(f"{self.host} did not answer in time. Check SUPABASE_URL and the network.") from error
        except httpx.TransportError as error:
            raise Unreachable(
                f"cannot reach {self.host}: {error or type(error).__name__}. Check SUPABASE_URL and the network."
            ) from error

    def rows(self, request: Callable[[Client], Any]) -> list[dict[str, Any]]:
        """Run a request whose answer is a list of objects.

        Raises:
            WidgetAnalyticsError: there is no such answer.
        """
        data = self.send(lambda client: request(client).execute().data)
        if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
            raise Unreachable(
                f"{self.host} does not answer as a Supabase API does. Check SUPABASE_URL.", is_passing=False
            )
        return data

    @property
    def host(self) -> str:
        """The project's host: no scheme, port or key."""
        return str(self.supabase.rest_url.host)

    def _note_time(self, response: httpx.Response) -> None:
        with suppress(ValueError):
            at = parsedate_to_datetime(response.headers.get("Date", ""))
            self.answered_at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _raise_unless_good(response: httpx.Response) -> None:
    # Here, as postgrest's own error has neither the status nor the headers.
    if not response.is_success:
        response.read()
        raise error_of(response)


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, TooManyRequests):
        return (error.retry_after or 0) <= _LONGEST_WAIT
    return isinstance(error, Unreachable) and error.is_passing


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, TooManyRequests) and error.retry_after is not None:
        return error.retry_after
    return _backoff(state)
