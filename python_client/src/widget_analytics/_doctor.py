"""Checks an installation end to end, in ten seconds at most: for ``widget-analytics doctor``."""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx

from widget_analytics._settings import PUBLISHABLE_KEY, SECRET_KEY, Settings, variable
from widget_analytics.errors import ConfigError

#: Seconds for all steps together; starting Python and printing take the rest of the ten.
PATIENCE = 6.0
#: Seconds that the two clocks may differ by. Events carry ages, so it is the reader of a report who is misled.
_CLOCK = 30
_NO_PAGE = "https://widget-analytics-doctor.invalid"
# Which line an alarm belongs to; all others stand under `alarms`.
_ALARM_LINES = {
    "rights_too_wide": "rights",
    "job_missing": "jobs",
    "month_not_closed": "months",
    "widget_silent": "silence",
}


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


@dataclass(frozen=True, slots=True)
class Project:
    """The API, and the keys to it."""

    url: str
    secret: str
    publishable: str | None

    def request(self, method: str, path: str, *, key: str | None = None, **options: Any) -> httpx.Response:
        """Send one request. Redirects are not followed, as the key would go along."""
        headers = {**({"apikey": key, "Authorization": f"Bearer {key}"} if key else {}), **options.pop("headers", {})}
        return httpx.request(method, f"{self.url}{path}", headers=headers, timeout=PATIENCE, **options)


def examine(widget: UUID | None = None) -> list[Finding]:
    """Run every check, those that need the API side by side; one that has not ended in time is a problem."""
    try:
        settings = Settings.load()
    except ConfigError as error:
        return [Finding(check="settings", result="problem", message=str(error))]
    project = Project(settings.url, variable(SECRET_KEY), variable(PUBLISHABLE_KEY) or None)
    findings = list(_keys(project))
    if not project.secret:
        return findings
    checks: dict[str, Callable[[Project], Iterable[Finding]]] = {
        "alarms": _alarms,
        "cleanup function": _cleanup_function,
        "events function": _events_function,
        "browser": _browser,
        "test event": lambda project: _test_event(project, widget),
    }
    return findings + _side_by_side(checks, project)


def _side_by_side(checks: dict[str, Callable[[Project], Iterable[Finding]]], project: Project) -> list[Finding]:
    found: dict[str, list[Finding]] = {}

    def run(name: str, check: Callable[[Project], Iterable[Finding]]) -> None:
        try:
            found[name] = list(check(project))
        except httpx.HTTPError as error:
            message = f"{urlsplit(project.url).netloc} cannot be reached: {error or type(error).__name__}"
            found[name] = [Finding(check=name, result="problem", message=message)]
        except (ValueError, KeyError, TypeError, AttributeError):
            found[name] = [_problem(name, "the answer is not a Supabase API's: check SUPABASE_URL")]

    # Daemons: a gateway that sends a byte now and then holds a request for ever, and must not hold the command.
    threads = {name: threading.Thread(target=run, args=item, daemon=True) for name, item in _items(checks)}
    for thread in threads.values():
        thread.start()
    until = time.monotonic() + PATIENCE
    for thread in threads.values():
        thread.join(max(0.0, until - time.monotonic()))
    late = f"no answer within {PATIENCE:.0f} s: check SUPABASE_URL, the network and the project's state"
    return [finding for name in checks for finding in found.get(name) or [_problem(name, late)]]


def _items(
    checks: dict[str, Callable[[Project], Iterable[Finding]]],
) -> Iterator[tuple[str, tuple[str, Callable[[Project], Iterable[Finding]]]]]:
    return ((name, (name, check)) for name, check in checks.items())


def _keys(project: Project) -> Iterator[Finding]:
    """Judge the keys by themselves: kind and project."""
    kinds = (
        (SECRET_KEY, project.secret, "service_role", "secret"),
        (PUBLISHABLE_KEY, project.publishable, "anon", "publishable"),
    )
    for name, key, role, kind in kinds:
        check = f"{kind} key"
        if not key:
            result: Literal["problem", "skipped"] = "problem" if kind == "secret" else "skipped"
            yield Finding(check=check, result=result, message=f"set {name}: Dashboard > Settings > API keys")
            continue
        claims = _claims(key)
        host = urlsplit(project.url).hostname or ""
        if not key.startswith(f"sb_{kind}_") and claims.get("role") != role:
            yield _problem(check, f"{name} holds no {kind} key (sb_{kind}_…): copy it again")
        elif claims.get("ref") and host.endswith(".supabase.co") and host != f"{claims['ref']}.supabase.co":
            yield _problem(check, f"{name} belongs to project {claims['ref']}, SUPABASE_URL to {host}")
        else:
            yield _well(check, "a legacy JWT of the right role" if claims else "of the right kind")


def _claims(key: str) -> dict[str, Any]:
    try:
        payload = key.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, binascii.Error):
        return {}
    return claims if isinstance(claims, dict) else {}


def _alarms(project: Project) -> Iterator[Finding]:
    """Ask for the database's own alarms, and by the answer for key, schema and clock."""
    answer = project.request("POST", "/rest/v1/rpc/widget_alarms", key=project.secret, json={})
    if answer.status_code in (401, 403):
        yield _problem(
            "api",
            f"HTTP {answer.status_code}: {SECRET_KEY} is not this project's, or its rights are gone: "
            "select widget_internal.apply_rights()",
        )
        return
    if answer.status_code == 404:  # noqa: PLR2004
        yield _problem("api", "the schema is missing or older than this command: run `supabase db push`")
        return
    if not answer.is_success:
        yield _problem("api", f"HTTP {answer.status_code}: look at the project's logs")
        return
    alarms = [(str(row["alarm"]), str(row["message"])) for row in answer.json()]
    yield _well("api", "answers, knows the secret key and has the schema")
    yield from _clock(answer)
    for line in (*_ALARM_LINES.values(), "alarms"):
        messages = [message for alarm, message in alarms if _ALARM_LINES.get(alarm, "alarms") == line]
        yield _problem(line, "; ".join(messages)) if messages else _well(line, "no alarm")


