"""Bills go out to Stripe, Lago and OpenMeter, each charge once."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from tests.billing_systems import KEY, TEST_MODE_KEY, Hangup, billing_systems
from tests.client_support import command, environment, run
from tests.push_support import (
    CUSTOMERS,
    FIRST,
    SECOND,
    Books,
    closed_books,
    expected,
    pass_a_day,
    push_once,
    push_to_the_end,
    push_until_confirmed,
    target_of,
)
from widget_analytics._push.charges import ChargeToPush, with_customers
from widget_analytics._push.outbox import Outbox
from widget_analytics._push.stripe_target import minor_units
from widget_analytics._push.target import Passing, Settled
from widget_analytics.errors import UsageError

KINDS = ["items", "meter", "lago", "lago-clickhouse", "openmeter"]


@pytest.fixture(scope="module")
def all_books() -> Iterator[Books]:
    with closed_books() as books:
        yield books


@pytest.fixture
def books(all_books: Books) -> Books:
    """Nothing was pushed yet."""
    all_books.forget_pushes()
    return all_books


@pytest.mark.parametrize("kind", KINDS)
def test_each_charge_arrives_once(books: Books, kind: str) -> None:
    """Pushed twice, each customer is billed what the statement charges, adjustments included, and not more."""
    push_once(books, kind, SECOND)
    push_until_confirmed(books, kind, SECOND)

    assert books.systems.of_customers(kind) == expected(books, kind, SECOND)
    assert books.db.execute("select count(*) from public.widget_pushes where state <> 'confirmed'").fetchone() == {
        "count": 0
    }


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_interrupts_it_each_charge_arrives_once(books: Books, kind: str) -> None:
    """Killed anywhere, two at once, answers lost, days between: the same. `scripts/push-torture` plays 1,000."""
    push_to_the_end(books, kind, SECOND, seed=0)

    assert books.systems.of_customers(kind) == expected(books, kind, SECOND)


def test_two_statements_add_up_to_what_the_calls_cost(books: Books) -> None:
    """A month closed, pushed, corrected, closed and pushed: the customer's total is what all its calls cost now."""
    push_once(books, "items", FIRST)
    push_once(books, "items", SECOND)

    cost = books.db.execute(
        """
        select k.reference, 100 * sum(u.amount) as cents
        from public.widget_billing_usage('2026-08-01', '2026-10-01') u
        join public.widget_customers k on k.widget_id = u.widget_id
        group by 1
        """
    ).fetchall()
    assert books.systems.of_customers("items") == {row["reference"]: row["cents"] for row in cost}


def test_a_killed_command_is_run_again(books: Books, tmp_path: Path) -> None:
    """SIGKILL in the midst of sending, then the same command: each charge once."""
    env = environment(books.stack, **books.environment())

    for sent in (1, 2, 4):
        before = books.systems.requests
        process = subprocess.Popen(command("push", "stripe", "--month", "2026-09"), env=env, cwd=tmp_path)
        while books.systems.requests < before + sent and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        books.db.execute("update public.widget_pushes set held_until = now() where held_until is not null")
    done = run(env, tmp_path, "push", "stripe", "--month", "2026-09")

    assert done.returncode == 0, done.stderr
    assert books.systems.of_customers("items") == expected(books, "items", SECOND)


def test_a_charge_without_a_customer_stops_it(books: Books, tmp_path: Path) -> None:
    """Nothing is sent, and the list says which."""
    (tmp_path / "customers.csv").write_text("reference,id\nK-1,cus_1\n")
    env = environment(books.stack, **books.environment())

    done = run(env, tmp_path, "push", "stripe", "--month", "2026-09", "--customers", "customers.csv")
    (tmp_path / "customers.csv").write_text("reference,id\nK-1,cus_1\nK-1,cus_2\n")
    twice = run(env, tmp_path, "push", "stripe", "--month", "2026-09", "--customers", "customers.csv")

    assert done.returncode == 2
    assert "nothing was sent: customer K-2 is not in the file of --customers" in done.stderr
    assert twice.returncode == 8
    assert "K-1 has two ids, cus_1 and cus_2" in twice.stderr
    assert books.systems.items == []


