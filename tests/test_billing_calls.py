"""What a call costs: the seed's wrong bills put right, plans, evidence, corrections, and bills as of the past."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from local_stack.stack import Stack
from tests.conftest import Connect, NewOwner, NewWidget
from tests.support import Connection, Row, differences, record

NOON = datetime(2024, 5, 10, 12, tzinfo=UTC)
MAY = (datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC))

SEED_QUERY = """
    SELECT EXTRACT(EPOCH FROM (
        MAX(CASE WHEN event_type = 'call_end' THEN timestamp END) -
        MIN(CASE WHEN event_type = 'call_start' THEN timestamp END)
      )) as duration_seconds
    FROM widget_analytics
    WHERE event_type IN ('call_start', 'call_end') AND widget_id = %s
    GROUP BY widget_id, session_id
"""


def after(**past: float) -> datetime:
    return NOON + timedelta(**past)


def bill(db: Connection, widget_id: UUID, as_of: datetime | None = None) -> list[Row]:
    return db.execute(
        "select * from public.widget_billing_calls(%s, %s, %s) where widget_id = %s"
        " order by started_at, call_id, session_id",
        [*MAY, as_of, widget_id],
    ).fetchall()


def usage(db: Connection, widget_id: UUID, as_of: datetime | None = None) -> Row:
    row = db.execute(
        "select * from public.widget_billing_usage(%s, %s, %s) where widget_id = %s", [*MAY, as_of, widget_id]
    ).fetchone()
    assert row is not None
    return row


def add_plan(db: Connection, widget_id: UUID, **terms: Any) -> None:
    plan = {"valid_from": "2024-05-01", "name": "Pro", "price_per_minute": Decimal("0.10"), "currency": "EUR"} | terms
    db.execute(
        f"insert into public.widget_plans (widget_id, {', '.join(plan)}) values (%s{', %s' * len(plan)})",
        [widget_id, *plan.values()],
    )


def call(db: Connection, widget_id: UUID, seconds: float, session: str = "s", **end: Any) -> None:
    record(db, widget_id, session, "call_start", NOON, call_id="c")
    record(db, widget_id, session, end.pop("event_type", "call_end"), after(seconds=seconds), call_id="c", **end)


def test_the_seed_bills_two_calls_and_the_pause_between_them(db: Connection, new_widget: NewWidget) -> None:
    """Two 2-minute calls 20 minutes apart are 240 s; the seed's query makes 1,320 of them."""
    widget_id = new_widget()

    for minutes, event_type in ((0, "call_start"), (2, "call_end"), (20, "call_start"), (22, "call_end")):
        record(db, widget_id, "s", event_type, after(minutes=minutes))

    assert usage(db, widget_id)["billable_seconds"] == 240
    assert db.execute(SEED_QUERY, [widget_id]).fetchall() == [{"duration_seconds": 1320}]


def test_the_seed_bills_the_inferred_end_for_ever(db: Connection, new_widget: NewWidget) -> None:
    """A 5-minute call whose real end comes after the inferred one is 300 s; the seed's query stays at 1,800."""
    widget_id = new_widget()

    record(db, widget_id, "s", "call_start", NOON)
    record(db, widget_id, "s", "call_end", after(minutes=30), source="inferred")
    record(db, widget_id, "s", "call_end", after(minutes=5))

    assert usage(db, widget_id)["billable_seconds"] == 300
    assert db.execute(SEED_QUERY, [widget_id]).fetchall() == [{"duration_seconds": 1800}]


def test_the_seed_has_nothing_for_a_failed_call(db: Connection, new_widget: NewWidget) -> None:
    """A failed call stands on the bill with its duration and 0 s, and costs what the plan says; the seed has null."""
    widget_id = new_widget()
    call(db, widget_id, 90, event_type="call_error")

    without_plan = bill(db, widget_id)
    add_plan(db, widget_id, bills_failed_calls=True)
    with_plan = bill(db, widget_id)

    assert [(c["outcome"], c["duration_seconds"], c["billable_seconds"]) for c in without_plan] == [("failed", 90, 0)]
    assert without_plan[0]["rule"] == "failed calls are not billed"
    assert [(c["billable_seconds"], c["amount"]) for c in with_plan] == [(90, Decimal("0.15"))]
    assert db.execute(SEED_QUERY, [widget_id]).fetchall() == [{"duration_seconds": None}]


