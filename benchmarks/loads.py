"""The requests that a tracker sends, as recorded, and the bare insert that they are measured against."""

import json
import secrets
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks.pgbench import Load, request_settings

WIDGETS = 1000
PAGE_URL = "https://shop.example/collections/garden-furniture"
USER_AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
)
# What a gateway passes on of a browser's request.
HEADERS = {
    "host": "abcdefghijklmnopqrst.supabase.co",
    "user-agent": USER_AGENT,
    "accept": "*/*",
    "accept-encoding": "gzip, br",
    "accept-language": "en-GB,en;q=0.9,de;q=0.8",
    "content-length": "412",
    "content-type": "application/x-www-form-urlencoded;charset=UTF-8",
    "origin": "https://shop.example",
    "referer": "https://shop.example/",
    "sec-fetch-dest": "empty",
    "sec-fetch-mode": "cors",
    "sec-fetch-site": "cross-site",
    "x-forwarded-for": "203.0.113.7",
    "x-forwarded-host": "abcdefghijklmnopqrst.supabase.co",
    "x-forwarded-proto": "https",
}
REQUEST = request_settings(HEADERS)

FIRST_WIDGET = "00000000-0000-7000-8000-000000000001"
ANY_WIDGET = f"random(1, {WIDGETS})"
ONE_WIDGET = "1"

Event = dict[str, Any]
# scripts/record-requests writes this file; each event is as it was sent, with CALL for the call's id.
_RECORDED: dict[str, list[Event]] = json.loads(Path(__file__).with_name("tracker_requests.json").read_text())
REQUESTS: dict[str, list[Event]] = _RECORDED | {"twenty loads": _RECORDED["load"] * 20}
OFFLINE = "return of an offline visitor"
# A call of two minutes: its start, a heartbeat every 30 seconds, its end.
TWO_MINUTES = ("start with heartbeat", *["heartbeat"] * 4, "end")

# A UUIDv7 as the tracker makes them: the milliseconds, then at random. pgbench has no clock, so each connection counts
# up from the start; the ids rise as real ones do. The random part is drawn so that its first bits say "a UUID".
_RANDOM = "random(-9223372036854775807, -4611686018427387905)"
_HEAD = f"\\set ms :ms + random(1, 3)\n\\set r {_RANDOM}\n\\set s {_RANDOM}\n"
_SESSION = "format('0%s7000%s', to_hex(:ms::bigint), to_hex(:s::bigint))::uuid::text"


def uuid_v7() -> str:
    milliseconds = time.time_ns() // 1_000_000
    return str(UUID(f"{milliseconds:012x}7{secrets.randbits(12):03x}8{secrets.randbits(60):015x}"))


def body(request: str, *, session_id: str, call_id: str, widget_id: str = FIRST_WIDGET) -> str:
    """The events of one request, in a session and a call, each with an id of its own."""
    return json.dumps(
        [
            {"event_id": uuid_v7(), "widget_id": widget_id, "session_id": session_id}
            | event
            | ({"call_id": call_id} if "call_id" in event else {})
            for event in REQUESTS[request]
        ],
        separators=(",", ":"),
    )


def tracker(*requests: str, widgets: str = ANY_WIDGET) -> Load:
    """These requests one after the other, in a session of their own, as pgbench plays them."""
    statements, events = [], 0
    for request in requests:
        templates = []
        for event in REQUESTS[request]:
            events += 1
            templates.append(
                {"event_id": f"TIME7{events:03x}RANDOM", "widget_id": FIRST_WIDGET[:-12] + "WIDGETNUMBER"}
                | {"session_id": "SESSION"}
                | event
                | ({"call_id": "SESSION"} if "call_id" in event else {})
            )
        statements.append(
            f"select public.track_events(replace(replace(replace(replace('{json.dumps(templates)}', "
            "'TIME', '0' || to_hex(:ms::bigint)), 'RANDOM', to_hex(:r::bigint)), "
            f"'SESSION', {_SESSION}), 'WIDGETNUMBER', lpad(:w::text, 12, '0'))::jsonb);\n"
        )
    return Load(
        ", ".join(dict.fromkeys(requests)),
        f"\\set w {widgets}\n{_HEAD}" + "".join(statements),
        role="anon",
        settings=REQUEST,
        events=events,
    )


# Into the table exactly as the document has it.
BARE_INSERT = (
    'insert into original_baseline.bare (id, widget_id, event_type, session_id, page_url, user_agent, "timestamp")'
    f" values (%s, '{FIRST_WIDGET}', 'widget_load', %s, '{PAGE_URL}', '{USER_AGENT}', now())"
)


def bare_insert(*, widgets: str = ANY_WIDGET) -> Load:
    """One row of the user's document, as the company's backend would insert it."""
    widget = "('00000000-0000-7000-8000-' || lpad(:w::text, 12, '0'))::uuid"
    # As a tracker that draws session ids at random would; made of as many function calls as ours.
    session = "format('%s%s', to_hex(:r::bigint), to_hex(:s::bigint))::uuid::text"
    return Load(
        "bare insert of the document's row",
        f"\\set w {widgets}\n{_HEAD}insert into original_baseline.widget_analytics"
        " (widget_id, event_type, session_id, page_url, user_agent)"
        f" values ({widget}, 'widget_load', {session}, '{PAGE_URL}', '{USER_AGENT}');\n",
        role="service_role",
    )