def _clock(answer: httpx.Response) -> Iterator[Finding]:
    try:
        theirs = parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError:
        yield Finding(check="clock", result="skipped", message="the answers tell no time")
        return
    apart = abs((datetime.now(UTC) - theirs.astimezone(UTC)).total_seconds())
    if apart > _CLOCK:
        yield _problem("clock", f"this machine's clock and the server's are {apart:.0f} s apart: set this one by NTP")
    else:
        yield _well("clock", "this machine's and the server's agree")


def _cleanup_function(project: Project) -> Iterator[Finding]:
    status = project.request("GET", "/functions/v1/cleanup").status_code
    check = "cleanup function"
    if status == 404:  # noqa: PLR2004
        yield Finding(check=check, result="skipped", message="not deployed; pg_cron does without it")
    elif status in (401, 403):
        yield _well(check, "refuses a caller without the secret")
    elif status == 200:  # noqa: PLR2004
        yield _problem(check, "anyone may run it: set CRON_SECRET and unset CLEANUP_ALLOW_UNAUTHENTICATED")
    else:
        yield _problem(check, f"HTTP {status} to a caller without the secret: set its CRON_SECRET, look at its logs")


def _events_function(project: Project) -> Iterator[Finding]:
    headers = {"Origin": _NO_PAGE, "Access-Control-Request-Method": "POST"}
    answer = project.request("OPTIONS", "/functions/v1/events", headers=headers)
    check = "events function"
    if answer.status_code == 404:  # noqa: PLR2004
        yield Finding(check=check, result="skipped", message="not deployed; needed only by pages that send through it")
    elif answer.is_success and _admits(answer):
        yield _well(check, "answers browsers")
    else:
        yield _problem(check, f"HTTP {answer.status_code} to a preflight: deploy it with verify_jwt = false")


def _browser(project: Project) -> Iterator[Finding]:
    """Send what the tracker sends, a form with the key in the query, but no event."""
    if not project.publishable:
        yield Finding(check="browser", result="skipped", message=f"set {PUBLISHABLE_KEY} to have it checked")
        return
    query = {"apikey": project.publishable}
    answer = project.request(
        "POST", "/rest/v1/rpc/track_events", params=query, data={"events": "[]"}, headers={"Origin": _NO_PAGE}
    )
    if answer.status_code in (401, 403):
        yield _problem("browser", f"{PUBLISHABLE_KEY} is not this project's, or may not call track_events")
    elif "PGRST100" in answer.text or "PGRST202" in answer.text:
        yield _problem("browser", "the gateway takes no key in the query: send through the events function")
    elif not _admits(answer):
        yield _problem(
            "browser", "the answer lacks Access-Control-Allow-Origin, so no page can read it: mend the proxy"
        )
    elif not answer.is_success:
        yield _problem("browser", f"track_events answers HTTP {answer.status_code}: look at the project's logs")
    else:
        yield _well("browser", "CORS and the key in the query are as the tracker needs them")


def _admits(answer: httpx.Response) -> bool:
    return answer.headers.get("Access-Control-Allow-Origin") in ("*", _NO_PAGE)


def _test_event(project: Project, widget: UUID | None) -> Iterator[Finding]:
    """Send a `widget_load` through the door and read it back. It opens no call, so no bill can hold it."""
    check = "test event"
    if widget is None:
        yield Finding(check=check, result="skipped", message="name a widget of your own to have it sent: --widget ID")
        return
    wanted = {"select": "allowed_domains,is_active,is_demo", "id": f"eq.{widget}"}
    rows = project.request("GET", "/rest/v1/widgets", key=project.secret, params=wanted).json()
    if not rows or not rows[0]["is_active"] or rows[0]["is_demo"] or not rows[0]["allowed_domains"]:
        yield _problem(check, f"widget {widget} is unknown, inactive, a demo (nothing is stored) or allows no domain")
        return
    host = rows[0]["allowed_domains"][0]
    origin = _NO_PAGE if host == "*" else f"https://{host.replace('*', 'doctor')}"
    session = f"doctor-{uuid4()}"
    event = {"widget_id": str(widget), "event_type": "widget_load", "session_id": session}
    key = project.publishable or project.secret
    sent = project.request("POST", "/rest/v1/rpc/track_event", key=key, json=event, headers={"Origin": origin})
    if not sent.is_success:
        yield _problem(check, f"widget {widget} answers HTTP {sent.status_code}: see widget_refusals")
        return
    wanted = {"select": "id", "widget_id": f"eq.{widget}", "session_id": f"eq.{session}"}
    stored = project.request("GET", "/rest/v1/widget_analytics", key=project.secret, params=wanted)
    if not stored.is_success or len(stored.json()) != 1:
        yield _problem(check, f"widget {widget} took an event that cannot be read back: look at the project's logs")
    else:
        yield _well(check, f"a widget_load came through the door of widget {widget} and was read back")


def _well(check: str, message: str) -> Finding:
    return Finding(check=check, result="well", message=message)


def _problem(check: str, message: str) -> Finding:
    return Finding(check=check, result="problem", message=message)
