"""What the checks of ``widget-analytics doctor`` ask, and what they find."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Literal

import httpx

from widget_analytics._answers import error_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        check: its name.
        result: ``well``, ``problem``, or ``skipped`` where it cannot be told or is not used here.
        message: what is so, or what to do.
    """

    check: str
    result: Literal["well", "problem", "skipped"]
    message: str


def well(check: str, message: str) -> Finding:
    """Say that it is as it should be."""
    return Finding(check=check, result="well", message=message)


def problem(check: str, message: str) -> Finding:
    """Say what to do."""
    return Finding(check=check, result="problem", message=message)


def skipped(check: str, message: str) -> Finding:
    """Say why it was not checked."""
    return Finding(check=check, result="skipped", message=message)


@dataclass(frozen=True, slots=True)
class Project:
    """The API, the keys to it, and the seconds to wait for it."""

    url: str
    secret: str
    publishable: str | None
    patience: float

    def request(self, method: str, path: str, *, key: str | None = None, **options: Any) -> httpx.Response:
        """Send one request. Redirects are not followed, as the key would go along."""
        headers = {**({"apikey": key, "Authorization": f"Bearer {key}"} if key else {}), **options.pop("headers", {})}
        send = partial(httpx.request, method, f"{self.url}{path}", headers=headers, timeout=self.patience, **options)
        answer = send()
        # After a pause of the project the first request may meet a connection that has died.
        return send() if answer.status_code == HTTPStatus.BAD_REQUEST and error_of(answer).is_passing else answer
