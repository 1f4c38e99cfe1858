"""A server that keeps what Stripe, Lago and OpenMeter document of their APIs, as far as a push needs it.

It stands in for them: none of them can be reached from a test. Its clock can be put forward, as what each remembers of
an event's name ends with time. `trouble` is asked before and after each event is taken.
"""

import json
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import make_server

KEY = "test_key_that_nobody_may_see"
TEST_MODE_KEY = "sk_test_that_nobody_may_see"
METER_ID = "mtr_1"
_DAY = timedelta(days=1)
_BEGINS = datetime(2026, 10, 2, tzinfo=UTC)
_METER_LOOKS_BACK = timedelta(days=35)
_OPENMETER_REMEMBERS = timedelta(days=32)
_BATCH = 100


@dataclass
class Systems:
    """What the three have been told, and what they would bill."""

    url: str = ""
    key: str = KEY
    trouble: Callable[[str], None] = lambda moment: None
    # How long after an event was taken a look does not see it yet.
    lag: timedelta = timedelta(0)
    unknown_customers: set[str] = field(default_factory=set)
    # Known customers for whom nothing new is taken just now.
    blocked_customers: set[str] = field(default_factory=set)
    # Lago's other store: an event of the same name and time replaces the one before, and shows late.
    lago_on_clickhouse: bool = False
    items: list[dict[str, Any]] = field(default_factory=list)
    meter_events: list[dict[str, Any]] = field(default_factory=list)
    lago_events: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)
    openmeter_events: list[dict[str, Any]] = field(default_factory=list)
    requests: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)
    _started: datetime = field(default_factory=lambda: datetime.now(UTC))
    _later: timedelta = timedelta(0)
    _answers: dict[str, tuple[datetime, str, Response]] = field(default_factory=dict)
    _identifiers: dict[str, datetime] = field(default_factory=dict)
    _names: dict[tuple[str, str], datetime] = field(default_factory=dict)

    def now(self) -> datetime:
        return _BEGINS + (datetime.now(UTC) - self._started) + self._later

    def pass_time(self, time: timedelta) -> None:
        self._later += time

    def forget(self) -> None:
        self.trouble = lambda moment: None
        self._later = self.lag = timedelta(0)
        self.lago_on_clickhouse = False
        for customers in (self.unknown_customers, self.blocked_customers):
            customers.clear()
        for taken in (self.items, self.meter_events, self.openmeter_events):
            taken.clear()
        for known in (self.lago_events, self._answers, self._identifiers, self._names):
            known.clear()

    def of_customers(self, kind: str) -> dict[str, Decimal]:
        """What each customer is billed: minor units of items, seconds of the others."""
        sums: dict[str, Decimal] = defaultdict(Decimal)
        match kind:
            case "items":
                for item in self.items:
                    sums[item["customer"]] += int(item["amount"])
            case "meter":
                for event in self.meter_events:
                    sums[event["customer"]] += event["value"]
            case "lago" | "lago-clickhouse":
                for event in self.lago_events.values():
                    sums[event["external_subscription_id"]] += Decimal(event["properties"]["seconds"])
            case "openmeter":
                for event in self.openmeter_events:
                    sums[event["subject"]] += Decimal(event["data"]["seconds"])
        return dict(sums)

    def names(self, kind: str) -> set[str]:
        """What it holds, by the charges' names."""
        match kind:
            case "items":
                return {item["metadata"]["widget_charge"] for item in self.items}
            case "meter":
                return set(self._identifiers)
            case "openmeter":
                return {event["id"] for event in self.openmeter_events}
            case _:
                return {event["transaction_id"] for event in self.lago_events.values()}

    # Stripe

    def once(self, key: str, body: str, make: Callable[[], Response]) -> Response:
        """An idempotency key of the last 24 hours gives the answer that it gave, a refusal too."""
        known = self._answers.get(key)
        if known is not None and self.now() - known[0] < _DAY:
            if known[1] != body:
                return _stripe_error(
                    400, "idempotency_error", "Keys for idempotent requests can only be used with the same parameters"
                )
            return known[2]
        made = make()
        self._answers[key] = (self.now(), body, made)
        return made

    def add_item(self) -> Response:
        form = request.form
        if form["customer"] in self.unknown_customers:
            return _no_such_customer(form["customer"])
        if form["customer"] in self.blocked_customers:
            return _stripe_error(400, "invalid_request_error", "This customer takes no invoice items")
        item = {
            "id": f"ii_{len(self.items) + 1}",
            "object": "invoiceitem",
            "created": int(self.now().timestamp()),
            "customer": form["customer"],
            "amount": form["amount"],
            "currency": form["currency"],
            "description": form["description"],
            "period": {"start": int(form["period[start]"]), "end": int(form["period[end]"])},
            "metadata": {"widget_charge": form["metadata[widget_charge]"]},
        }
        self.items.append(item)
        return _json(item)

    def add_meter_event(self) -> Response | None:
        form = request.form
        identifier, at = form["identifier"], datetime.fromtimestamp(int(form["timestamp"]), UTC)
        customer = form["payload[stripe_customer_id]"]
        if customer in self.blocked_customers:
            return _stripe_error(400, "invalid_request_error", "The meter is archived")
        if at < self.now() - _METER_LOOKS_BACK:
            return _stripe_error(400, "invalid_request_error", "The timestamp is more than 35 days in the past")
        known = self._identifiers.get(identifier)
        if known is not None and self.now() - known < _DAY:
            return _stripe_error(400, "invalid_request_error", f"An event already exists with identifier {identifier}.")
        if not form["payload[value]"].lstrip("-").isdecimal():
            return _stripe_error(400, "invalid_request_error", "value must be a whole number")
        self._identifiers[identifier] = self.now()
        # Checked later: a customer that it does not know is counted nowhere, and the answer is 200 all the same.
        if customer not in self.unknown_customers:
            self.meter_events.append(
                {"customer": customer, "value": int(form["payload[value]"]), "at": at, "taken": self.now()}
            )
        return None

    # The others

    def add_lago_batch(self, events: list[dict[str, Any]]) -> dict[str, Any]:
        errors: dict[str, Any] = {}
        names = [(event["external_subscription_id"], event["transaction_id"]) for event in events]
        for place, (subscription, _) in enumerate(names):
            if subscription in self.unknown_customers | self.blocked_customers:
                errors[str(place)] = {"external_subscription_id": ["subscription_not_found"]}
            elif names[place] in self.lago_events:
                errors[str(place)] = {"transaction_id": ["value_already_exist"]}
        if not errors:
            for name, event in zip(names, events, strict=True):
                at = (str(event["timestamp"]),) if self.lago_on_clickhouse else ()
                self.lago_events[(*name, *at)] = event | {"taken": self.now()}
        return errors

    def add_openmeter(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            name = (event["source"], event["id"])
            known = self._names.get(name)
            if known is None or self.now() - known > _OPENMETER_REMEMBERS:
                self._names[name] = self.now()
                self.openmeter_events.append(event | {"taken": self.now()})


def _json(body: object, status: int = 200) -> Response:
    return Response(json.dumps(body, default=str), status, content_type="application/json")


def _stripe_error(status: int, kind: str, message: str) -> Response:
    return _json({"error": {"type": kind, "message": message}}, status)


def _no_such_customer(customer: str) -> Response:
    error = {"type": "invalid_request_error", "code": "resource_missing", "message": f"No such customer: '{customer}'"}
    return _json({"error": error}, 400)


def _app(systems: Systems) -> Flask:
    app = Flask(__name__)

    @app.before_request
    def _check_key() -> Response | None:
        systems.requests += 1
        sent = request.headers.get("Authorization", "")
        return (
            None if sent.removeprefix("Bearer ") == systems.key else _json({"error": {"message": "no such key"}}, 401)
        )

    @app.post("/v1/invoiceitems")
    def _item() -> Response:
        systems.trouble("before")
        with systems.lock:
            answer = systems.once(
                request.headers["Idempotency-Key"], str(sorted(request.form.items())), systems.add_item
            )
        systems.trouble("after")
        return answer

    @app.get("/v1/invoiceitems")
    def _items() -> Response:
        if request.args["customer"] in systems.unknown_customers:
            return _no_such_customer(request.args["customer"])
        since = int(request.args["created[gte]"])
        found = [
            item for item in systems.items if item["customer"] == request.args["customer"] and item["created"] >= since
        ]
        after = request.args.get("starting_after")
        if after:
            found = found[[item["id"] for item in found].index(after) + 1 :]
        most = int(request.args["limit"])
        return _json({"object": "list", "url": "/v1/invoiceitems", "data": found[:most], "has_more": len(found) > most})

    @app.post("/v1/billing/meter_events")
    def _meter_event() -> Response:
        systems.trouble("before")
        with systems.lock:
            refused = systems.add_meter_event()
        systems.trouble("after")
        return refused or _json({"object": "billing.meter_event", "identifier": request.form["identifier"]})

    @app.get("/v1/billing/meters")
    def _meters() -> Response:
        meter = {"id": METER_ID, "object": "billing.meter", "event_name": "widget_seconds"}
        return _json({"object": "list", "url": "/v1/billing/meters", "data": [meter], "has_more": False})

    @app.get(f"/v1/billing/meters/{METER_ID}/event_summaries")
    def _summaries() -> Response:
        start, end = (datetime.fromtimestamp(int(request.args[name]), UTC) for name in ("start_time", "end_time"))
        seen = [
            event["value"]
            for event in systems.meter_events
            if event["customer"] == request.args["customer"]
            and start <= event["at"] < end
            and systems.now() - event["taken"] >= systems.lag
        ]
        summary = {"id": "mtrsum_1", "object": "billing.meter_event_summary", "aggregated_value": sum(seen)}
        url = f"/v1/billing/meters/{METER_ID}/event_summaries"
        return _json({"object": "list", "url": url, "data": [summary] if seen else [], "has_more": False})

    @app.post("/api/v1/events/batch")
    def _lago() -> Response:
        events = json.loads(request.data)["events"]
        if len(events) > _BATCH:
            return _json({"status": 422, "error": "Unprocessable Entity", "error_details": "too_many_events"}, 422)
        systems.trouble("before")
        with systems.lock:
            errors = systems.add_lago_batch(events)
        systems.trouble("after")
        if errors:
            # Of a batch of one it names no place.
            errors = errors["0"] if len(events) == 1 else errors
            return _json({"status": 422, "error": "Unprocessable Entity", "error_details": errors}, 422)
        return _json({"events": events})

    @app.get("/api/v1/events/<name>")
    def _lago_event(name: str) -> Response:
        found = [
            {key: value for key, value in event.items() if key != "taken"}
            for event in systems.lago_events.values()
            if event["transaction_id"] == name
            and (not systems.lago_on_clickhouse or systems.now() - event["taken"] >= systems.lag)
        ]
        return _json({"event": found[0]}) if found else _json({"status": 404, "error": "Not Found"}, 404)

    @app.post("/api/v1/events")
    def _openmeter() -> Response:
        events = json.loads(request.data)
        systems.trouble("before")
        with systems.lock:
            if any(event["subject"] in systems.unknown_customers | systems.blocked_customers for event in events):
                return _json({"type": "about:blank", "title": "Bad Request", "status": 400}, 400)
            systems.add_openmeter(events)
        systems.trouble("after")
        return Response(status=204)

    @app.get("/api/v1/events")
    def _openmeter_events() -> Response:
        since = datetime.fromisoformat(request.args["from"].replace("Z", "+00:00"))
        found = [
            {
                "event": {k: v for k, v in event.items() if k != "taken"},
                "ingestedAt": event["taken"].isoformat(),
                "storedAt": event["taken"].isoformat(),
            }
            for event in systems.openmeter_events
            if request.args["id"] in event["id"]
            and datetime.fromisoformat(event["time"]) >= since
            and systems.now() - event["taken"] >= systems.lag
        ]
        return _json(found)

    return app


class Hangup(HTTPException):
    """The connection ends without an answer."""

    def get_response(self, *_: object, **__: object) -> Response:
        request.environ["werkzeug.socket"].close()
        return Response(status=500)


def asks_to_wait() -> HTTPException:
    """429, as all three give it."""
    headers = {"Retry-After": "0", "X-RateLimit-Reset": "0", "Content-Type": "application/json"}
    return HTTPException(response=Response(json.dumps({"error": {"message": "rate limit"}}), 429, headers=headers))


@contextmanager
def billing_systems(key: str = KEY) -> Iterator[Systems]:
    """Serve an account at each of the three, which one key opens."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    systems = Systems(key=key)
    server = make_server("127.0.0.1", 0, _app(systems), threaded=True)
    systems.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield systems
    finally:
        server.shutdown()
        thread.join()
