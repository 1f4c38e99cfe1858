"""Amounts of a part of a month: the month to date at its end less the month to date at its start; of a closed month,
what was charged for it."""

import itertools
import json
import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from tests.billing_books import add_plan, call, charges, close, correct, new_widget, noon
from tests.support import Connection, Row, record

pytest_plugins = ["tests.billing_plugin"]

SUMS = ("calls", "billable_seconds", "charged_seconds", "amount", "fees", "pending_seconds", "pending_amount")


@pytest.fixture
def db(books_db: Connection) -> Connection:
    return books_db


def at(year: int, month: int, day: float = 1) -> datetime:
    return datetime(year, month, 1, tzinfo=UTC) + timedelta(days=day - 1)


def usage(db: Connection, widget_id: UUID, start: datetime, end: datetime, **arguments: object) -> Row:
    """The sums of one widget; 0 where it has no row."""
    named = "".join(f", {name} => %s" for name in arguments)
    row = db.execute(
        f"select * from public.widget_billing_usage(%s, %s, only_widget => %s{named})".encode(),
        [start, end, widget_id, *arguments.values()],
    ).fetchone()
    return row or dict.fromkeys(SUMS, Decimal(0))


def add_up(rows: list[Row]) -> Row:
    return {name: sum((row[name] for row in rows if row[name] is not None), Decimal(0)) for name in SUMS}


def only_sums(row: Row) -> Row:
    return {name: row[name] for name in SUMS}


def random_widget(db: Connection, dice: random.Random, year: int) -> UUID:
    """A widget with a plan, and calls of March and April: some on a month's first and last instant, some assumed."""
    widget_id = new_widget(db)
    add_plan(db, widget_id, date(year, 5, 1))
    add_plan(
        db,
        widget_id,
        date(year, 3, 1),
        increment_seconds=dice.choice([0, 6, 60]),
        minimum_seconds=dice.choice([0, 30]),
        included_seconds=dice.choice([0, 600, 3600]),
        price_per_minute=Decimal(dice.choice(["0.10", "0.0333", "12.5"])),
        currency=dice.choice(["EUR", "JPY", "KWD"]),
        monthly_fee=Decimal(dice.choice(["0", "9.9", "0.005"])),
        assumed_calls=dice.choice(["full", "none", "45"]),
        bills_failed_calls=dice.random() < 0.5,
    )
    for number in range(60):
        start = dice.choice([
            at(year, 3) + timedelta(microseconds=dice.randrange(61 * 86400 * 10**6)),
            at(year, dice.choice([3, 4])), at(year, dice.choice([4, 5])) - timedelta(microseconds=1),
        ])  # fmt: skip
        source = dice.choice(["browser", "browser", "provider", "inferred"])
        end = start + timedelta(microseconds=dice.randrange(10**9))
        record(db, widget_id, f"s{number}", "call_start", start, call_id="c")
        record(db, widget_id, f"s{number}", dice.choice(["call_end", "call_error"]), end, call_id="c", source=source)
    return widget_id


def random_parts(dice: random.Random, year: int) -> list[tuple[datetime, datetime]]:
    span = 61 * 86400 * 10**6
    cuts = {at(year, 3), at(year, 5)} | {at(year, 3) + timedelta(microseconds=dice.randrange(span)) for _ in range(9)}
    cuts |= {at(year, 4)} if dice.random() < 0.5 else set()
    ordered = sorted(cuts)
    return list(itertools.pairwise(ordered))


@pytest.mark.parametrize("seed", range(6))
def test_parts_add_up_to_the_month(db: Connection, year: int, seed: int) -> None:
    """Wherever two months are cut, their parts are the whole to the last digit: open, closed, and with adjustments."""
    dice = random.Random(seed)  # noqa: S311 (no secret)
    march, april, may = (date(year, month, 1) for month in (3, 4, 5))
    widget_id = random_widget(db, dice, year)

    def assert_adds_up() -> None:
        whole = usage(db, widget_id, at(year, 3), at(year, 5))
        parts = [usage(db, widget_id, *part) for part in random_parts(dice, year)]
        assert add_up(parts) == only_sums(whole)

    assert_adds_up()
    close(db, march)
    for session in dice.sample(range(60), 20):
        correct(db, widget_id, dice.randrange(900), f"s{session}")
    call(db, widget_id, noon(march), 77, session="late")
    assert_adds_up()
    close(db, april)
    assert_adds_up()
    close(db, may)
    assert_adds_up()


@pytest.mark.parametrize("seed", range(4))
def test_statement_and_adjustments_are_what_the_calls_cost_now(db: Connection, year: int, seed: int) -> None:
    """All that was charged for a month, with what is pending, is its bill as the ledger has it."""
    dice = random.Random(100 + seed)  # noqa: S311 (no secret)
    march, april = date(year, 3, 1), date(year, 4, 1)
    widget_id = random_widget(db, dice, year)
    close(db, march)
    for closing in (None, april):
        for session in dice.sample(range(60), 15):
            correct(db, widget_id, dice.randrange(900), f"s{session}")
        if closing:
            close(db, closing)

        charged = usage(db, widget_id, at(year, 3), at(year, 4))
        now = usage(db, widget_id, at(year, 3), at(year, 4), as_of=datetime.now(UTC))

        assert charged["billable_seconds"] + charged["pending_seconds"] == now["billable_seconds"]
        assert charged["amount"] + charged["pending_amount"] == now["amount"]
        assert bool(charged["pending_calls"]) is (closing is None)


