"""What the company knows better than a browser: corrections by people, records of its server and of the provider."""

from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from local_stack.stack import Stack
from tests.billing_support import NOON, add_plan, after, bill, call, correct
from tests.conftest import NewOwner, NewWidget
from tests.support import Connection, Row, differences, record


def test_the_latest_correction_counts(db: Connection, new_widget: NewWidget) -> None:
    """An operator outranks all others, a later decision an earlier one, shorter or longer; all stay in the ledger."""
    widget_id = new_widget()
    call(db, widget_id, 600, source="provider")

    billed = []
    for seconds in (300, 60, 120.5, 0, 90):
        assert correct(db, widget_id, seconds)["duration_seconds"] == seconds
        billed.append(bill(db, widget_id)[0])
    record(db, widget_id, "s", "call_end", after(seconds=5), call_id="c", source="provider")

    assert [b["billable_seconds"] for b in billed] == [300, 60, Decimal("120.5"), 0, 90]
    assert bill(db, widget_id) == billed[-1:]
    assert {b["evidence"] for b in billed} == {"operator"}
    assert differences(db, widget_id) == []
    events = db.execute(
        "select properties from public.widget_analytics where widget_id = %s and source = 'operator'", [widget_id]
    ).fetchall()
    assert len(events) == 10  # a start and an end each


def test_decisions_of_one_transaction_count_in_their_order(db: Connection, new_widget: NewWidget) -> None:
    """A transaction has one moment of receipt; the later of its decisions counts all the same, and is named."""
    widget_id = new_widget()
    call(db, widget_id, 600)

    with db.transaction():
        correct(db, widget_id, 300, "first", "ann")
        correct(db, widget_id, 60, "second", "bob")

    (row,) = bill(db, widget_id)
    assert (row["billable_seconds"], row["rule"]) == (60, "exact duration; set by bob: second")
    assert differences(db, widget_id) == []


def test_a_void_call_costs_nothing_under_any_plan(db: Connection, new_widget: NewWidget) -> None:
    """Set to 0 s, a call is void, whatever minimum there is, and stays void when an earlier start turns up."""
    widget_id = new_widget()
    add_plan(db, widget_id, minimum_seconds=60)
    call(db, widget_id, 600)

    correct(db, widget_id, 0, reason="test call", by="alice")
    record(db, widget_id, "s", "call_start", after(minutes=-5), call_id="c")

    (row,) = bill(db, widget_id)
    assert (row["outcome"], row["evidence"], row["duration_seconds"], row["billable_seconds"], row["amount"]) == (
        "completed",
        "operator",
        0,
        0,
        0,
    )
    assert row["rule"] == 'void (plan "Pro" from 2024-05); set by alice: test call'


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("s", "c", -1, "why", "who"), "duration_seconds"),
        (("s", "c", 14401, "why", "who"), "duration_seconds"),
        (("s", "c", None, "why", "who"), "duration_seconds"),
        (("s", "c", 10, " ", "who"), "reason"),
        (("s", "c", 10, "why", None), "corrected_by"),
        (("s", "other", 10, "why", "who"), "call_id"),
    ],
)
def test_corrections_that_cannot_be(
    db: Connection, new_widget: NewWidget, arguments: tuple[Any, ...], field: str
) -> None:
    """A correction without a reason, a name, a call or a possible duration is refused by that field's name."""
    widget_id = new_widget()
    call(db, widget_id, 60)

    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"^{field}: "):
        db.execute("select public.correct_widget_call(%s, %s, %s, %s::numeric, %s, %s)", [widget_id, *arguments])


def test_nobody_states_a_duration_in_properties(db: Connection, new_widget: NewWidget) -> None:
    """How long a call was follows from its start and its end; what properties claim counts from no source."""
    widget_id = new_widget()
    for source, stated in (("browser", 1), ("server", 1e300), ("provider", -1e300), ("operator", "x")):
        call(db, widget_id, 60, session=source, source=source, properties={"duration_seconds": stated})

    assert [c["duration_seconds"] for c in bill(db, widget_id)] == [60, 60, 60, 60]


def evidence(stack: Stack, http: httpx.Client, widget_id: UUID, /, **fields: Any) -> httpx.Response:
    record = {"widget_id": str(widget_id), "session_id": "s", "call_id": "c", "source": "provider", "record_id": "r1"}
    return http.post(
        "/rest/v1/rpc/record_widget_call_evidence", headers={"apikey": stack.secret_key}, json=record | fields
    )


