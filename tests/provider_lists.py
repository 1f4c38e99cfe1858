"""The providers' list APIs, each keeping its documented contract, with short pages."""

import base64
import json
from collections.abc import Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from local_stack.unreliable_proxy import Answer, Fault, Seen
from tests.provider_payloads import Told, elevenlabs_conversation, retell_call, ultravox_call, vapi_call

#: What the command needs of the environment to reach them.
KEYS = {
    "daily": {"DAILY_API_KEY": "key"},
    "elevenlabs": {"ELEVENLABS_API_KEY": "key"},
    "retell": {"RETELL_API_KEY": "key"},
    "twilio": {"TWILIO_ACCOUNT_SID": "AC1", "TWILIO_AUTH_TOKEN": "key"},
    "ultravox": {"ULTRAVOX_API_KEY": "key"},
    "vapi": {"VAPI_API_KEY": "key"},
}
#: Calls that are no records: on a telephone, and not over yet.
TELEPHONE, OPEN = "telephone", "open"
_PAGE = 3
_BASIC = f"Basic {base64.b64encode(b'AC1:key').decode()}"
_CREDENTIALS = {
    "elevenlabs": ("xi-api-key", "key"),
    "ultravox": ("x-api-key", "key"),
    "twilio": ("authorization", _BASIC),
}


def provider_api(name: str, calls: Sequence[Told], *, api_url: str = "") -> Fault:
    """Answers as that provider, whose calls these are; the one named `telephone` or `open` is such a one."""
    header, value = _CREDENTIALS.get(name, ("authorization", "Bearer key"))

    def answer(seen: Seen) -> Answer:
        if seen.headers.get(header) != value:
            return Answer(401, '{"message":"no"}')
        url = urlsplit(seen.path)
        found = _APIS[name](calls, url.path, dict(parse_qsl(url.query)), seen, api_url)
        return Answer(404, "{}") if found is None else Answer(200, json.dumps(found))

    return answer


def _vapi(calls: Sequence[Told], path: str, query: dict[str, str], seen: Seen, _: str) -> Any:
    if (seen.method, path) != ("GET", "/call"):
        return None
    all_of_them = [
        vapi_call(told)
        | ({"type": "inboundPhoneCall"} if told.call_id == TELEPHONE else {})
        | ({"status": "in-progress", "endedAt": None} if told.call_id == OPEN else {})
        for told in sorted(calls, key=lambda told: told.started_at, reverse=True)
    ]
    low, high = query["createdAtGe"], query.get("createdAtLe") or query["createdAtLt"]
    found = [
        call
        for call in all_of_them
        if datetime.fromisoformat(low) <= datetime.fromisoformat(call["createdAt"]) <= datetime.fromisoformat(high)
        and call["createdAt"] != query.get("createdAtLt")
    ]
    return found[: min(_PAGE, int(query.get("limit", 100)))]


def _retell(calls: Sequence[Told], path: str, _query: dict[str, str], seen: Seen, _: str) -> Any:
    if (seen.method, path) != ("POST", "/v3/list-calls"):
        return None
    asked = json.loads(seen.body)
    started = asked["filter_criteria"]["start_timestamp"]
    assert (started["type"], started["op"]) == ("range", "bt")
    low, high = started["value"]
    found = [
        retell_call(told)
        | ({"call_type": "phone_call"} if told.call_id == TELEPHONE else {})
        | ({"call_status": "ongoing", "end_timestamp": None} if told.call_id == OPEN else {})
        for told in sorted(calls, key=lambda told: told.started_at, reverse=asked["sort_order"] == "descending")
        if low <= told.started_at.timestamp() * 1000 <= high
    ]
    first = int(asked.get("pagination_key", 0))
    more = first + _PAGE < len(found)
    return {"items": found[first : first + _PAGE], "has_more": more} | (
        {"pagination_key": str(first + _PAGE)} if more else {}
    )