def test_weeks_of_a_month_share_its_included_seconds(db: Connection, year: int) -> None:
    """What the month includes is used up from its start: the weeks that come later pay."""
    widget_id = new_widget(db)
    add_plan(db, widget_id, date(year, 3, 1), included_seconds=30000, price_per_minute=Decimal("0.12"))
    days = [1, 8, 15, 22, 32]
    for day in range(1, 31):
        for hour in range(5):
            call(db, widget_id, at(year, 3, day) + timedelta(hours=hour), 900, session=f"{day}-{hour}")

    weeks = [usage(db, widget_id, at(year, 3, a), at(year, 3, b)) for a, b in itertools.pairwise(days)]
    month = usage(db, widget_id, at(year, 3), at(year, 4))

    assert [week["amount"] for week in weeks] == [Decimal(amount) for amount in ("3.00", "63.00", "63.00", "81.00")]
    assert month["amount"] == Decimal("210.00")


def test_a_part_without_calls_does_not_hide_the_amount_of_others(db: Connection, year: int) -> None:
    """A month whose calls, without a plan, all lie before the period takes no part in its sums."""
    widget_id = new_widget(db)
    add_plan(db, widget_id, date(year, 4, 1))
    call(db, widget_id, at(year, 3, 5), 60)
    call(db, widget_id, at(year, 4, 5), 60, session="april")

    row = usage(db, widget_id, at(year, 3, 15), at(year, 5))
    with_both = usage(db, widget_id, at(year, 3), at(year, 5))

    assert (row["calls"], row["amount"], row["months"]) == (1, Decimal("0.10"), 1)
    assert (with_both["calls"], with_both["amount"], with_both["months"]) == (2, None, 2)


def test_a_closed_month_says_what_was_charged(db: Connection, year: int) -> None:
    """After a void and a late record: the statement's figures, what is pending beside them; then all charges."""
    march, april = date(year, 3, 1), date(year, 4, 1)
    widget_id = new_widget(db)
    add_plan(db, widget_id, march)
    call(db, widget_id, noon(march), 600)
    call(db, widget_id, noon(march), 300, session="t")
    period = (at(year, 3), at(year, 4))

    open_month = usage(db, widget_id, *period)
    as_of = close(db, march)["as_of"]
    correct(db, widget_id, 0)
    call(db, widget_id, noon(march), 60, session="late")
    closed = usage(db, widget_id, *period)
    rows = db.execute(
        "select session_id, billable_seconds, is_closed from public.widget_billing_calls(%s, %s, only_widget => %s)"
        " order by 1",
        [*period, widget_id],
    ).fetchall()
    at_closing = usage(db, widget_id, *period, as_of=as_of)
    close(db, april)
    adjusted = usage(db, widget_id, *period)

    assert (open_month["amount"], open_month["months"], open_month["closed_months"]) == (Decimal("1.50"), 1, 0)
    assert (closed["calls"], closed["billable_seconds"], closed["amount"]) == (2, 900, Decimal("1.50"))
    assert (closed["months"], closed["closed_months"]) == (1, 1)
    assert (closed["pending_calls"], closed["pending_seconds"], closed["pending_amount"]) == (2, -540, Decimal("-0.90"))
    assert [tuple(row.values()) for row in rows] == [("s", 600, True), ("t", 300, True)]
    assert at_closing["amount"] == Decimal("1.50")
    assert (adjusted["calls"], adjusted["billable_seconds"], adjusted["amount"]) == (3, 360, Decimal("0.60"))
    assert (adjusted["operator_calls"], adjusted["observed_seconds"]) == (1, 360)
    assert (adjusted["pending_calls"], adjusted["pending_amount"]) == (0, 0)


def test_a_month_is_closed_for_owners_without_a_charge_in_it(db: Connection, year: int) -> None:
    """A call that comes late is pending for its owner, too, and not yet billed."""
    march, owner_id = date(year, 3, 1), uuid4()
    widget_id = new_widget(db, owner_id)
    close(db, march)
    call(db, widget_id, noon(march), 60)

    with db.transaction():
        db.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps({"sub": str(owner_id)})])
        db.execute("set local role authenticated")
        seen = usage(db, widget_id, at(year, 3), at(year, 4))
        calls = db.execute("select * from public.widget_billing_calls(%s, %s)", [at(year, 3), at(year, 4)]).fetchall()

    assert (seen["calls"], seen["billable_seconds"], seen["closed_months"]) == (0, 0, 1)
    assert (seen["pending_calls"], seen["pending_seconds"]) == (1, 60)
    assert calls == []


