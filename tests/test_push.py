"""Bills go out to Stripe, Lago and OpenMeter, each charge once."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from tests.billing_systems import KEY
from tests.client_support import command, environment, run
from tests.push_support import FIRST, SECOND, Books, closed_books, expected, push_once, push_to_the_end, target_of
from widget_analytics._push.charges import ChargeToPush
from widget_analytics._push.stripe_target import minor_units

KINDS = ["items", "meter", "lago", "openmeter"]


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
    for _ in range(2):
        push_once(books, kind, SECOND)

    assert books.systems.of_customers(kind) == expected(books, kind, SECOND)
    assert books.db.execute("select count(*) from public.widget_pushes where state <> 'confirmed'").fetchone() == {
        "count": 0
    }


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_interrupts_it_each_charge_arrives_once(books: Books, kind: str) -> None:
    """Killed anywhere, two at once, answers lost, days between: the same. `scripts/push-torture` plays 1,000."""
    for seed in range(2):
        push_to_the_end(books, kind, SECOND, seed)

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

    assert done.returncode == 2
    assert "nothing was sent: customer K-2 is not in the file of --customers" in done.stderr
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
    assert sum(books.systems.of_customers("items").values()) == sum(expected(books, "items", SECOND).values())


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


def test_a_dry_run_sends_nothing_and_needs_no_key(books: Books, tmp_path: Path) -> None:
    """It prints each payload, and leaves the outbox empty."""
    done = run(environment(books.stack), tmp_path, "push", "stripe", "--month", "2026-09", "--dry-run")

    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert sum(each["payload"]["item"]["amount"] for each in printed) == sum(expected(books, "items", SECOND).values())
    assert books.systems.items == []
    assert books.db.execute("select count(*) from public.widget_pushes").fetchone() == {"count": 0}


@pytest.mark.parametrize("kind", ["stripe", "lago", "openmeter"])
def test_a_wrong_key_is_named_and_never_shown(books: Books, tmp_path: Path, kind: str) -> None:
    """Neither the output nor the outbox holds the key."""
    wrong = "sk_wrong_1234567890"
    keys = {"STRIPE_API_KEY": wrong, "LAGO_API_KEY": wrong, "OPENMETER_API_KEY": wrong}
    env = environment(books.stack, **books.environment(**keys))

    done = run(env, tmp_path, "push", kind, "--month", "2026-09")

    kept = books.db.execute("select string_agg(p::text, ' ') as rows from public.widget_pushes p").fetchone()
    assert done.returncode == 3
    assert f"{kind.upper()}_API_KEY" in done.stderr
    assert kept is not None
    assert wrong not in done.stdout + done.stderr + kept["rows"]
    assert KEY not in kept["rows"]


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