@pytest.mark.parametrize(
    ("terms", "seconds", "billable", "rule"),
    [
        ({}, 61.25, "61.25", "exact duration"),
        ({"increment_seconds": 6}, 61.25, "66", "in steps of 6 s"),
        ({"increment_seconds": 6}, 60, "60", "in steps of 6 s"),
        ({"increment_seconds": 60}, 60.000001, "120", "in steps of 60 s"),
        ({"increment_seconds": 7}, 14399.999999, "14399.999999", None),
        ({"minimum_seconds": 30}, 10, "30", "at least 30 s"),
        ({"minimum_seconds": 20, "increment_seconds": 60}, 0, "60", "at least 20 s, in steps of 60 s"),
        ({"minimum_seconds": 30}, 31.5, "31.5", "at least 30 s"),
    ],
)
def test_minimum_and_increment(
    db: Connection, new_widget: NewWidget, terms: Row, seconds: float, billable: str, rule: str | None
) -> None:
    """A call counts at least the minimum, and is then rounded up to a multiple of the increment."""
    widget_id = new_widget()
    add_plan(db, widget_id, **terms)
    call(db, widget_id, seconds)

    (row,) = bill(db, widget_id)

    if rule is None:  # 14,399.999999 is no multiple of 7
        assert row["billable_seconds"] == 14399 + 7 - 14399 % 7
    else:
        assert row["billable_seconds"] == Decimal(billable)
        assert row["rule"] == f'{rule} (plan "Pro" from 2024-05)'


@pytest.mark.parametrize(("assumed_calls", "billable"), [("full", 1800), ("none", 0)])
def test_calls_with_an_assumed_end(db: Connection, new_widget: NewWidget, assumed_calls: str, billable: int) -> None:
    """Whether a call of which nothing tells the end is billed, its plan says; a heartbeat is no assumption."""
    widget_id = new_widget()
    add_plan(db, widget_id, assumed_calls=assumed_calls)
    call(db, widget_id, 1800, source="inferred")
    call(db, widget_id, 1800, session="alive", source="inferred")
    record(db, widget_id, "alive", "call_heartbeat", after(seconds=50), call_id="c")

    assert {c["evidence"]: c["billable_seconds"] for c in bill(db, widget_id)} == {"assumed": billable, "heartbeat": 50}


@pytest.mark.parametrize(
    ("currency", "amount"), [("EUR", "0.36"), ("JPY", "0"), ("KWD", "0.364"), ("CLF", "0.3640"), ("USD", "0.36")]
)
def test_included_seconds_and_the_one_rounding(
    db: Connection, new_widget: NewWidget, currency: str, amount: str
) -> None:
    """Included seconds come off the month's sum, once; then money is rounded to the currency's decimals."""
    widget_id = new_widget()
    add_plan(db, widget_id, included_seconds=60, currency=currency)
    call(db, widget_id, 245.4)
    call(db, widget_id, 33, session="t")

    row = usage(db, widget_id)

    assert (row["billable_seconds"], row["charged_seconds"]) == (Decimal("278.4"), Decimal("218.4"))
    assert str(row["amount"]) == amount
    assert row["currency"] == currency
    assert [c["amount"] for c in bill(db, widget_id)] == [Decimal("0.409"), Decimal("0.055")]


def test_half_a_cent_is_rounded_up(db: Connection, new_widget: NewWidget) -> None:
    """0.005 is 0.01."""
    widget_id = new_widget()
    add_plan(db, widget_id)
    call(db, widget_id, 3)

    assert usage(db, widget_id)["amount"] == Decimal("0.01")


def test_plans_hold_from_month_to_month(db: Connection, new_widget: NewWidget) -> None:
    """A plan holds until the widget's next one; each month has its own included seconds."""
    widget_id = new_widget()
    add_plan(db, widget_id, valid_from="2024-04-01", name="Old", included_seconds=30)
    add_plan(db, widget_id, valid_from="2024-06-01", name="New", increment_seconds=60)
    for month in (3, 4, 5, 6):
        at = datetime(2024, month, 10, tzinfo=UTC)
        record(db, widget_id, f"m{month}", "call_start", at)
        record(db, widget_id, f"m{month}", "call_end", at + timedelta(seconds=90))

    rows = db.execute(
        "select rule, amount from public.widget_billing_calls('2024-03-01', '2024-07-01') where widget_id = %s"
        " order by started_at",
        [widget_id],
    ).fetchall()
    two_months = db.execute(
        "select charged_seconds, amount, currency from public.widget_billing_usage('2024-04-01', '2024-06-01')"
        " where widget_id = %s",
        [widget_id],
    ).fetchall()

    assert [row["rule"] for row in rows] == [
        "exact duration",
        'exact duration (plan "Old" from 2024-04)',
        'exact duration (plan "Old" from 2024-04)',
        'in steps of 60 s (plan "New" from 2024-06)',
    ]
    assert [row["amount"] for row in rows] == [None, Decimal("0.15"), Decimal("0.15"), Decimal("0.2")]
    assert two_months == [{"charged_seconds": 120, "amount": Decimal("0.20"), "currency": "EUR"}]