def test_the_provider_outranks_the_browser(
    stack: Stack, http: httpx.Client, db: Connection, new_widget: NewWidget
) -> None:
    """A provider's record says when a call began and how long it was. A repeat is a success."""
    widget_id = new_widget()
    call(db, widget_id, 300)
    times = {"started_at": after(seconds=10).isoformat(), "ended_at": after(seconds=250).isoformat()}

    first = evidence(stack, http, widget_id, **times)
    again = evidence(stack, http, widget_id, **times | {"ended_at": after(seconds=260).isoformat()})

    assert (first.status_code, first.json()["accepted"], first.json()["duplicates"]) == (200, 2, 0)
    assert (again.status_code, again.json()["accepted"], again.json()["duplicates"]) == (200, 0, 2)
    (row,) = bill(db, widget_id)
    assert (row["started_at"], row["evidence"], row["duration_seconds"]) == (after(seconds=10), "provider", 240)
    assert first.json()["call"]["duration_seconds"] == 240


def test_a_record_makes_a_call_that_nobody_reported(
    stack: Stack, http: httpx.Client, db: Connection, new_widget: NewWidget
) -> None:
    """An unknown call begins with its record; an end alone waits for its start, in any order."""
    widget_id = new_widget()

    waiting = evidence(stack, http, widget_id, source="server", ended_at=after(seconds=70).isoformat())
    failed = evidence(
        stack, http, widget_id, call_id="d", outcome="failed",
        started_at=after(minutes=1).isoformat(), ended_at=after(minutes=2).isoformat(),
    )  # fmt: skip
    started = evidence(stack, http, widget_id, source="server", started_at=NOON.isoformat())

    assert waiting.json() == {"accepted": 1, "duplicates": 0, "call": None}
    assert failed.json()["call"]["outcome"] == "failed"
    assert started.json()["call"]["duration_seconds"] == 70
    assert [(c["call_id"], c["evidence"], c["billable_seconds"]) for c in bill(db, widget_id)] == [
        ("c", "observed", 70),
        ("d", "provider", 0),
    ]


def test_a_record_in_legs_is_one_call(stack: Stack, http: httpx.Client, db: Connection, new_widget: NewWidget) -> None:
    """A call that was transferred has two records: it lasts from the first start to the last end."""
    widget_id = new_widget()

    for record_id, start, end in (("leg-2", 5, 20), ("leg-1", 0, 5), ("leg-2", 5, 20)):
        times = {"started_at": after(minutes=start).isoformat(), "ended_at": after(minutes=end).isoformat()}
        answer = evidence(stack, http, widget_id, record_id=record_id, **times)

    (row,) = bill(db, widget_id)
    assert answer.json()["accepted"] == 0
    assert (row["started_at"], row["ended_at"], row["billable_seconds"]) == (NOON, after(minutes=20), 1200)


def test_a_servers_later_start_outranks_the_browsers(
    stack: Stack, http: httpx.Client, db: Connection, new_widget: NewWidget
) -> None:
    """A browser says when somebody clicked, a server when somebody answered: what is billed begins there."""
    widget_id = new_widget()
    call(db, widget_id, 300)

    evidence(stack, http, widget_id, source="server", started_at=after(seconds=20).isoformat())

    (row,) = bill(db, widget_id)
    assert (row["started_at"], row["billable_seconds"], row["evidence"]) == (after(seconds=20), 280, "observed")


def test_a_call_of_another_session_is_refused(
    stack: Stack, http: httpx.Client, db: Connection, new_widget: NewWidget
) -> None:
    """A record under a session of its own would bill a call that a browser reported once more."""
    widget_id, other_id = new_widget(), new_widget()
    call(db, widget_id, 300, session="browser-1")
    times = {"started_at": NOON.isoformat(), "ended_at": after(seconds=290).isoformat()}

    refused = evidence(stack, http, widget_id, session_id="twilio", **times)
    taken = evidence(stack, http, widget_id, session_id="browser-1", **times)
    other_widget = evidence(stack, http, other_id, session_id="twilio", **times)

    assert (refused.status_code, refused.json()["code"]) == (400, "22023")
    assert refused.json()["message"] == "session_id: call c is known as one of session browser-1"
    assert taken.json()["accepted"] == other_widget.json()["accepted"] == 2
    assert [(c["session_id"], c["billable_seconds"]) for c in bill(db, widget_id)] == [("browser-1", 290)]


