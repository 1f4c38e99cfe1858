"""When a billing month begins and ends, and which calls are in it."""

from datetime import UTC, datetime

import pytest

from tests.billing_support import add_plan
from tests.conftest import NewWidget
from tests.support import Connection, record


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
