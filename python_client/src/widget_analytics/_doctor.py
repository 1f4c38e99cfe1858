"""Checks an installation end to end, in ten seconds at most: for ``widget-analytics doctor``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx

from widget_analytics._deadline import begin, late
from widget_analytics._doctor_database import alarms, max_rows, migrations
from widget_analytics._doctor_project import Finding, Project, problem, skipped, well
from widget_analytics._settings import (
    PUBLISHABLE_KEY,
    SECRET_KEY,
    UNUSABLE,
    Settings,
    legacy_claims,
    patience,
    unusable,
    variable,
)
from widget_analytics.errors import ConfigError, Unreachable

# Seconds for all steps together, unless the environment says otherwise. Starting Python takes up to the rest of ten.
_PATIENCE = 5.0
_NO_PAGE = "https://widget-analytics-doctor.invalid"


def examine(widget: UUID | None = None) -> list[Finding]:
    """Run every check, those that need the API side by side; one that has not ended in time is a problem."""
    try:
        settings, seconds = Settings.load(), patience(_PATIENCE)
        httpx.Client().close()
    except ConfigError as error:
        return [problem("settings", str(error))]
    except UNUSABLE as error:
        return [problem("settings", unusable(error))]
    project = Project(settings.url, variable(SECRET_KEY), variable(PUBLISHABLE_KEY) or None, seconds)
    findings = list(_keys(project))
    if not project.secret:
        return findings
    checks: dict[str, Callable[[Project], Iterable[Finding]]] = {
        "alarms": alarms,
        "migrations": migrations,
        "max rows": max_rows,
        "cleanup function": _cleanup_function,
        "events function": _events_function,
        "browser": _browser,
        "test event": lambda project: _test_event(project, widget),
    }
    return findings + _side_by_side(checks, project)


def _side_by_side(checks: dict[str, Callable[[Project], Iterable[Finding]]], project: Project) -> list[Finding]:
    # A gateway that sends a byte now and then holds a request for ever, and must not hold the command.
    answers = {name: begin(partial(_run, name, check, project)) for name, check in checks.items()}
    until = time.monotonic() + project.patience
    findings: list[Finding] = []
    for name, answer in answers.items():
        try:
            findings += answer(max(0.0, until - time.monotonic()))
        except Unreachable:
            findings.append(problem(name, str(late(project.patience))))
    return findings


def _run(name: str, check: Callable[[Project], Iterable[Finding]], project: Project) -> list[Finding]:
    try:
        return list(check(project))
    except httpx.HTTPError as error:
        message = f"{urlsplit(project.url).netloc} cannot be reached: {error or type(error).__name__}"
        return [problem(name, message)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [problem(name, "the answer is not a Supabase API's: check SUPABASE_URL")]


def _keys(project: Project) -> Iterator[Finding]:
    """Judge the keys by themselves: kind and project."""
    kinds = (
        (SECRET_KEY, project.secret, "service_role", "secret"),
        (PUBLISHABLE_KEY, project.publishable, "anon", "publishable"),
    )
    for name, key, role, kind in kinds:
        check = f"{kind} key"
        if not key:
            judge = problem if kind == "secret" else skipped
            yield judge(check, f"set {name}: Dashboard > Settings > API keys")
            continue
        claims = legacy_claims(key)
        host = urlsplit(project.url).hostname or ""
        if not key.startswith(f"sb_{kind}_") and claims.get("role") != role:
            yield problem(check, f"{name} holds no {kind} key (sb_{kind}_…): copy it again")
        elif claims.get("ref") and host.endswith(".supabase.co") and host != f"{claims['ref']}.supabase.co":
            yield problem(check, f"{name} belongs to project {claims['ref']}, SUPABASE_URL to {host}")
        else:
            yield well(check, "a legacy JWT of the right role" if claims else "of the right kind")


def _cleanup_function(project: Project) -> Iterator[Finding]:
    status = project.request("GET", "/functions/v1/cleanup").status_code
    check = "cleanup function"
    if status == 404:  # noqa: PLR2004
        yield skipped(check, "not deployed; pg_cron does without it")
    elif status in (401, 403):
        yield well(check, "refuses a caller without the secret")
    elif status == 200:  # noqa: PLR2004
        yield problem(check, "anyone may run it: set CRON_SECRET and unset CLEANUP_ALLOW_UNAUTHENTICATED")
    else:
        yield problem(check, f"HTTP {status} to a caller without the secret: set its CRON_SECRET, look at its logs")


def _events_function(project: Project) -> Iterator[Finding]:
    headers = {"Origin": _NO_PAGE, "Access-Control-Request-Method": "POST"}
    answer = project.request("OPTIONS", "/functions/v1/events", headers=headers)
    check = "events function"
    if answer.status_code == 404:  # noqa: PLR2004
        yield skipped(check, "not deployed; needed only by pages that send through it")
    elif answer.is_success and _admits(answer):
        yield well(check, "answers browsers")
    else:
        yield problem(check, f"HTTP {answer.status_code} to a preflight: deploy it with verify_jwt = false")


def _browser(project: Project) -> Iterator[Finding]:
    """Send what the tracker sends, a form with the key in the query, but no event."""
    if not project.publishable:
        yield skipped("browser", f"set {PUBLISHABLE_KEY} to have it checked")
        return
    query = {"apikey": project.publishable}
    answer = project.request(
        "POST", "/rest/v1/rpc/track_events", params=query, data={"events": "[]"}, headers={"Origin": _NO_PAGE}
    )
    if answer.status_code in (401, 403):
        yield problem("browser", f"{PUBLISHABLE_KEY} is not this project's, or may not call track_events")
    elif "PGRST100" in answer.text or "PGRST202" in answer.text:
        yield problem("browser", "the gateway takes no key in the query: send through the events function")
    elif not _admits(answer):
        yield problem("browser", "the answer lacks Access-Control-Allow-Origin, so no page can read it: mend the proxy")
    elif not answer.is_success:
        yield problem("browser", f"track_events answers HTTP {answer.status_code}: look at the project's logs")
    else:
        yield well("browser", "CORS and the key in the query are as the tracker needs them")


def _admits(answer: httpx.Response) -> bool:
    return answer.headers.get("Access-Control-Allow-Origin") in ("*", _NO_PAGE)


def _test_event(project: Project, widget: UUID | None) -> Iterator[Finding]:
    """Send a `widget_load` through the door and read it back. It opens no call, so no bill can hold it."""
    check = "test event"
    if widget is None:
        yield skipped(check, "name a widget of your own to have it sent: --widget ID")
        return
    wanted = {"select": "allowed_domains,is_active,is_demo", "id": f"eq.{widget}"}
    rows = project.request("GET", "/rest/v1/widgets", key=project.secret, params=wanted).json()
    if not rows or not rows[0]["is_active"] or rows[0]["is_demo"] or not rows[0]["allowed_domains"]:
        yield problem(check, f"widget {widget} is unknown, inactive, a demo (nothing is stored) or allows no domain")
        return
    host = rows[0]["allowed_domains"][0]
    origin = _NO_PAGE if host == "*" else f"https://{host.replace('*', 'doctor')}"
    session = f"doctor-{uuid4()}"
    event = {"widget_id": str(widget), "event_type": "widget_load", "session_id": session}
    key = project.publishable or project.secret
    sent = project.request("POST", "/rest/v1/rpc/track_event", key=key, json=event, headers={"Origin": origin})
    if not sent.is_success:
        yield problem(check, f"widget {widget} answers HTTP {sent.status_code}: see widget_refusals")
        return
    wanted = {"select": "id", "widget_id": f"eq.{widget}", "session_id": f"eq.{session}"}
    stored = project.request("GET", "/rest/v1/widget_analytics", key=project.secret, params=wanted)
    if not stored.is_success or len(stored.json()) != 1:
        yield problem(check, f"widget {widget} took an event that cannot be read back: look at the project's logs")
    else:
        yield well(check, f"a widget_load came through the door of widget {widget} and was read back")
