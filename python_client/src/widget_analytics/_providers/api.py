"""One HTTP conversation with a call provider's API: our errors, our retries."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import httpx

from widget_analytics._answers import retry_after
from widget_analytics._retries import retrying
from widget_analytics.errors import Refused, TooManyRequests, Unreachable, WidgetAnalyticsError, WrongKey

_ATTEMPTS = 6
_TIMEOUT = httpx.Timeout(30, connect=10)


class ProviderApi:
    """A provider's API whose answers are either JSON or one of our errors.

    Args:
        url: its address.
        headers: what authenticates the caller.
        auth: user and password, where the provider asks for these.
        variable: the setting that holds the key, for the error that tells of a wrong one.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str], auth: tuple[str, str] | None = None, variable: str
    ) -> None:
        # Redirects are not followed: the key would go along.
        self._http = httpx.Client(base_url=url, headers=dict(headers), auth=auth, timeout=_TIMEOUT)
        self._variable = variable
        self._retrying = retrying(_ATTEMPTS)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, **parameters: str | int | None) -> Any:
        """Get a path of this API, or an address that it named itself; parameters that are None are left out."""
        url = self._http.base_url.join(path)
        if url.copy_with(raw_path=b"/") != self._http.base_url.copy_with(raw_path=b"/"):
            raise Unreachable(f"{self._host} names another host, {url.host}, for its next page.", is_passing=False)
        given = {name: value for name, value in parameters.items() if value is not None}
        return self._answer(self._http.build_request("GET", url.copy_merge_params(given)))

    def post(self, path: str, body: Mapping[str, object]) -> Any:
        """Ask by a POST, as some lists want it."""
        return self._answer(self._http.build_request("POST", path, json=body))

    def _answer(self, request: httpx.Request) -> Any:
        return self._retrying(self._send, request)

    def _send(self, request: httpx.Request) -> Any:
        try:
            response = self._http.send(request)
        except httpx.TransportError as error:
            raise Unreachable(f"cannot reach {self._host}: {error or type(error).__name__}.") from error
        if not response.is_success:
            raise self._error_of(response)
        try:
            return response.json(parse_float=Decimal)
        except ValueError:
            raise Unreachable(f"{self._host} does not answer with JSON.", is_passing=False) from None

    def _error_of(self, response: httpx.Response) -> WidgetAnalyticsError:
        status = response.status_code
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            reason = f"{self._host} takes no more requests just now"
            return TooManyRequests(status=status, code="", reason=reason, retry_after=retry_after(response))
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return WrongKey(f"{self._host} does not accept the key (HTTP {status}). Check {self._variable}.")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Unreachable(f"{self._host} is not well: HTTP {status}. Try again later.")
        return Refused(status=status, code="", reason=f"{self._host} answers {response.request.url.path}")

    @property
    def _host(self) -> str:
        return self._http.base_url.host
