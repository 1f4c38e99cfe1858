"""The checks of ``widget-analytics doctor`` that the database answers: alarms, clock, migrations, length of lists."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpx

from widget_analytics import __version__
from widget_analytics._doctor_project import Finding, Project, problem, skipped, well
from widget_analytics._settings import SECRET_KEY

#: The migrations of this release. Those of one set stand together, and sets may be left out from one on.
MIGRATIONS = (
    "20261128010100_widget_internals",
    "20261128010200_widget_helpers",
    "20261128010300_widgets",
    "20261128010400_widget_core",
    "20261128010500_widget_core_schedule",
    "20261128020100_widget_billing",
    "20261128020200_widget_billing_schedule",
    "20261128030100_widget_health",
    "20261128030200_widget_health_schedule",
    "20261128040100_widget_page",
    "20261128050100_widget_archive",
    "20261128060100_widget_providers",
    "20261128060200_widget_providers_schedule",
    "20261128070100_widget_push",
)
_BASELINE = "20261128"
# Left out where the project has a table of its own, or no pg_cron (then `jobs` tells).
_OPTIONAL = ("_widgets", "_schedule")
# What migrations after the first release are named, so that they are told from the project's own.
_LATER = "_widget_analytics_"

# Seconds that the two clocks may differ by. Events carry ages, so it is the reader of a report who is misled.
_CLOCK = 30
# Rows that a project answers with at once unless set otherwise, and the fewest that exports are quick enough with.
_MAX_ROWS, _LEAST_ROWS = 1_000, 100
_MOST_MESSAGES = 5
# PostgREST's code for a function that the database has not.
_NO_FUNCTION = "PGRST202"
_OLDER = "the schema is missing or older than this command: run `supabase db push`"
# Which line an alarm belongs to; all others stand under `alarms`.
_ALARM_LINES = {
    "rights_too_wide": "rights",
    "job_missing": "jobs",
    "month_not_closed": "months",
    "widget_silent": "silence",
}


def alarms(project: Project) -> Iterator[Finding]:
    """Ask for the database's own alarms, and by the answer for key, schema and clock."""
    answer = _alarms(project, 0)
    if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        yield problem(
            "api",
            f"HTTP {answer.status_code}: {SECRET_KEY} is not this project's, or its rights are gone: "
            "select widget_internal.apply_rights()",
        )
        return
    if _NO_FUNCTION in answer.text:
        yield problem("api", _OLDER)
        return
    if not answer.is_success:
        yield problem("api", f"HTTP {answer.status_code}: check SUPABASE_URL, and look at the project's logs")
        return
    yield well("api", "answers, and knows the secret key and widget_alarms()")
    yield from _clock(answer)
    page = found = answer.json()
    # A list may be cut anywhere: only an empty page is the end.
    while page:
        page = _alarms(project, len(found)).json()
        found += page
    told = [(str(row["alarm"]), str(row["message"])) for row in found]
    for line in (*_ALARM_LINES.values(), "alarms"):
        messages = [message for alarm, message in told if _ALARM_LINES.get(alarm, "alarms") == line]
        more = len(messages) - _MOST_MESSAGES
        rest = [f"and {more:,} more: widget-analytics status"] if more > 0 else []
        yield problem(line, "; ".join([*messages[:_MOST_MESSAGES], *rest])) if messages else well(line, "no alarm")


def _alarms(project: Project, after: int) -> httpx.Response:
    return project.request("POST", "/rest/v1/rpc/widget_alarms", key=project.secret, json={}, params={"offset": after})


def _clock(answer: httpx.Response) -> Iterator[Finding]:
    try:
        theirs = parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError:
        yield skipped("clock", "the answers tell no time")
        return
    apart = abs((datetime.now(UTC) - theirs.astimezone(UTC)).total_seconds())
    if apart > _CLOCK:
        yield problem("clock", f"this machine's clock and the server's are {apart:.0f} s apart: set this one by NTP")
    else:
        yield well("clock", "this machine's and the server's agree")


def migrations(project: Project) -> Iterator[Finding]:
    """Compare the project's history of migrations with this release's."""
    answer = project.request("POST", "/rest/v1/rpc/widget_migrations", key=project.secret, json={})
    if answer.is_success:
        yield _compared(answer.json())
    elif _NO_FUNCTION in answer.text:
        yield problem("migrations", _OLDER)
    else:
        yield skipped("migrations", f"HTTP {answer.status_code}")


def _compared(history: list[str]) -> Finding:
    check = "migrations"
    there = [name for name in MIGRATIONS if name in history]
    newer = [name for name in history if _LATER in name and name not in MIGRATIONS]
    if newer:
        return problem(
            check,
            f"the database has {', '.join(newer)}, this command is of {__version__}: get the newer release and, in its "
            "folder, pip install ./python_client",
        )
    if not there:
        return skipped(check, "the project's history has none of them: not applied by `supabase db push`")
    needed = [name for name in MIGRATIONS if name not in history and not name.endswith(_OPTIONAL)]
    missing = [name for name in needed if name < there[-1] or not name.startswith(_BASELINE)]
    if missing:
        option = " --include-all" if missing[0] < max(history) else ""
        return problem(check, f"{', '.join(missing)} not applied: run `supabase db push{option}`")
    if needed:
        option = " --include-all" if needed[0] < max(history) else ""
        return skipped(
            check,
            f"{', '.join(needed)} not applied: left out on purpose, or run `supabase db push{option}`",
        )
    return well(check, f"all of release {__version__}, none newer")


def max_rows(project: Project) -> Iterator[Finding]:
    """Find where the API cuts lists, where there are enough events to see it."""
    check = "max rows"

    def events(limit: int, offset: int) -> int:
        wanted = {"select": "id", "limit": str(limit), "offset": str(offset)}
        answer = project.request("GET", "/rest/v1/widget_analytics", key=project.secret, params=wanted)
        return len(answer.json()) if answer.is_success else 0

    rows = events(_MAX_ROWS, 0)
    if rows == _MAX_ROWS:
        yield well(check, f"lists come in pages of {_MAX_ROWS:,} or more")
    elif not rows or not events(1, rows):
        yield skipped(check, f"not known before there are {_MAX_ROWS:,} events")
    elif rows < _LEAST_ROWS:
        yield problem(
            check,
            f"lists are cut at {rows}, so exports are slow: set Max rows to {_MAX_ROWS:,} (Dashboard > Settings > API)",
        )
    else:
        yield well(check, f"lists are cut at {rows}; all that reads them asks for the rest")
