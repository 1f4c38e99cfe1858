"""A bill's sums are made without pricing call by call: they equal those of the calls, each priced and explained."""

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tests.conftest import NewOwner, NewWidget
from tests.support import Connection, Row

FIRST = datetime(2022, 2, 1, tzinfo=UTC)
PERIOD = (FIRST, datetime(2022, 6, 1, tzinfo=UTC))
CALLS = 400

# The sums as they are defined: over widget_billing_calls(), which says of each call what it costs and why.
DEFINITION = """
with rated as (
  select c.*, p.plan, date_trunc('month', c.started_at at time zone 'UTC') as month
  from public.widget_billing_calls(%(from)s, %(to)s, %(as_of)s) c
  left join lateral (
    select l as plan from public.widget_plans l
    where l.widget_id = c.widget_id and l.valid_from <= c.started_at at time zone 'UTC'
    order by l.valid_from desc limit 1
  ) p on true
),
months as (
  select r.widget_id, r.plan, sum(r.billable_seconds) as seconds from rated r group by r.widget_id, r.month, r.plan
),
charges as (
  select
    m.widget_id, sum(greatest(m.seconds - coalesce((m.plan).included_seconds, 0), 0)) as charged_seconds,
    sum(widget_internal.charge(m.seconds, m.plan)) as amount, min((m.plan).currency) as currency,
    count((m.plan).currency) = count(*) and min((m.plan).currency) = max((m.plan).currency) as has_amount
  from months m
  group by m.widget_id
)
select
  r.widget_id, count(*) as calls, sum(r.billable_seconds) as billable_seconds,
  count(*) filter (where r.evidence = 'observed') as observed_calls,
  coalesce(sum(r.billable_seconds) filter (where r.evidence = 'observed'), 0) as observed_seconds,
  count(*) filter (where r.evidence = 'provider') as provider_calls,
  coalesce(sum(r.billable_seconds) filter (where r.evidence = 'provider'), 0) as provider_seconds,
  count(*) filter (where r.evidence = 'operator') as operator_calls,
  coalesce(sum(r.billable_seconds) filter (where r.evidence = 'operator'), 0) as operator_seconds,
  count(*) filter (where r.evidence = 'heartbeat') as heartbeat_calls,
  coalesce(sum(r.billable_seconds) filter (where r.evidence = 'heartbeat'), 0) as heartbeat_seconds,
  count(*) filter (where r.evidence = 'assumed') as assumed_calls,
  coalesce(sum(r.billable_seconds) filter (where r.evidence = 'assumed'), 0) as assumed_seconds,
  count(*) filter (where r.outcome = 'open') as open_calls,
  count(*) filter (where r.outcome = 'failed') as failed_calls,
  c.charged_seconds, case when c.has_amount then c.amount end as amount, case when c.has_amount then c.currency end
from rated r
join charges c on c.widget_id = r.widget_id
group by r.widget_id, c.charged_seconds, c.amount, c.currency, c.has_amount
"""
USAGE = """
select
  widget_id, calls, billable_seconds, observed_calls, observed_seconds, provider_calls, provider_seconds,
  operator_calls, operator_seconds, heartbeat_calls, heartbeat_seconds, assumed_calls, assumed_seconds,
  open_calls, failed_calls, charged_seconds, amount, currency
from public.widget_billing_usage(%(from)s, %(to)s, %(as_of)s)
"""


def as_text(db: Connection, query: str, as_of: str | None) -> list[Row]:
    """Values to the letter: 1 and 1.000000 are two."""
    arguments = {"from": PERIOD[0], "to": PERIOD[1], "as_of": as_of}
    return db.execute(f"select u::text as row from ({query}) u order by u.widget_id".encode(), arguments).fetchall()


def add_plans(db: Connection, dice: random.Random, widget_id: UUID) -> None:
    for month in (1, 3, 4):
        if dice.random() < 0.5:
            db.execute(
                "insert into public.widget_plans values (%s, %s, 'Pro', %s, %s, %s, %s, %s, %s, %s)",
                [
                    widget_id,
                    datetime(2022, month, 1, tzinfo=UTC),
                    dice.choice([0, 0, 1, 6, 60]),
                    dice.choice([0, 0, 30]),
                    dice.choice([0, 3600]),
                    dice.choice(["0.10", "0.0333", "12.5"]),
                    dice.choice(["EUR", "EUR", "JPY"]),
                    dice.random() < 0.5,
                    dice.choice(["full", "none", "45"]),
                ],
            )