def test_a_refused_charge_is_sent_when_its_cause_is_gone(books: Books, tmp_path: Path) -> None:
    """Refused rows say why, in --status too, and a corrected customer is taken by the next run."""
    env = environment(books.stack, **books.environment())
    (tmp_path / "customers.csv").write_text("reference,id\nK-1,cus_wrong\nK-2,cus_2\n")
    books.systems.unknown_customers.add("cus_wrong")
    arguments = ("push", "stripe", "--month", "2026-09", "--customers", "customers.csv")

    refused = run(env, tmp_path, *arguments)
    status = run(env, tmp_path, "push", "stripe", "--month", "2026-09", "--status")
    (tmp_path / "customers.csv").write_text("reference,id\nK-1,cus_1\nK-2,cus_2\n")
    done = run(env, tmp_path, *arguments)

    assert refused.returncode == 1
    assert status.returncode == 1
    assert "No such customer: 'cus_wrong'" in status.stdout
    assert done.returncode == 0, done.stderr
    assert set(books.systems.of_customers("items")) == {"cus_1", "cus_2"}
    kept = books.db.execute("select string_agg(p::text, ' ') as rows from public.widget_pushes p").fetchone()
    assert KEY not in str(kept)
    assert sum(books.systems.of_customers("items").values()) == sum(expected(books, "items", SECOND).values())


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_system_holds_is_never_refused(books: Books, kind: str) -> None:
    """Taken without an answer, and refused when it is sent again: it is looked for, and stands as confirmed."""
    systems = books.systems

    def hang_up(moment: str) -> None:
        if moment == "after":
            raise Hangup

    systems.trouble = hang_up
    with pytest.raises(Passing):
        push_once(books, kind, SECOND)
    systems.trouble = lambda moment: None
    systems.blocked_customers.update(CUSTOMERS)
    systems.lag = timedelta(seconds=0.1)
    taken = systems.names(kind)
    push_once(books, kind, SECOND)
    refused = books.db.execute("select event_id from public.widget_pushes where state = 'refused'").fetchall()
    systems.blocked_customers.clear()
    push_until_confirmed(books, kind, SECOND)

    assert taken
    assert taken.isdisjoint(row["event_id"] for row in refused)
    assert systems.of_customers(kind) == expected(books, kind, SECOND)


def test_a_stalled_push_does_not_undo_what_another_learnt(books: Books) -> None:
    """It was refused, after its hold had ended and another push had sent the charge; or it had arrived after all."""
    target = target_of("lago", books.systems)
    outbox = Outbox(books.client._transport, "lago", target.account, SECOND, hold=timedelta(0))
    outbox.plan(target.plan(with_customers(outbox.charges(), None)))
    stalled = outbox.claim(100)
    others = outbox.claim(100)

    outbox.settle([Settled(push, "refused", "by the stalled one") for push in stalled])
    after_refusal = {row.state for row in outbox.rows()}
    outbox.settle([Settled(push, "refused", "by the other") for push in others])
    outbox.plan(target.plan(with_customers(outbox.charges(), None)))
    outbox.settle([Settled(push, "accepted", "by the stalled one") for push in stalled])

    assert after_refusal == {"sending"}
    assert {row.state for row in outbox.rows()} == {"accepted"}


def test_a_refusal_is_not_remembered(books: Books) -> None:
    """Stripe gives a key's first answer for a day; once the cause is gone the same charge goes under another key."""
    books.systems.blocked_customers.update(CUSTOMERS)
    push_once(books, "items", SECOND)
    books.systems.blocked_customers.clear()
    push_once(books, "items", SECOND)

    assert books.systems.of_customers("items") == expected(books, "items", SECOND)


def test_a_charge_of_a_corrected_customer_has_a_minute_of_its_own(books: Books, tmp_path: Path) -> None:
    """Two references of one customer, one of them corrected later: each charge is found in its minute."""
    env = environment(books.stack, **books.environment())
    arguments = ("push", "stripe", "--meter", "widget_seconds", "--month", "2026-09", "--customers", "customers.csv")
    (tmp_path / "customers.csv").write_text("reference,id\nK-1,cus_wrong\nK-2,cus_1\n")
    books.systems.blocked_customers.add("cus_wrong")
    run(env, tmp_path, *arguments)
    (tmp_path / "customers.csv").write_text("reference,id\nK-1,cus_1\nK-2,cus_1\n")

    done = run(env, tmp_path, *arguments)

    assert done.returncode == 0, done.stdout + done.stderr
    assert books.systems.of_customers("meter") == {"cus_1": sum(expected(books, "meter", SECOND).values())}


