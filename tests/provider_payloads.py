"""Call providers as they tell of a call: webhooks of the documented shape, signed as documented."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

import httpx
import jwt

PUBLIC_URL = "https://project.example/functions/v1/providers"
SECRETS = {
    "daily": base64.b64encode(b"daily-secret").decode(),
    "elevenlabs": "elevenlabs-secret",
    "livekit": "APIkey:livekit-secret-of-thirty-two-bytes",
    "retell": "retell-key",
    "twilio": "twilio-token",
    "ultravox": "ultravox-secret",
    "vapi": "vapi-secret",
}
PRIVATE = "what the visitor said"
# One for all: making a client takes longer than a delivery. A function that has gone leaves no connection that counts.
_HTTP = httpx.Client(timeout=30, limits=httpx.Limits(max_keepalive_connections=0))


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a provider knows of a call, or of a leg of one."""

    call_id: str
    started_at: datetime
    ended_at: datetime
    leg_id: str | None = None
    agent: str = "agent-1"
    widget_id: str | None = None
    session_id: str | None = None
    widget_call_id: str | None = None

    @property
    def record_id(self) -> str:
        return self.leg_id or self.call_id

    @property
    def seconds(self) -> float:
        return (self.ended_at - self.started_at).total_seconds()

    @property
    def ids(self) -> dict[str, str]:
        ids = {"widget_id": self.widget_id, "session_id": self.session_id, "call_id": self.widget_call_id}
        return {name: value for name, value in ids.items() if value is not None}


def vapi_call(told: Told) -> dict[str, Any]:
    return {
        "id": told.call_id,
        "type": "webCall",
        "status": "ended",
        "assistantId": told.agent,
        "assistantOverrides": {"metadata": told.ids},
        "createdAt": iso(told.started_at),
        "startedAt": iso(told.started_at),
        "endedAt": iso(told.ended_at),
        "endedReason": "customer-ended-call",
        "cost": 0.0871,
        "artifact": {"transcript": PRIVATE},
        "phoneNumber": {"twilioAuthToken": PRIVATE},
    }


def vapi(told: Told) -> str:
    call = vapi_call(told)
    moved = {name: call.pop(name) for name in ("startedAt", "endedAt", "endedReason", "cost", "artifact")}
    return json.dumps(
        {"message": {"type": "end-of-call-report", "timestamp": ms(told.ended_at), **moved, "call": call}}
    )


def retell_call(told: Told) -> dict[str, Any]:
    return {
        "call_type": "web_call",
        "call_id": told.call_id,
        "agent_id": told.agent,
        "call_status": "ended",
        "metadata": told.ids,
        "start_timestamp": ms(told.started_at),
        "end_timestamp": ms(told.ended_at),
        "duration_ms": round(told.seconds * 1000),
        "disconnection_reason": "user_hangup",
        "transcript": PRIVATE,
        "call_cost": {"combined_cost": 8.71, "total_duration_seconds": 60},
    }


def retell(told: Told) -> str:
    return json.dumps({"event": "call_ended", "call": retell_call(told)})


def elevenlabs_conversation(told: Told) -> dict[str, Any]:
    return {
        "agent_id": told.agent,
        "conversation_id": told.call_id,
        "status": "done",
        "transcript": [{"role": "user", "message": PRIVATE}],
        "metadata": {
            "start_time_unix_secs": int(told.started_at.timestamp()),
            "call_duration_secs": round(told.seconds),
            "cost": 320,
            "termination_reason": "Client disconnected",
            "phone_call": None,
        },
        "conversation_initiation_client_data": {"dynamic_variables": {"user_name": PRIVATE, **told.ids}},
    }


def elevenlabs(told: Told) -> str:
    data = elevenlabs_conversation(told)
    return json.dumps({"type": "post_call_transcription", "event_timestamp": int(time.time()), "data": data})


def livekit(told: Told, **participant: Any) -> str:
    """As Protocol Buffers write JSON: 64-bit integers as strings, nothing that is zero."""
    seconds = {"joinedAt": str(int(told.started_at.timestamp())), "joinedAtMs": str(ms(told.started_at))}
    return json.dumps(
        {
            "event": "participant_left",
            "id": f"EV_{told.record_id}",
            "createdAt": str(int(told.ended_at.timestamp())),
            "room": {"sid": told.call_id, "name": told.agent, "metadata": PRIVATE},
            "participant": {
                "sid": told.record_id,
                "identity": PRIVATE,
                "state": "DISCONNECTED",
                "disconnectReason": "CLIENT_INITIATED",
                "attributes": told.ids,
                **seconds,
                **participant,
            },
        }
    )


