"""Records the requests that the built tracker sends, for the bench to send them again. `scripts/record-requests`."""

import json
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

from benchmarks.loads import PAGE_URL
from benchmarks.measure import execute
from local_stack.browsers import launch
from local_stack.demo_site import DemoSite
from local_stack.processes import await_condition
from local_stack.stack import Stack
from local_stack.unreliable_proxy import UnreliableProxy

RECORDED = Path(__file__).with_name("tracker_requests.json")
HEARTBEAT_SECONDS = 4
Event = dict[str, Any]
NAMES = {
    ("widget_load",): "load",
    ("widget_open",): "open",
    ("call_start", "call_heartbeat"): "start with heartbeat",
    ("call_heartbeat",): "heartbeat",
    ("call_end",): "end",
}


def record() -> dict[str, list[Event]]:
    """What a visitor's tracker sends who opens the widget, calls, and makes another call while offline."""
    with Stack(durable=False, jobs=False) as stack, UnreliableProxy(stack.api_url) as proxy:
        [(widget_id,)] = execute(stack, "insert into widgets (allowed_domains) values ('{*}') returning id")
        options = {"widget_id": widget_id, "heartbeat_seconds": HEARTBEAT_SECONDS}

        def wait_for(*types: str) -> None:
            _await(f"a request of {', '.join(types)}", lambda: types in _sent(proxy))

        with DemoSite(url=proxy.url, key=stack.publishable_key, **options) as site, launch("chromium") as browser:
            visitor = browser.new_visitor()
            tab = visitor.new_tab()
            tab.goto(site.address())
            wait_for("widget_load")
            tab.evaluate("() => widgetUsage.open()")
            wait_for("widget_open")
            tab.evaluate("() => { window.call = widgetUsage.callStart(); }")
            wait_for("call_start", "call_heartbeat")
            wait_for("call_heartbeat")
            tab.evaluate("() => window.call.end()")
            wait_for("call_end")
            visitor.set_offline(True)
            tab.evaluate("() => { window.call = widgetUsage.callStart(); }")
            sleep(HEARTBEAT_SECONDS / 4)  # a call lasts: there is nothing else to wait for while nothing is sent
            tab.evaluate("() => window.call.end()")
            visitor.set_offline(False)
            _await("a return", lambda: any(map(_is_whole_call, _sent(proxy))))
            requests = [_plain(request.events()) for request in proxy.seen if request.method == "POST"]
    recorded = {NAMES[types]: events for events in requests if (types := _types(events)) in NAMES}
    (back,) = [events for events in requests if _is_whole_call(_types(events))]
    return {name: recorded[name] for name in NAMES.values()} | {"return of an offline visitor": back}


def _await(what: str, condition: Callable[[], bool]) -> None:
    await_condition(what, condition, seconds=60, explain=str)


def _sent(proxy: UnreliableProxy) -> list[tuple[str, ...]]:
    return [_types(request.events()) for request in proxy.seen if request.method == "POST"]


def _types(events: list[Event]) -> tuple[str, ...]:
    return tuple(event["event_type"] for event in events)


def _is_whole_call(types: tuple[str, ...]) -> bool:
    return (types[0], types[-1]) == ("call_start", "call_end")


def _plain(events: list[Event]) -> list[Event]:
    """Without what each sending makes anew: ids, and the address of the page."""
    made_anew = ("widget_id", "session_id", "event_id")
    changed = {"call_id": "CALL", "page_url": PAGE_URL}
    return [
        {name: changed.get(name, value) for name, value in event.items() if name not in made_anew} for event in events
    ]


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(record(), indent=1) + "\n")
    print(f"wrote {RECORDED.name}")