def test_a_month_too_old_for_a_meter_goes_as_items(books: Books) -> None:
    """Stripe's meters take nothing older than 35 days: refused with its reason, and the next push sends items."""
    books.systems.pass_time(timedelta(days=40))
    push_once(books, "meter", SECOND)
    refused = books.db.execute("select distinct state, answer from public.widget_pushes").fetchall()

    push_once(books, "items", SECOND)

    assert refused == [{"state": "refused", "answer": "The timestamp is more than 35 days in the past"}]
    assert books.systems.meter_events == []
    assert books.systems.of_customers("items") == expected(books, "items", SECOND)


def test_what_is_taken_and_never_counted_is_refused_after_a_day(books: Books) -> None:
    """Stripe checks a meter event's customer later, and says nothing: after a day it is refused, and sent anew."""
    books.systems.unknown_customers.update(CUSTOMERS)
    push_once(books, "meter", SECOND)
    pass_a_day(books)
    push_once(books, "meter", SECOND)
    refused = books.db.execute("select distinct state, answer from public.widget_pushes").fetchall()
    books.systems.unknown_customers.clear()

    push_once(books, "meter", SECOND)

    assert [(row["state"], "does the system know the customer?" in row["answer"]) for row in refused] == [
        ("refused", True)
    ]
    assert books.systems.of_customers("meter") == expected(books, "meter", SECOND)


def test_what_else_is_counted_in_its_minute_makes_it_unclear(books: Books) -> None:
    """The meter's sum tells nothing then: the charge is not sent again, and the reason is shown."""
    books.systems.unknown_customers.update(CUSTOMERS)
    push_once(books, "meter", SECOND)
    books.systems.unknown_customers.clear()
    at = datetime(2026, 9, 30, 23, 59, tzinfo=UTC)
    for customer in CUSTOMERS:
        books.systems.meter_events.append({"customer": customer, "value": 7, "at": at, "taken": books.systems.now()})
    pass_a_day(books)
    push_once(books, "meter", SECOND)

    unclear = books.db.execute("select answer from public.widget_pushes where state = 'unclear'").fetchall()
    assert ["does something else send to it?" in row["answer"] for row in unclear] == [True]


def test_test_mode_first_and_then_live(books: Books, tmp_path: Path) -> None:
    """What went to Stripe's test mode did not go to the live account, which gets all of it; --status shows both."""
    push = ("push", "stripe", "--month", "2026-09")
    with billing_systems(TEST_MODE_KEY) as test_mode:
        env = environment(books.stack, **books.environment())
        trial = env | {"STRIPE_API_KEY": TEST_MODE_KEY, "STRIPE_API_URL": test_mode.url}
        tried = run(trial, tmp_path, *push)
        done = run(env, tmp_path, *push)
        status = run(env, tmp_path, *push, "--status")

        assert (tried.returncode, done.returncode, status.returncode) == (0, 0, 0), done.stderr
        assert test_mode.of_customers("items") == expected(books, "items", SECOND)
        assert books.systems.of_customers("items") == expected(books, "items", SECOND)
        assert "account live:" in status.stdout
        assert "account test:" in status.stdout


@pytest.mark.parametrize("kind", ["items", "openmeter"])
def test_another_account_under_the_same_name_is_refused(books: Books, kind: str) -> None:
    """A key of another account: nothing counts as sent there, and nothing is sent until it has a name."""
    push_until_confirmed(books, kind, SECOND)
    with billing_systems() as other:
        elsewhere = replace(books, systems=other)

        with pytest.raises(UsageError, match="--account NAME"):
            push_once(elsewhere, kind, SECOND, account=target_of(kind, books.systems).account)
        push_until_confirmed(elsewhere, kind, SECOND, account="second")

        assert other.of_customers(kind) == expected(books, kind, SECOND)


@pytest.mark.parametrize("kind", ["items", "meter", "openmeter"])
def test_one_account_under_two_names_gets_each_charge_once(books: Books, kind: str) -> None:
    """Under another name, and when the system knows no event's name any more: each is found there."""
    push_until_confirmed(books, kind, SECOND)
    books.systems.pass_time(timedelta(days=33))
    push_until_confirmed(books, kind, SECOND, account="second")

    assert books.systems.of_customers(kind) == expected(books, kind, SECOND)