def test_two_currencies_have_no_sum(db: Connection, new_widget: NewWidget) -> None:
    """Over months in two currencies, or one without a plan, usage has no amount."""
    widget_id = new_widget()
    add_plan(db, widget_id, valid_from="2024-05-01")
    add_plan(db, widget_id, valid_from="2024-06-01", currency="USD")
    for month in (4, 5, 6):
        at = datetime(2024, month, 10, tzinfo=UTC)
        record(db, widget_id, f"m{month}", "call_start", at)
        record(db, widget_id, f"m{month}", "call_end", at + timedelta(seconds=90))

    for start, end in (("2024-04-01", "2024-06-01"), ("2024-05-01", "2024-07-01")):
        row = db.execute(
            "select amount, currency from public.widget_billing_usage(%s, %s) where widget_id = %s",
            [start, end, widget_id],
        ).fetchone()
        assert row == {"amount": None, "currency": None}


@pytest.mark.parametrize(
    ("terms", "constraint"),
    [
        ({"valid_from": "2024-05-02"}, "plans_start_with_a_month"),
        ({"price_per_minute": Decimal("NaN")}, "price_is_a_number_of_zero_or_more"),
        ({"currency": "eur"}, "currency_has_three_letters"),
        ({"assumed_calls": "half"}, "assumed_calls_are_full_none_or_seconds"),
        ({"increment_seconds": -1}, "increment_is_not_negative"),
    ],
)
def test_plans_that_cannot_be(db: Connection, new_widget: NewWidget, terms: Row, constraint: str) -> None:
    """What a plan may not say, a named constraint refuses."""
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        add_plan(db, new_widget(), **terms)
    assert refused.value.diag.constraint_name == constraint


def test_as_of_now_is_the_fast_path(db: Connection, new_widget: NewWidget) -> None:
    """`as_of => now()` gives the same rows as no as_of, also for what the asking transaction itself has added."""
    widget_id = new_widget()
    add_plan(db, widget_id, minimum_seconds=30)
    with db.transaction():
        for session in range(20):
            record(db, widget_id, f"s{session}", "call_start", after(minutes=session), call_id="c")
            record(db, widget_id, f"s{session}", "call_end", after(minutes=2 * session), call_id="c")
            record(db, widget_id, f"s{session}", "call_start", after(minutes=session + 1))
        db.execute("select public.correct_widget_call(%s, 's3', 'c', 5, 'tried', 'bob')", [widget_id])
        inside = (bill(db, widget_id), bill(db, widget_id, db.execute("select now() as t").fetchone()["t"]))  # type: ignore[index]

    fast, computed = bill(db, widget_id), bill(db, widget_id, datetime.now(UTC))

    assert inside[0] == inside[1]
    assert fast == computed
    assert len(fast) == 40
    assert usage(db, widget_id) == usage(db, widget_id, datetime.now(UTC))


def test_as_of_counts_what_was_received_by_then(db: Connection, new_widget: NewWidget) -> None:
    """Each past moment's bill can be made again: open, assumed, observed, corrected."""
    widget_id = new_widget()
    received = [NOON + timedelta(hours=hours) for hours in (1, 2, 3, 4)]
    record(db, widget_id, "s", "call_start", NOON, call_id="c", received_at=received[0])
    record(db, widget_id, "s", "call_end", after(minutes=30), call_id="c", source="inferred", received_at=received[1])
    record(db, widget_id, "s", "call_end", after(minutes=5), call_id="c", received_at=received[2])
    for event_type, at in (("call_start", NOON), ("call_end", after(minutes=1))):
        record(
            db, widget_id, "s", event_type, at, call_id="c", source="operator", received_at=received[3],
            properties={"reason": "agreed", "corrected_by": "bob"},
        )  # fmt: skip

    bills = [bill(db, widget_id, at) for at in [NOON, *received]]

    assert bills[0] == []
    assert [(b[0]["outcome"], b[0]["evidence"], b[0]["billable_seconds"]) for b in bills[1:]] == [
        ("open", None, 0),
        ("completed", "assumed", 1800),
        ("completed", "observed", 300),
        ("completed", "operator", 60),
    ]
    assert bills[3][0]["rule"] == "exact duration"
    assert bills[4][0]["rule"] == "exact duration; set by bob: agreed"


