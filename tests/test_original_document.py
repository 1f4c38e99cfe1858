"""The manual tests and the SQL of the document that this project started from, word for word."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from local_stack.stack import Stack
from tests.conftest import NewWidget
from tests.support import Browser, Connection, record, session_name

BILLING_QUERY = """
SELECT
  widget_id,
  session_id,
  MIN(CASE WHEN event_type = 'call_start' THEN timestamp END) as start_time,
  MAX(CASE WHEN event_type = 'call_end' THEN timestamp END) as end_time,
  EXTRACT(EPOCH FROM (
    MAX(CASE WHEN event_type = 'call_end' THEN timestamp END) -
    MIN(CASE WHEN event_type = 'call_start' THEN timestamp END)
  )) as duration_seconds
FROM widget_analytics
WHERE event_type IN ('call_start', 'call_end')
GROUP BY widget_id, session_id;
"""

CHECK_QUERY = """
SELECT * FROM widget_analytics
WHERE widget_id = 'your-widget-id'
ORDER BY timestamp DESC;
"""


def test_analytics_tracking(stack: Stack, http: httpx.Client, db: Connection, new_widget: NewWidget) -> None:
    """Load the page, open the widget, start and end a call: each is found in the database, latest first."""
    widget_id, session_id = new_widget(), session_name()
    browser = Browser(http, stack.publishable_key)

    for event_type in ("widget_load", "widget_open", "call_start", "call_end"):
        answer = browser.track(widget_id, event_type, session_id, page_url="https://shop.example/p?id=1#top")
        assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "duplicates": 0, "rejected": []})

    rows = db.execute(CHECK_QUERY.replace("your-widget-id", str(widget_id)).encode()).fetchall()
    assert [row["event_type"] for row in rows] == ["call_end", "call_start", "widget_open", "widget_load"]
    assert {row["session_id"] for row in rows} == {session_id}
    assert {row["page_url"] for row in rows} == {"https://shop.example/p"}


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_cleanup_job(stack: Stack, http: httpx.Client, db: Connection, new_widget: NewWidget, method: str) -> None:
    """A call_start dated one hour ago by hand gets its call_end when the cleanup is called over HTTP."""
    widget_id, session_id = new_widget(), session_name()
    started_at = datetime.now(UTC) - timedelta(hours=1)
    record(db, widget_id, session_id, "call_start", started_at)

    answer = http.request(method, "/functions/v1/cleanup", headers={"authorization": f"Bearer {stack.cron_secret}"})

    assert answer.status_code == 200
    counts = answer.json()
    assert counts["calls_completed"] >= 1
    assert counts["calls_checked"] == counts["calls_completed"] + counts["calls_still_active"]
    ends = db.execute(
        "select source, timestamp from public.widget_analytics where widget_id = %s and event_type = 'call_end'",
        [widget_id],
    ).fetchall()
    assert ends == [{"source": "inferred", "timestamp": started_at + timedelta(minutes=30)}]


def test_billing_query(db: Connection, new_widget: NewWidget) -> None:
    """The billing query runs as it stands and gives the duration of a session with one call."""
    widget_id, session_id = new_widget(), session_name()
    started_at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    record(db, widget_id, session_id, "call_start", started_at)
    record(db, widget_id, session_id, "call_end", started_at + timedelta(seconds=95))

    rows = [row for row in db.execute(BILLING_QUERY.encode()).fetchall() if row["widget_id"] == widget_id]

    assert rows == [
        {
            "widget_id": widget_id,
            "session_id": session_id,
            "start_time": started_at,
            "end_time": started_at + timedelta(seconds=95),
            "duration_seconds": 95,
        }
    ]