def _elevenlabs(calls: Sequence[Told], path: str, query: dict[str, str], seen: Seen, _: str) -> Any:
    root = "/v1/convai/conversations"
    if seen.method != "GET" or not path.startswith(root):
        return None
    if path != root:
        one = next(told for told in calls if path == f"{root}/{told.call_id}")
        conversation = elevenlabs_conversation(one)
        if one.call_id == TELEPHONE:
            conversation["metadata"]["phone_call"] = {"direction": "inbound"}
        return conversation
    low, high = int(query["call_start_after_unix"]), int(query["call_start_before_unix"])
    assert int(query["page_size"]) <= 100
    found = [
        {
            "conversation_id": told.call_id,
            "agent_id": told.agent,
            "status": "in-progress" if told.call_id == OPEN else "done",
            "start_time_unix_secs": int(told.started_at.timestamp()),
            "call_duration_secs": round(told.seconds),
        }
        for told in calls
        if low < told.started_at.timestamp() < high
    ]
    first = int(query.get("cursor", 0))
    more = first + _PAGE < len(found)
    return {
        "conversations": found[first : first + _PAGE],
        "has_more": more,
        "next_cursor": str(first + _PAGE) if more else None,
    }


def _twilio(calls: Sequence[Told], path: str, query: dict[str, str], seen: Seen, _: str) -> Any:
    root = "/2010-04-01/Accounts/AC1/Calls.json"
    if (seen.method, path) != ("GET", root):
        return None
    low, high = (datetime.fromisoformat(query[name]) for name in ("StartTime>", "StartTime<"))
    assert int(query["PageSize"]) <= 1000
    found = [
        {
            "sid": told.call_id,
            "parent_call_sid": None,
            "from": "+15550100" if told.call_id == TELEPHONE else "client:visitor",
            "to": told.agent,
            "status": "in-progress" if told.call_id == OPEN else "completed",
            "start_time": format_datetime(told.started_at),
            "end_time": None if told.call_id == OPEN else format_datetime(told.ended_at),
            "duration": str(round(told.seconds)),
            "price": "-0.00850",
            "price_unit": "USD",
        }
        for told in calls
        if low <= told.started_at <= high
    ]
    first = int(query.get("Page", 0)) * _PAGE
    following = {**query, "Page": str(first // _PAGE + 1), "PageToken": "PT1"}
    encoded = "&".join(f"{name}={value}" for name, value in following.items()).replace(">", "%3E").replace("<", "%3C")
    return {
        "calls": found[first : first + _PAGE],
        "next_page_uri": f"{root}?{encoded}" if first + _PAGE < len(found) else None,
    }


def _daily(calls: Sequence[Told], path: str, query: dict[str, str], seen: Seen, _: str) -> Any:
    if (seen.method, path) != ("GET", "/meetings"):
        return None
    low, high = int(query["timeframe_start"]), int(query["timeframe_end"])
    found = [
        {
            "id": told.call_id,
            "room": told.agent,
            "start_time": int(told.started_at.timestamp()),
            "duration": round(told.seconds),
            "ongoing": told.call_id == OPEN,
            "max_participants": 2,
            "participants": [
                {
                    "user_id": None if told.call_id == TELEPHONE else told.session_id or "visitor",
                    "participant_id": told.record_id,
                    "join_time": int(told.started_at.timestamp()),
                    "duration": int(told.seconds),
                },
                {
                    "user_id": "staff",
                    "participant_id": f"agent-of-{told.record_id}",
                    "join_time": int(told.started_at.timestamp()) - 30,
                    "duration": 3600,
                },
            ],
        }
        for told in calls
        if low <= told.started_at.timestamp() <= high
    ]
    places = {meeting["id"]: place + 1 for place, meeting in enumerate(found)}
    first = places[query["starting_after"]] if "starting_after" in query else 0
    return {"total_count": len(found), "data": found[first : first + min(_PAGE, int(query["limit"]))]}


def _ultravox(calls: Sequence[Told], path: str, query: dict[str, str], seen: Seen, api_url: str) -> Any:
    if (seen.method, path) != ("GET", "/api/calls"):
        return None
    days = (query["fromDate"], query["toDate"])
    found = [
        ultravox_call(told)
        | ({"medium": {"twilio": {}}} if told.call_id == TELEPHONE else {})
        | ({"ended": None, "endReason": None} if told.call_id == OPEN else {})
        for told in calls
        if days[0] <= f"{told.started_at:%Y-%m-%d}" <= days[1]
    ]
    first = int(query.get("cursor", 0))
    following = f"{api_url}/api/calls?fromDate={days[0]}&toDate={days[1]}&cursor={first + _PAGE}"
    return {
        "total": len(found),
        "results": found[first : first + _PAGE],
        "next": following if first + _PAGE < len(found) else None,
    }


_APIS = {
    "daily": _daily,
    "elevenlabs": _elevenlabs,
    "retell": _retell,
    "twilio": _twilio,
    "ultravox": _ultravox,
    "vapi": _vapi,
}