@pytest.mark.parametrize("kind", ["meter", "lago", "openmeter"])
def test_a_credit_that_a_system_would_lose(books: Books, kind: str) -> None:
    """Of a customer whose month is a credit nothing goes to a meter: Stripe gets items, the others a refusal."""
    period = books.db.execute("select * from public.widget_charges_to_push where period = %s", [SECOND]).fetchall()
    charges = [ChargeToPush(**row) for row in period]
    credit = [(charge, "K") for charge in charges if charge.usage_period < charge.period]

    planned = target_of(kind, books.systems).plan(credit)

    assert sum(each.charge.whole_seconds for each in planned) < 0
    if kind == "meter":
        assert all("item" in each.payload and each.payload["item"]["amount"] < 0 for each in planned)
    else:
        assert all(each.refusal for each in planned)


def test_a_fee_without_seconds_is_nothing_to_lago(books: Books) -> None:
    """A dynamic charge of no units is billed at nothing, whatever its amounts: it is refused, with the reason."""
    row = books.db.execute("select * from public.widget_charges_to_push where period = %s limit 1", [FIRST]).fetchone()
    assert row is not None
    charge = ChargeToPush(**row)
    fee = replace(charge, new_seconds=charge.old_seconds, difference_amount=Decimal("9.90"))
    target = target_of("lago", books.systems)

    assert [bool(each.refusal) for each in target.plan([(fee, "K-1"), (charge, "K-2")])] == [True, False]
    assert [each.refusal for each in target.plan([(fee, "K-1"), (charge, "K-1")])] == [None, None]


def test_a_dry_run_sends_nothing_and_needs_no_key(books: Books, tmp_path: Path) -> None:
    """It prints each payload, and leaves the outbox empty."""
    done = run(environment(books.stack), tmp_path, "push", "stripe", "--month", "2026-09", "--dry-run")

    nothing = books.db.execute("select count(*) from public.widget_pushes").fetchone()
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    push_once(books, "items", SECOND)
    again = run(environment(books.stack), tmp_path, "push", "stripe", "--month", "2026-09", "--dry-run")

    assert again.stdout == ""
    assert sum(each["payload"]["item"]["amount"] for each in printed) == sum(expected(books, "items", SECOND).values())
    assert nothing == {"count": 0}


@pytest.mark.parametrize("kind", ["stripe", "lago", "openmeter"])
def test_a_wrong_key_is_named_and_never_shown(books: Books, tmp_path: Path, kind: str) -> None:
    """The output does not hold it, and nothing was written down."""
    wrong = "sk_wrong_1234567890"
    keys = {"STRIPE_API_KEY": wrong, "LAGO_API_KEY": wrong, "OPENMETER_API_KEY": wrong}
    env = environment(books.stack, **books.environment(**keys))

    done = run(env, tmp_path, "push", kind, "--month", "2026-09")

    kept = books.db.execute("select string_agg(p::text, ' ') as rows from public.widget_pushes p").fetchone()
    assert done.returncode == 3
    assert f"{kind.upper()}_API_KEY" in done.stderr
    assert kept == {"rows": None}
    assert wrong not in done.stdout + done.stderr


def test_an_open_month_is_not_pushed(books: Books, tmp_path: Path) -> None:
    """Only a statement is final."""
    done = run(environment(books.stack, **books.environment()), tmp_path, "push", "stripe", "--month", "2026-10")

    assert done.returncode == 2
    assert "2026-10 is not closed" in done.stderr


@pytest.mark.parametrize(
    ("amount", "currency", "decimals", "units"),
    [
        ("12.34", "EUR", 2, 1234),
        ("-0.01", "EUR", 2, -1),
        ("1234", "JPY", 0, 1234),
        ("1234", "ISK", 0, 123400),
        ("1234.00", "MGA", 2, 1234),
        ("1.234", "KWD", 3, 1230),
        ("1.235", "KWD", 3, 1240),
    ],
)
def test_amounts_in_minor_units(amount: str, currency: str, decimals: int, units: int) -> None:
    """As Stripe counts each currency."""
    assert minor_units(Decimal(amount), currency, decimals) == units


def test_what_is_planned_never_changes(books: Books) -> None:
    """Not even for a corrected customers file, once it may have been sent."""
    push_once(books, "lago", SECOND)

    books.db.execute("update public.widget_pushes set state = 'planned'")  # confirmed rows stay so
    states = books.db.execute("select distinct state from public.widget_pushes").fetchall()
    books.db.execute("alter table public.widget_pushes disable trigger pushes_stay_as_planned")
    books.db.execute("update public.widget_pushes set state = 'sending'")
    books.db.execute("alter table public.widget_pushes enable trigger pushes_stay_as_planned")

    assert states == [{"state": "confirmed"}]
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="never changes"):
        books.db.execute("update public.widget_pushes set payload = '{}'")
