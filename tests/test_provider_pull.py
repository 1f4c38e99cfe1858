"""`widget-analytics providers pull` against servers that keep the providers' documented contracts."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import reduce
from operator import getitem
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from local_stack.stack import Stack
from local_stack.unreliable_proxy import Answer, UnreliableProxy, answering
from tests.client_support import environment, run
from tests.conftest import NewWidget
from tests.provider_calls import bill, browser_tells, records_of, told_call
from tests.provider_lists import KEYS, OPEN, TELEPHONE, provider_api
from tests.provider_payloads import (
    BODIES,
    SECRETS,
    WHOLE_SECONDS,
    Told,
    deliver,
    elevenlabs_conversation,
    retell_call,
    ultravox_call,
    vapi_call,
)
from tests.support import Connection
from widget_analytics._providers import elevenlabs, retell, ultravox, vapi
from widget_analytics._providers.records import ProviderRecord, Skipped

EVERY_LIST = pytest.mark.parametrize("name", sorted(KEYS))
CALLS = 7


@pytest.fixture
def api(stack: Stack) -> Iterator[UnreliableProxy]:
    """Where the provider's API answers; a test says as which."""
    with UnreliableProxy(stack.api_url) as api:
        yield api


def told_calls(count: int = CALLS) -> list[Told]:
    """Two in each minute, with ids of their own."""
    first = told_call()
    return [
        replace(
            told_call(),
            started_at=first.started_at - timedelta(minutes=number // 2),
            ended_at=first.ended_at - timedelta(minutes=number // 2),
        )
        for number in range(count)
    ]


def counts(new: int = 0, changed: int = 0, known: int = 0, refused: int = 0) -> str:
    return f"{new} new, {changed} changed, {known} known, {refused} refused"


def pull(stack: Stack, api: UnreliableProxy, folder: Path, name: str, *more: str) -> CompletedProcess[str]:
    env = environment(stack, **KEYS.get(name, {}), **{f"{name.upper()}_API_URL": api.url})
    since = (told_call().started_at - timedelta(hours=1)).isoformat()
    return run(env, folder, "providers", "pull", name, "--since", since, *more)


@EVERY_LIST
def test_what_no_webhook_brought_is_recorded_once(
    stack: Stack, db: Connection, new_widget: NewWidget, api: UnreliableProxy, tmp_path: Path, name: str
) -> None:
    """All pages are read; telephone calls and those not over are left; run again, everything is known."""
    widget_id, calls = new_widget(), told_calls()
    others = [replace(calls[2], call_id=TELEPHONE), replace(calls[4], call_id=OPEN)]
    old = replace(
        told_call(),
        started_at=calls[0].started_at - timedelta(days=3),
        ended_at=calls[0].ended_at - timedelta(days=3),
    )
    for number, told in enumerate(calls):
        browser_tells(db, widget_id, told, f"s{number}")

    with api.fault(provider_api(name, [*calls, *others, old], api_url=api.url)):
        first = pull(stack, api, tmp_path, name)
        second = pull(stack, api, tmp_path, name)

    assert first.returncode == 0, first.stderr
    assert counts(new=CALLS) in first.stderr
    assert counts(known=CALLS) in second.stderr
    assert "1 not over yet" in first.stderr
    assert records_of(db, old) == []
    billed = bill(db, widget_id)
    assert [(row["evidence"], round(row["billable_seconds"])) for row in billed] == [("provider", 120)] * CALLS


@EVERY_LIST
def test_the_list_says_what_the_webhook_said(
    stack: Stack, db: Connection, api: UnreliableProxy, tmp_path: Path, name: str
) -> None:
    """The pull of a call that a webhook brought contradicts nothing, and adds what only the list knows.

    Daily's list cuts the fractions of both start and duration off: two seconds in all.
    """
    with stack.function("providers", {f"{name.upper()}_WEBHOOK_SECRET": SECRETS[name]}) as url:
        told = told_call(session_id="a session") if name == "daily" else told_call()
        if name == "daily":
            started_at = told.started_at.replace(microsecond=900_000)
            told = replace(told, started_at=started_at, ended_at=started_at + timedelta(seconds=120.9))
        deliver(url, name, BODIES[name](told), address=f"{stack.api_url}/functions/v1/providers")
    (brought,) = records_of(db, told)

    with api.fault(provider_api(name, [told], api_url=api.url)):
        done = pull(stack, api, tmp_path, name)

    assert (counts(changed=1) if name == "twilio" else counts(known=1)) in done.stderr
    (kept,) = records_of(db, told)
    assert not kept["is_contradictory"]
    assert abs((kept["ended_at"] - told.ended_at).total_seconds()) <= (1 if name in WHOLE_SECONDS else 0.001)
    assert (kept["cost"] is None) == (name in ("daily", "ultravox"))
    ours = ("agent", "outcome", "said_widget_id", "said_session_id", "said_call_id")
    assert [kept[column] for column in ours] == [brought[column] for column in ours]
    assert kept["record_id"] == brought["record_id"]


@pytest.mark.parametrize("name", ["retell", "vapi"])
def test_limits_and_failures_that_pass_are_waited_for(
    stack: Stack, db: Connection, api: UnreliableProxy, tmp_path: Path, name: str
) -> None:
    """Too many requests, a server that is not well, a connection that breaks: the list is whole all the same."""
    calls = told_calls(4)
    answer = provider_api(name, calls, api_url=api.url)
    api.next_faults = [
        answering(429, retry_after="0"),
        answering(503),
        lambda _: None,
        answer,
        answering(429, retry_after="1"),
    ]

    with api.fault(answer):
        done = pull(stack, api, tmp_path, name)

    assert done.returncode == 0, done.stderr
    assert counts(new=4) in done.stderr


def test_a_pull_that_broke_off_is_completed_by_the_next(
    stack: Stack, db: Connection, api: UnreliableProxy, tmp_path: Path
) -> None:
    """What was read until then is kept; the error is one line, and the exit code says that the API is not reachable."""
    calls = told_calls()
    answer = provider_api("vapi", calls)
    api.next_faults = [answer]

    with api.fault(lambda _: Answer(200, "<html>maintenance</html>")):
        broken = pull(stack, api, tmp_path, "vapi")
    with api.fault(answer):
        whole = pull(stack, api, tmp_path, "vapi")

    assert (broken.returncode, broken.stderr.count("\n")) == (4, 1)
    assert counts(new=4, known=3) in whole.stderr


def test_a_long_wait_is_an_error_at_once(stack: Stack, api: UnreliableProxy, tmp_path: Path) -> None:
    """Told to come back in an hour, the command says so instead of sleeping."""
    with api.fault(answering(429, retry_after="3600")):
        done = pull(stack, api, tmp_path, "retell")

    assert (done.returncode, len(api.seen)) == (6, 1)


def test_a_wrong_key_is_told_and_not_shown(stack: Stack, api: UnreliableProxy, tmp_path: Path) -> None:
    """The setting is named, the key is not; without one nothing is asked."""
    env = environment(stack, RETELL_API_KEY="wrong-key", RETELL_API_URL=api.url)
    asked = ("providers", "pull", "retell", "--since", "2026-11-01")
    with api.fault(provider_api("retell", [])):
        wrong = run(env, tmp_path, *asked)
        seen = len(api.seen)
        missing = run(env | {"RETELL_API_KEY": ""}, tmp_path, *asked)

    assert (wrong.returncode, missing.returncode) == (3, 3)
    assert "RETELL_API_KEY" in wrong.stderr
    assert "RETELL_API_KEY" in missing.stderr
    assert "wrong-key" not in wrong.stdout + wrong.stderr
    assert (seen, len(api.seen)) == (1, 1)


def test_a_page_on_another_host_gets_no_key(stack: Stack, api: UnreliableProxy, tmp_path: Path) -> None:
    """The address of the next page comes from the answer; the key stays with the host that it was made for."""
    with UnreliableProxy(stack.api_url) as stranger:
        with api.fault(provider_api("ultravox", told_calls(), api_url=stranger.url)):
            done = pull(stack, api, tmp_path, "ultravox")

        assert done.returncode == 4
        assert stranger.seen == []


def test_one_record_that_is_refused_costs_no_other(
    stack: Stack, db: Connection, api: UnreliableProxy, tmp_path: Path
) -> None:
    """A call that ends before it starts is named and counted."""
    calls = told_calls(3)
    backwards = replace(calls[1], ended_at=calls[1].started_at - timedelta(minutes=1))
    with api.fault(provider_api("ultravox", [calls[0], backwards, calls[2]])):
        done = pull(stack, api, tmp_path, "ultravox")

    assert done.returncode == 0
    assert counts(new=2, refused=1) in done.stderr
    assert f"{backwards.call_id}: refused: ended_at" in done.stderr


JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    Decimal("1e300"),
    Decimal("NaN"),
    "",
    "x",
    "9" * 400,
    "0001-01-01T00:00:00+14:00",
    "\ud83d\0",
    [],
    {},
)


def leaves(value: Any, *path: str) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], *path, key)
    else:
        yield path


