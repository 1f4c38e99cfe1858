"""The loads: what browsers send, as pgbench scripts, and the same rows for the seed's table."""

import json
from collections.abc import Sequence

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

# A UUIDv7 as the tracker makes them: the milliseconds, then at random. pgbench has no clock, so each connection counts
# up from the start; the ids rise as real ones do. The random part is drawn so that its first bits say "a UUID".
_RANDOM = "random(-9223372036854775807, -4611686018427387905)"
_NEXT_MILLISECOND = "\\set ms :ms + random(1, 3)\n"


def uuid_v7(random_part: str, number: int = 0) -> str:
    """The SQL of a UUIDv7."""
    return f"format('0%s7{number:03x}%s', to_hex(:ms::bigint), to_hex(:{random_part}::bigint))::uuid"


SESSION_ID = f"{uuid_v7('s')}::text"
# As the seed's trackers would draw it, at random; made of as many function calls as ours.
_RANDOM_SESSION_ID = "format('%s%s', to_hex(:r::bigint), to_hex(:s::bigint))::uuid::text"


def widget() -> str:
    """The SQL of the id of widget number :w."""
    return "('00000000-0000-7000-8000-' || lpad(:w::text, 12, '0'))::uuid"


def with_ids(widgets: str) -> str:
    """A script's head: the widget :w, the time :ms, and the random parts :r of an id and :s of a session."""
    return f"\\set w {widgets}\n{_NEXT_MILLISECOND}\\set r {_RANDOM}\n\\set s {_RANDOM}\n"


def _ours(name: str, script: str, *, widgets: str, events: int = 1) -> Load:
    return Load(
        name,
        with_ids(widgets) + script,
        role="anon",
        settings=REQUEST,
        events=events,
    )


def track_load(*, widgets: str = ANY_WIDGET, with_id: bool = True, schema: str = "public") -> Load:
    """The first event of a session: the one with page and browser, the longest row."""
    event_id = f", event_id => {uuid_v7('r')}, seq => 1" if with_id else ""
    return _ours(
        "track_event, widget_load",
        f"select {schema}.track_event({widget()}, 'widget_load', {SESSION_ID}, '{PAGE_URL}'{event_id});\n",
        widgets=widgets,
    )


def seed_insert(*, widgets: str = ANY_WIDGET) -> Load:
    """The same event as a bare insert into the seed's table, by the company's backend."""
    return Load(
        "bare insert, the seed's table",
        with_ids(widgets)
        + "insert into seed_baseline.widget_analytics (widget_id, event_type, session_id, page_url, user_agent)\n"
        f"values ({widget()}, 'widget_load', {_RANDOM_SESSION_ID}, '{PAGE_URL}', '{USER_AGENT}');\n",
        role="service_role",
    )


def track_call() -> Load:
    """A call in a session of its own: start, heartbeat and end, as three requests."""
    return _requests("track_event, call events", ("call_start", "call_heartbeat", "call_end"))


def track_no_call() -> Load:
    """As many requests as `track_call`, and as long rows, without a call."""
    return _requests("track_event, other events", ("widget_open", "widget_open", "widget_open"))


def _requests(name: str, events: Sequence[str]) -> Load:
    return _ours(
        name,
        "".join(
            f"select public.track_event({widget()}, '{event}', {SESSION_ID}, call_id => {SESSION_ID},"
            f" event_id => {uuid_v7('r', number)}, seq => {number});\n"
            for number, event in enumerate(events, start=1)
        ),
        widgets=ANY_WIDGET,
        events=len(events),
    )


# One session in twenty events: a load, two opens, and a call of eight minutes with its heartbeats.
_SESSION = ("widget_load", "widget_open", "widget_open", "call_start", *["call_heartbeat"] * 15, "call_end")


def track_batch() -> Load:
    """Twenty events of a session in one request."""
    template = [
        {
            "widget_id": "00000000-0000-7000-8000-WIDGETNUMBER",
            "event_type": event,
            "session_id": "SESSION",
            "event_id": f"TIME7{number:03x}RANDOM",
            "seq": number,
            "age_ms": 20 - number,
            **({"page_url": PAGE_URL} if number == 1 else {}),
            **({"call_id": "SESSION"} if event.startswith("call") else {}),
        }
        for number, event in enumerate(_SESSION, start=1)
    ]
    return _ours(
        "track_events, 20 a call",
        f"select public.track_events(replace(replace(replace(replace('{json.dumps(template)}', "
        f"'TIME', '0' || to_hex(:ms::bigint)), 'RANDOM', to_hex(:s::bigint)), 'SESSION', {SESSION_ID}), "
        "'WIDGETNUMBER', lpad(:w::text, 12, '0'))::jsonb);\n",
        widgets=ANY_WIDGET,
        events=len(_SESSION),
    )


def track_session() -> Load:
    """The same twenty events in twenty requests."""
    return _ours(
        "track_event, 20 calls",
        "".join(
            f"select public.track_event({widget()}, '{event}', {SESSION_ID}, "
            + (f"page_url => '{PAGE_URL}', " if number == 1 else "")
            + (f"call_id => {SESSION_ID}, " if event.startswith("call") else "")
            + f"event_id => {uuid_v7('s', number)}, seq => {number}, age_ms => {20 - number});\n"
            for number, event in enumerate(_SESSION, start=1)
        ),
        widgets=ANY_WIDGET,
        events=len(_SESSION),
    )