def add_calls(db: Connection, dice: random.Random, widgets: list[UUID]) -> None:
    """Calls of every outcome and evidence, some of equal length, some on the first and last instant of a month."""
    events = []
    for number in range(CALLS):
        widget_id, session = dice.choice(widgets), f"s{number}"
        start = dice.choice([
            FIRST + timedelta(seconds=dice.randrange(120 * 86400)),
            datetime(2022, dice.randint(2, 6), 1, tzinfo=UTC) - dice.choice([0, 1]) * timedelta(microseconds=1),
        ])  # fmt: skip
        lasts = dice.choice([timedelta(0), timedelta(seconds=90), timedelta(microseconds=dice.randrange(10**9))])
        events.append((widget_id, session, "call_start", "browser", start))
        if dice.random() < 0.2:
            events.append((widget_id, session, "call_heartbeat", "browser", start + lasts / 2))
        if dice.random() < 0.9:
            end = dice.choice(["call_end", "call_end", "call_error"])
            source = dice.choice(["browser", "browser", "server", "provider", "operator", "inferred", "inferred"])
            events.append((widget_id, session, end, source, start + lasts))
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into public.widget_analytics (widget_id, session_id, call_id, event_type, source, timestamp)"
            " values (%s, %s, 'c', %s, %s, %s)",
            [(widget, session, kind, source, at) for widget, session, kind, source, at in events],
        )


@pytest.mark.parametrize("seed", range(4))
def test_sums_are_those_of_the_calls(db: Connection, new_widget: NewWidget, seed: int) -> None:
    """By outcome, evidence, plan and month, kept and as of a moment, to the last digit."""
    dice = random.Random(seed)  # noqa: S311 (no secret)
    widgets = [new_widget() for _ in range(8)]
    for widget_id in widgets:
        add_plans(db, dice, widget_id)
    add_calls(db, dice, widgets)

    for as_of in (None, "2100-01-01"):
        sums = as_text(db, USAGE, as_of)
        assert len(sums) >= len(widgets)
        assert sums == as_text(db, DEFINITION, as_of)


def test_owners_sums_are_those_of_their_calls(db: Connection, new_owner: NewOwner, new_widget: NewWidget) -> None:
    """Asked by an owner, they hold what that owner sees and nothing else."""
    dice = random.Random(5)  # noqa: S311 (no secret)
    owner = new_owner()
    owned, others = new_widget(owner), new_widget()
    widgets = [owned, others]
    for widget_id in widgets:
        add_plans(db, dice, widget_id)
    add_calls(db, dice, widgets)
    wanted = [row for row in as_text(db, DEFINITION, None) if str(owned) in row["row"]]

    with db.transaction():
        db.execute("select set_config('request.jwt.claims', json_build_object('sub', %s::text)::text, true)", [owner])
        db.execute("set local role authenticated")
        seen = as_text(db, USAGE, None)

    assert seen == wanted
    assert len(seen) == 1


def test_bills_of_the_months_add_up_to_that_of_all(db: Connection, new_widget: NewWidget) -> None:
    """A bill of one month does not look up each call's month, one of many months does: both put it into the same."""
    dice = random.Random(6)  # noqa: S311 (no secret)
    widgets = [new_widget() for _ in range(4)]
    for widget_id in widgets:
        add_plans(db, dice, widget_id)
    add_calls(db, dice, widgets)
    month = "make_timestamptz(2022, m, 1, 0, 0, 0, 'UTC'), make_timestamptz(2022, m + 1, 1, 0, 0, 0, 'UTC')"
    sums = """
        select widget_id, sum(calls) as calls, sum(billable_seconds) as billed, sum(charged_seconds) as charged
        from {} where widget_id = any(%s) group by widget_id order by widget_id
    """

    by_month = db.execute(
        sums.format(f"generate_series(2, 5) m, public.widget_billing_usage({month})").encode(), [widgets]
    ).fetchall()
    at_once = db.execute(sums.format("public.widget_billing_usage(%s, %s)").encode(), [*PERIOD, widgets]).fetchall()

    assert len(by_month) == len(widgets)
    assert by_month == at_once


def test_as_of_bills_hold_more_sessions_than_are_computed_at_a_time(db: Connection, new_widget: NewWidget) -> None:
    """Each session is computed once, whichever thousands it falls among."""
    widget_id, sessions = new_widget(), 10_001
    db.execute(
        "insert into public.widget_analytics (widget_id, session_id, event_type, timestamp)"
        " select %s, 's' || n, e.event_type, timestamptz '2021-05-01 UTC' + (n + e.after) * interval '1 second'"
        " from generate_series(1, %s) n, (values ('call_start', 0), ('call_end', 60)) e (event_type, after)",
        [widget_id, sessions],
    )

    billed = db.execute(
        "select calls, billable_seconds from public.widget_billing_usage('2021-05-01 UTC', '2021-06-01 UTC', now())"
        " where widget_id = %s",
        [widget_id],
    ).fetchone()

    assert billed == {"calls": sessions, "billable_seconds": 60 * sessions}
