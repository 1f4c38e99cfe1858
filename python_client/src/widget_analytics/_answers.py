"""Turns an HTTP answer that is not a success into one of our errors."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx

from widget_analytics.errors import NotMigrated, Refused, TooManyRequests, Unreachable, WidgetAnalyticsError, WrongKey

# PostgREST: no such function, relation, embedding or column in its schema cache; Postgres: the same at run time.
_MISSING = {"PGRST200", "PGRST202", "PGRST204", "PGRST205", "42P01", "42703", "42883"}
# PostgREST: the JWT cannot be read, is none, or its claims (such as its times) do not hold.
_BAD_TOKEN = {"PGRST300", "PGRST301", "PGRST302", "PGRST303"}
_BAD_CLAIMS = "PGRST303"
_INSUFFICIENT_PRIVILEGE = "42501"
_QUERY_CANCELED = "57014"
# Postgres takes no writes: a standby, or the platform's brake on a disk that is almost full. PostgREST makes it a 405.
_READ_ONLY = "25006"
# What the database holds does not allow it, such as a bill as of a moment of which the archive has the events. A 500.
_WRONG_STATE = "55000"
# A 400 with another code than these, or none, is not about what was sent. PostgREST answers so where a pooled
# connection had died, and passes on what a standby or a pooler says, such as 0A000 and 42P05.
_ABOUT_THE_REQUEST = ("22", "23", "P0", "PT", "PGRST1", "WA", _INSUFFICIENT_PRIVILEGE)
_TRACKING = ("/rpc/track_event", "/rpc/track_events")


def error_of(response: httpx.Response) -> WidgetAnalyticsError:  # noqa: PLR0911 (one for each meaning)
    """Say what an unsuccessful answer, whose body has been read, means for the caller."""
    body = _body(response)
    code = str(body.get("code") or "")
    reason = _one_line(body.get("message") or body.get("error") or f"HTTP {response.status_code}")
    status, path, host = response.status_code, response.request.url.path, response.request.url.host

    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return TooManyRequests(status=status, code=code, reason=reason, retry_after=retry_after(response))
    if code in _MISSING:
        return NotMigrated(
            f"the database is not migrated, or differs from this client's version: {reason}. Run `supabase db push`."
        )
    # The door answers an event that it does not let in with 42501 too, but in words of its own: that is a refusal.
    if code == _INSUFFICIENT_PRIVILEGE and reason.startswith("permission denied"):
        return WrongKey(
            f"this key's role may not do this ({reason}). Reading and cleaning up need the project's secret key "
            "(SUPABASE_SECRET_KEY, sb_secret_…), or a signed-in owner's access token."
        )
    if code in _BAD_TOKEN or (status == HTTPStatus.UNAUTHORIZED and code != _INSUFFICIENT_PRIVILEGE):
        return WrongKey(
            f"the API does not accept the key ({reason}). Check SUPABASE_SECRET_KEY, SUPABASE_PUBLISHABLE_KEY and "
            "SUPABASE_URL: they must be of one project.",
            # A token that one server has just issued is from the future for another whose clock is behind.
            is_passing=code == _BAD_CLAIMS and "expired" not in reason,
        )
    if code == _READ_ONLY or (code == "0A000" and "recovery" in reason):
        return Unreachable(f"{host} takes nothing in: its database is read-only just now. Try again later.")
    # Events wait for locks, and the next time not as long; a bill that takes too long will do so again.
    if code == _QUERY_CANCELED and not path.endswith(_TRACKING):
        return Refused(status=status, code=code, reason=reason, hint="ask for a shorter period")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and path.endswith("/rpc/complete_stale_sessions") and not body:
        # Its way to say that it failed: it answers with its row, so that the note of the failure is kept.
        return Refused(status=status, code=code, reason="the cleanup failed", hint="see widget_cleanup_runs.error")
    hint = _one_line(body.get("hint") or "")
    if code == _WRONG_STATE and not path.endswith(_TRACKING):
        return Refused(status=status, code=code, reason=reason, hint=hint)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Unreachable(f"{host} failed: HTTP {status}, {reason}. Try again later.")
    is_passing = status == HTTPStatus.BAD_REQUEST and not code.startswith(_ABOUT_THE_REQUEST)
    if not code:
        return Unreachable(
            f"{host} does not answer as a Supabase API does: HTTP {status}. Check SUPABASE_URL.", is_passing=is_passing
        )
    return Refused(status=status, code=code, reason=reason, hint=hint, is_passing=is_passing)


def _body(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:500]


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that ``Retry-After`` asks for, given as a number or as a date; None where it is not there or neither."""
    value = response.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
        now = parsedate_to_datetime(response.headers["date"])
    except (KeyError, ValueError):
        return None
    return max(0.0, (until - now).total_seconds())