def test_no_sender_keeps_a_record_out(stack: Stack, http: httpx.Client, db: Connection, new_widget: NewWidget) -> None:
    """A browser's event that claims the record's name does not stand in its way."""
    widget_id = new_widget()
    call(db, widget_id, 30, properties={"record_id": "r1"})

    answer = evidence(stack, http, widget_id, started_at=NOON.isoformat(), ended_at=after(seconds=100).isoformat())

    assert answer.json()["accepted"] == 2
    assert bill(db, widget_id)[0]["duration_seconds"] == 100


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"source": "operator", "started_at": NOON.isoformat()}, "source"),
        ({"source": "browser", "started_at": NOON.isoformat()}, "source"),
        ({}, "started_at"),
        ({"started_at": "infinity"}, "started_at"),
        ({"started_at": "0001-01-01T00:00:00Z"}, "started_at"),
        ({"ended_at": "1970-01-01T00:00:00Z"}, "ended_at"),
        ({"ended_at": "2999-01-01T00:00:00Z"}, "ended_at"),
        ({"started_at": NOON.isoformat(), "ended_at": after(seconds=-1).isoformat()}, "ended_at"),
        ({"started_at": NOON.isoformat(), "outcome": "open"}, "outcome"),
        ({"started_at": NOON.isoformat(), "record_id": ""}, "record_id"),
        ({"started_at": NOON.isoformat(), "call_id": ""}, "call_id"),
        ({"started_at": NOON.isoformat(), "session_id": "x" * 256}, "session_id"),
        ({"started_at": NOON.isoformat(), "widget_id": str(UUID(int=1))}, "widget_id"),
    ],
)
def test_records_that_cannot_be(
    stack: Stack, http: httpx.Client, new_widget: NewWidget, fields: Row, field: str
) -> None:
    """A record that makes no sense is refused as 400, by the name of the field."""
    answer = evidence(stack, http, new_widget(), **fields)

    assert answer.status_code == 400
    assert answer.json()["code"] == "22023"
    assert answer.json()["message"].startswith(f"{field}: ")


@pytest.mark.parametrize(
    "function", ["record_widget_call_evidence", "correct_widget_call", "close_widget_billing_period"]
)
def test_who_pays_writes_no_evidence(stack: Stack, http: httpx.Client, new_owner: NewOwner, function: str) -> None:
    """Neither a visitor nor a signed-in owner may add evidence, correct a call or close a month."""
    bodies = {
        "record_widget_call_evidence": {"widget_id": str(UUID(int=1)), "session_id": "s", "call_id": "c",
                                        "source": "server", "record_id": "r"},
        "correct_widget_call": {"widget_id": str(UUID(int=1)), "session_id": "s", "call_id": "c",
                                "duration_seconds": 0, "reason": "x", "corrected_by": "me"},
        "close_widget_billing_period": {"period": "2024-01"},
    }  # fmt: skip
    visitor = {"apikey": stack.publishable_key}

    for headers in (visitor, visitor | {"authorization": f"Bearer {stack.token_for(new_owner())}"}):
        answer = http.post(f"/rest/v1/rpc/{function}", headers=headers, json=bodies[function])
        assert answer.status_code in (401, 403)
        assert answer.json()["code"] == "42501"


@pytest.mark.parametrize("role", ["anon", "authenticated"])
@pytest.mark.parametrize(
    "statement",
    [
        "select public.correct_widget_call(null, 's', 'c', 0, 'why', 'me')",
        "select public.record_widget_call_evidence(null, 's', 'c', 'provider', 'r')",
        "select * from public.close_widget_billing_period('2024-01')",
        "select * from public.broken_widget_statements()",
        "select * from public.widget_months_to_close()",
        "select public.schedule_widget_closing('9 days')",
    ],
)
def test_visitors_are_refused_even_where_grants_came_back(db: Connection, role: str, statement: str) -> None:
    """A restore brings the platform's default grants back: what only the company may do stays closed."""
    with db.transaction(force_rollback=True):
        db.execute("grant execute on all functions in schema public, widget_internal to anon, authenticated")
        db.execute(f"set local role {role}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="only the company itself may do this"):
            db.execute(statement.encode())