@pytest.mark.parametrize(
    ("read", "listed"),
    [
        (elevenlabs.record, elevenlabs_conversation),
        (retell.record, retell_call),
        (ultravox.record, ultravox_call),
        (vapi.record, vapi_call),
    ],
)
def test_junk_in_any_field_stops_no_pull(
    read: Callable[[object], ProviderRecord | Skipped], listed: Callable[[Told], dict[str, Any]]
) -> None:
    """Each is a record that can be sent as JSON, or none."""
    told = told_call(widget_id="w", session_id="s")
    for path in leaves(listed(told)):
        for junk in JUNK:
            call = listed(told)
            reduce(getitem, path[:-1], call)[path[-1]] = junk

            record = read(call)

            assert isinstance(record, Skipped) or json.dumps(record.arguments()).encode()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("livekit", "--since", "2026-11-01"), "livekit has no list to pull: a LiveKit server keeps no list"),
        (("bland", "--since", "2026-11-01"), "name one of daily, elevenlabs, retell, twilio, ultravox, vapi"),
        (("vapi", "--since", "yesterday"), "--since: 'yesterday' is not a date"),
        (("vapi", "--since", "2026-11-02", "--until", "2026-11-01"), "--until must be after --since"),
    ],
)
def test_what_cannot_be_pulled_is_told(stack: Stack, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    """LiveKit has no list; the others want a provider and a period that make sense."""
    done = run(environment(stack), tmp_path, "providers", "pull", *arguments)

    assert done.returncode == 2
    assert told in " ".join(done.stderr.split())