def test_a_cut_off_waits_for_who_writes(stack: Stack, db: Connection, new_widget: NewWidget) -> None:
    """What was received by a cut-off is committed; who began before it and writes after it is received after it."""
    widget_id = new_widget()
    with psycopg.connect(stack.database_url) as early, psycopg.connect(stack.database_url) as late:
        late.execute("select now()")
        early.execute(
            "insert into public.widget_analytics (widget_id, event_type, session_id)"
            " values (%s, 'call_start', 'early')",
            [widget_id],
        )

        with pytest.raises(psycopg.errors.LockNotAvailable, match="writes events"):
            db.execute("select widget_internal.cut_off()")
        early.commit()
        cut_off = db.execute("select widget_internal.cut_off() as t").fetchone()["t"]  # type: ignore[index]
        late.execute(
            "insert into public.widget_analytics (widget_id, event_type, session_id) values (%s, 'call_start', 'late')",
            [widget_id],
        )
        late.commit()

    received = db.execute(
        "select session_id, received_at <= %s as by_then from public.widget_analytics where widget_id = %s order by 1",
        [cut_off, widget_id],
    ).fetchall()
    assert received == [{"session_id": "early", "by_then": True}, {"session_id": "late", "by_then": False}]


def test_a_batch_is_received_at_one_moment(db: Connection, connect: Connect, new_widget: NewWidget) -> None:
    """The ages in a batch count from one receipt, whatever their order; age and timestamp add up to it (R3)."""
    widget_id = new_widget()
    sender = connect("anon", request__headers='{"origin": "https://shop.example"}')
    sender.execute(
        "select public.track_events(jsonb_agg(jsonb_build_object('widget_id', %s::text, 'event_type', 'widget_open',"
        " 'session_id', 's', 'age_ms', i))) from generate_series(1, 200) i",
        [widget_id],
    )

    row = db.execute(
        """
        select count(distinct received_at) as receipts,
          array_agg(distinct received_at - timestamp order by received_at - timestamp) as ages
        from public.widget_analytics where widget_id = %s
        """,
        [widget_id],
    ).fetchone()
    assert row == {"receipts": 1, "ages": [timedelta(milliseconds=i) for i in range(1, 201)]}


def correct(db: Connection, widget_id: UUID, seconds: float, reason: str = "agreed", by: str = "bob") -> Row:
    row = db.execute(
        "select public.correct_widget_call(%s, 's', 'c', %s::numeric, %s, %s) as call", [widget_id, seconds, reason, by]
    ).fetchone()
    assert row is not None
    call: Row = row["call"]
    return call


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


@pytest.mark.parametrize("period", ["2999-01", "soon"])
def test_what_cannot_be_closed_is_a_400(stack: Stack, http: httpx.Client, period: str) -> None:
    """Over REST, a closing that is refused says why."""
    answer = http.post(
        "/rest/v1/rpc/close_widget_billing_period", headers={"apikey": stack.secret_key}, json={"period": period}
    )

    assert answer.status_code == 400
    assert answer.json()["code"] == "22023"
    assert answer.json()["message"].startswith("period: ")


@pytest.mark.parametrize(
    ("zone", "month", "start", "end"),
    [
        ("UTC", "2025-03", "2025-03-01T00:00:00+00:00", "2025-04-01T00:00:00+00:00"),
        ("Europe/Vienna", "2025-03", "2025-02-28T23:00:00+00:00", "2025-03-31T22:00:00+00:00"),
        ("America/New_York", "2025-11-01", "2025-11-01T04:00:00+00:00", "2025-12-01T05:00:00+00:00"),
        ("Asia/Kathmandu", "2025-12", "2025-11-30T18:15:00+00:00", "2025-12-31T18:15:00+00:00"),
    ],
)
def test_months_in_the_billing_time_zone(db: Connection, zone: str, month: str, start: str, end: str) -> None:
    """A month runs from local midnight to local midnight, an hour shorter or longer where the clocks change."""
    with db.transaction(force_rollback=True):
        db.execute("update widget_internal.settings set billing_time_zone = %s", [zone])
        row = db.execute("select * from public.widget_billing_period(%s)", [month]).fetchone()

    assert row is not None
    assert (row["period_start"].isoformat(), row["period_end"].isoformat(), row["time_zone"]) == (start, end, zone)


def test_a_call_belongs_to_the_month_in_which_it_started(db: Connection, new_widget: NewWidget) -> None:
    """Around midnight in the billing time zone, the plan of the month of the call's start holds."""
    widget_id = new_widget()
    add_plan(db, widget_id, valid_from="2024-05-01", name="May")
    record(db, widget_id, "s", "call_start", datetime(2024, 4, 30, 22, 30, tzinfo=UTC))
    record(db, widget_id, "s", "call_end", datetime(2024, 4, 30, 22, 31, tzinfo=UTC))
    query = "select rule from public.widget_billing_calls('2024-04-01', '2024-06-01') where widget_id = %s"

    utc = db.execute(query, [widget_id]).fetchall()
    with db.transaction(force_rollback=True):
        db.execute("update widget_internal.settings set billing_time_zone = 'Europe/Vienna'")
        vienna = db.execute(query, [widget_id]).fetchall()

    assert utc == [{"rule": "exact duration"}]
    assert vienna == [{"rule": 'exact duration (plan "May" from 2024-05)'}]