def twilio(told: Told) -> str:
    return urlencode(
        {
            "AccountSid": "AC1",
            "ApplicationSid": told.agent,
            "CallSid": told.call_id,
            "CallStatus": "completed",
            "CallDuration": str(round(told.seconds)),
            "Duration": str(-(-round(told.seconds) // 60)),
            "Caller": "client:visitor",
            "From": "client:visitor",
            "To": "",
            "Direction": "inbound",
            "SequenceNumber": "0",
            "Timestamp": format_datetime(told.ended_at),
            "Note": PRIVATE,
        }
    )


def daily(told: Told, **payload: Any) -> str:
    return json.dumps(
        {
            "version": "1.1.0",
            "type": "participant.left",
            "id": f"evt-{told.record_id}",
            "event_ts": told.ended_at.timestamp(),
            "payload": {
                "session_id": told.record_id,
                "meeting_id": told.call_id,
                "room": told.agent,
                "user_id": told.session_id or told.record_id,
                "user_name": PRIVATE,
                "joined_at": told.started_at.timestamp(),
                "duration": told.seconds,
                "owner": False,
                **payload,
            },
        }
    )


def ultravox_call(told: Told) -> dict[str, Any]:
    return {
        "callId": told.call_id,
        "created": iso(told.started_at),
        "joined": iso(told.started_at),
        "ended": iso(told.ended_at),
        "endReason": "hangup",
        "billedDuration": f"{told.seconds}s",
        "agent": {"agentId": told.agent, "name": "Agent"},
        "medium": {"webRtc": {}},
        "metadata": told.ids,
        "systemPrompt": PRIVATE,
    }


def ultravox(told: Told) -> str:
    return json.dumps({"event": "call.ended", "call": ultravox_call(told)})


BODIES: dict[str, Callable[[Told], str]] = {
    "daily": daily,
    "elevenlabs": elevenlabs,
    "livekit": livekit,
    "retell": retell,
    "twilio": twilio,
    "ultravox": ultravox,
    "vapi": vapi,
}
#: Those that tell times in whole seconds.
WHOLE_SECONDS = {"elevenlabs", "livekit", "twilio"}


def deliver(
    url: str,
    name: str,
    body: str,
    *,
    signed_at: datetime | None = None,
    signed_as: str | None = None,
    query: str = "",
    address: str = PUBLIC_URL,
) -> httpx.Response:
    """Send a webhook as the provider does, or with the signature of another body."""
    at = signed_at or datetime.now(UTC)
    headers = _signed(name, signed_as or body, at, f"{address}/{name}{query}")
    return _HTTP.post(f"{url}/{name}{query}", content=body, headers=headers)


def query_of(name: str, told: Told) -> str:
    """Where Twilio's voice handler puts our ids."""
    return f"?{urlencode(told.ids)}" if name == "twilio" and told.ids else ""


def _signed(name: str, body: str, at: datetime, url: str) -> dict[str, str]:
    secret, seconds = SECRETS[name], str(int(at.timestamp()))
    match name:
        case "vapi":
            return {"x-timestamp": seconds, "x-signature": _hmac(secret, f"{seconds}.{body}").hex()}
        case "retell":
            return {"X-Retell-Signature": f"v={ms(at)},d={_hmac(secret, f'{body}{ms(at)}').hex()}"}
        case "elevenlabs":
            return {"ElevenLabs-Signature": f"t={seconds},v0={_hmac(secret, f'{seconds}.{body}').hex()}"}
        case "livekit":
            key, _, value = secret.partition(":")
            hashed = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
            claims = {"iss": key, "nbf": int(seconds), "exp": int(seconds) + 300, "sha256": hashed}
            return {"Authorization": jwt.encode(claims, value), "Content-Type": "application/webhook+json"}
        case "twilio":
            fields = sorted(httpx.QueryParams(body).multi_items())
            signature = _hmac(secret, url + "".join(map("".join, fields)), "sha1")
            form = "application/x-www-form-urlencoded"
            return {"X-Twilio-Signature": base64.b64encode(signature).decode(), "Content-Type": form}
        case "daily":
            signature = _hmac(base64.b64decode(secret), f"{seconds}.{body}")
            return {"X-Webhook-Timestamp": seconds, "X-Webhook-Signature": base64.b64encode(signature).decode()}
        case _:
            signature = _hmac(secret, body + iso(at))
            return {"X-Ultravox-Webhook-Timestamp": iso(at), "X-Ultravox-Webhook-Signature": signature.hex()}


def _hmac(key: str | bytes, message: str, algorithm: str = "sha256") -> bytes:
    return hmac.digest(key if isinstance(key, bytes) else key.encode(), message.encode(), algorithm)


def iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
