"""What a call costs: the document's wrong bills put right, plans, and bills as of the past."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from local_stack.stack import Stack
from tests.billing_support import NOON, add_plan, after, bill, call, usage
from tests.conftest import Connect, NewOwner, NewWidget
from tests.support import Connection, Row, record

SEED_QUERY = """
    SELECT EXTRACT(EPOCH FROM (
        MAX(CASE WHEN event_type = 'call_end' THEN timestamp END) -
        MIN(CASE WHEN event_type = 'call_start' THEN timestamp END)
      )) as duration_seconds
    FROM widget_analytics
    WHERE event_type IN ('call_start', 'call_end') AND widget_id = %s
    GROUP BY widget_id, session_id
"""


def test_the_seed_bills_two_calls_and_the_pause_between_them(db: Connection, new_widget: NewWidget) -> None:
    """Two 2-minute calls 20 minutes apart are 240 s; the document's query makes 1,320 of them."""
    widget_id = new_widget()

    for minutes, event_type in ((0, "call_start"), (2, "call_end"), (20, "call_start"), (22, "call_end")):
        record(db, widget_id, "s", event_type, after(minutes=minutes))

    assert usage(db, widget_id)["billable_seconds"] == 240
    assert db.execute(SEED_QUERY, [widget_id]).fetchall() == [{"duration_seconds": 1320}]


def test_the_seed_bills_the_inferred_end_for_ever(db: Connection, new_widget: NewWidget) -> None:
    """A 5-minute call whose real end comes after the inferred one is 300 s; the document's query stays at 1,800."""
    widget_id = new_widget()

    record(db, widget_id, "s", "call_start", NOON)
    record(db, widget_id, "s", "call_end", after(minutes=30), source="inferred")
    record(db, widget_id, "s", "call_end", after(minutes=5))

    assert usage(db, widget_id)["billable_seconds"] == 300
    assert db.execute(SEED_QUERY, [widget_id]).fetchall() == [{"duration_seconds": 1800}]


def test_the_document_has_nothing_for_a_failed_call(db: Connection, new_widget: NewWidget) -> None:
    """A failed call stands on the bill with its duration and 0 s, at what the plan says; the document has null."""
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


@pytest.mark.parametrize(
    ("terms", "billable", "rule"),
    [
        ({"assumed_calls": "full"}, 1800, "exact duration"),
        ({"assumed_calls": "none", "minimum_seconds": 30}, 0, "assumed ends are not billed"),
        ({"assumed_calls": "300"}, 300, "an assumed end, at most 300 s"),
        ({"assumed_calls": "7200"}, 1800, "an assumed end, at most 7200 s"),
        (
            {"assumed_calls": "10", "minimum_seconds": 30, "increment_seconds": 60},
            60,
            "an assumed end, at most 10 s, at least 30 s, in steps of 60 s",
        ),
    ],
)
def test_calls_with_an_assumed_end(db: Connection, new_widget: NewWidget, terms: Row, billable: int, rule: str) -> None:
    """How much of a call is billed of which nothing tells the end, its plan says; a heartbeat is no assumption."""
    widget_id = new_widget()
    add_plan(db, widget_id, **terms)
    call(db, widget_id, 1800, source="inferred")
    call(db, widget_id, 1800, session="alive", source="inferred")
    record(db, widget_id, "alive", "call_heartbeat", after(seconds=60), call_id="c")

    rows = {row["evidence"]: row for row in bill(db, widget_id)}
    sums = usage(db, widget_id)

    assert rows["assumed"]["billable_seconds"] == sums["assumed_seconds"] == billable
    assert rows["heartbeat"]["billable_seconds"] == 60
    assert rows["assumed"]["rule"] == f'{rule} (plan "Pro" from 2024-05)'


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
        ({"valid_from": "-infinity"}, "plans_start_with_a_month"),
        ({"price_per_minute": Decimal("NaN")}, "price_is_a_number_of_zero_or_more"),
        ({"currency": "eur"}, "currency_has_three_letters"),
        ({"assumed_calls": "half"}, "assumed_calls_are_full_none_or_seconds"),
        ({"assumed_calls": "0"}, "assumed_calls_are_full_none_or_seconds"),
        ({"monthly_fee": Decimal("-1")}, "fee_is_a_number_of_zero_or_more"),
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
    """The ages in a batch count from one receipt, whatever their order; age and timestamp add up to it."""
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


def test_a_bill_of_one_widget_is_its_part_of_all(db: Connection, new_widget: NewWidget) -> None:
    """`only_widget` leaves the others out, kept and as of a moment."""
    widgets = [new_widget(), new_widget()]
    for widget_id in widgets:
        add_plan(db, widget_id, minimum_seconds=30)
        call(db, widget_id, 10)

    for what in ("calls", "usage"):
        for as_of in (None, datetime.now(UTC)):
            query = f"select * from public.widget_billing_{what}('2024-05-01', '2024-06-01', %s, %s)".encode()
            everything = db.execute(query, [as_of, None]).fetchall()
            of_one = db.execute(query, [as_of, widgets[0]]).fetchall()
            assert of_one == [row for row in everything if row["widget_id"] == widgets[0]]
            assert len(of_one) == 1


def test_a_widget_names_its_customer(
    db: Connection, connect: Connect, new_owner: NewOwner, new_widget: NewWidget
) -> None:
    """The company's own number for whom it bills: several widgets may share it, owners see that of theirs."""
    owner_id = new_owner()
    widgets = [new_widget(owner_id), new_widget(owner_id), new_widget()]
    company = connect("service_role")
    for widget_id in widgets:
        company.execute("insert into public.widget_customers values (%s, 'C-1042')", [widget_id])

    seen = connect("authenticated", user_id=owner_id).execute("select * from public.widget_customers").fetchall()

    assert {row["widget_id"] for row in seen} == set(widgets[:2])
    assert {row["reference"] for row in seen} == {"C-1042"}
    with pytest.raises(psycopg.errors.CheckViolation, match="references_are_one_line"):
        company.execute("update public.widget_customers set reference = '' where widget_id = %s", [widgets[0]])