def test_a_fee_is_due_once_a_month(db: Connection, year: int) -> None:
    """With calls or without, in the part of the month that its first instant is in, and on its statement."""
    march, april = date(year, 3, 1), date(year, 4, 1)
    widget_id, idle_id = new_widget(db), new_widget(db)
    for each in (widget_id, idle_id):
        add_plan(db, each, april)
        add_plan(db, each, march, monthly_fee=Decimal("19.90"))
    call(db, widget_id, noon(march), 60)

    parts = [usage(db, widget_id, at(year, 3, a), at(year, 3, b)) for a, b in ((1, 5), (5, 20), (20, 32))]
    idle = usage(db, idle_id, at(year, 2), at(year, 5))
    answer = close(db, march)
    correct(db, widget_id, 120)
    close(db, april)

    assert [part["amount"] for part in parts] == [Decimal("19.90"), Decimal("0.10"), Decimal("0.00")]
    assert [part["fees"] for part in parts] == [Decimal("19.90"), 0, 0]
    assert (idle["calls"], idle["amount"], idle["fees"], idle["months"]) == (0, Decimal("19.90"), Decimal("19.90"), 1)
    assert answer["calls"] == 1
    amounts = {charge["widget_id"]: charge["difference_amount"] for charge in charges(db, march)}
    assert amounts == {widget_id: Decimal("20.00"), idle_id: Decimal("19.90")}
    (adjustment,) = charges(db, april)
    assert (adjustment["old_amount"], adjustment["new_amount"]) == (Decimal("20.00"), Decimal("20.10"))


def test_a_month_with_fees_waits_to_be_closed(db: Connection, year: int) -> None:
    """A month without calls is due when a plan has a fee; a fee cannot begin in a month that is closed."""
    march, april = date(year, 3, 1), date(year, 4, 1)
    widget_id, other_id = new_widget(db), new_widget(db)
    add_plan(db, widget_id, date(year, 5, 1))
    add_plan(db, widget_id, march, monthly_fee=Decimal(5))

    waiting = db.execute(
        "select month, has_calls, has_fees, settled_at from public.widget_months_to_close()"
        " where month between %s and %s",
        [march, date(year, 12, 1)],
    ).fetchall()
    with pytest.raises(Exception, match=f"^period: {year}-03 has fees and is not closed"):
        close(db, april)
    close(db, march)
    close(db, april)
    with pytest.raises(Exception, match=r"^valid_from: this plan would hold, or holds, for .*, which is closed"):
        add_plan(db, other_id, april, monthly_fee=Decimal(1))

    assert [(row["month"], row["has_calls"], row["has_fees"]) for row in waiting] == [
        (march, False, True),
        (april, False, True),
    ]
    assert waiting[0]["settled_at"] == at(year, 4, 8)


def test_a_preview_is_what_closing_writes(db: Connection, year: int) -> None:
    """The charges that closing a month would write, adjustments of earlier months among them; nothing is written."""
    march, april = date(year, 3, 1), date(year, 4, 1)
    widget_id = new_widget(db)
    add_plan(db, widget_id, date(year, 5, 1))
    add_plan(db, widget_id, march, included_seconds=60, monthly_fee=Decimal(3))
    call(db, widget_id, noon(march), 241)
    close(db, march)
    correct(db, widget_id, 100)
    call(db, widget_id, noon(april), 90, session="t")

    previewed = db.execute("select * from public.widget_statement_preview(%s)", [str(april)]).fetchall()
    pending = db.execute("select * from public.widget_pending_adjustments(%s, %s)", [widget_id, str(april)]).fetchall()
    none_yet = db.execute("select * from public.widget_pending_adjustments(%s, %s)", [widget_id, str(march)]).fetchall()
    assert charges(db, april) == []
    close(db, april)

    def unsealed(rows: list[Row]) -> list[Row]:
        return sorted(({**row, "content_hash": ""} for row in rows), key=lambda row: row["usage_period"])

    assert unsealed(previewed) == unsealed(charges(db, april))
    assert [(row["old_seconds"], row["new_seconds"]) for row in pending] == [(241, 100)]
    assert none_yet == []
    with pytest.raises(Exception, match=r"^period: .* is closed"):
        db.execute("select * from public.widget_statement_preview(%s)", [str(april)])


def test_a_draft_of_a_plan_rates_real_calls(db: Connection, year: int) -> None:
    """What a month would have cost by other terms, closed or not; a draft with an unknown term is refused."""
    march = date(year, 3, 1)
    widget_id = new_widget(db)
    add_plan(db, widget_id, march)
    call(db, widget_id, noon(march), 61)
    draft = '{"price_per_minute": 0.2, "currency": "EUR", "increment_seconds": 60, "monthly_fee": 2}'

    before = [usage(db, widget_id, at(year, 3), at(year, 4), what_if=what) for what in (None, draft)]
    close(db, march)
    after = [usage(db, widget_id, at(year, 3), at(year, 4), what_if=what) for what in (None, draft)]

    assert [row["amount"] for row in before] == [Decimal("0.10"), Decimal("2.40")]
    assert [row["amount"] for row in after] == [Decimal("0.10"), Decimal("2.40")]
    with pytest.raises(Exception, match=r"^what_if: widget_plans has no column price"):
        usage(db, widget_id, at(year, 3), at(year, 4), what_if='{"price": 1}')
