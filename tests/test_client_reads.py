"""Calls and usage, read through the real API past its row limit."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import DictRow

from local_stack.stack import Stack
from tests.client_support import LedgerCall, insert_calls
from tests.conftest import NewOwner, NewWidget
from widget_analytics import Call, EventType, Evidence, Outcome, Period, WidgetAnalytics

Connection = psycopg.Connection[DictRow]

# What ids may look like, as senders choose them: each means something else to some parser on the way.
ODD_IDS = [
    *("null", "NULL", "true", "1", "*", "%", ".", "'", '"', "\\", '"q"', "(x)", "{a,b}", "a,b", "a.b", "a b", "a+b"),
    *("any(x)", "eq.x", "not.eq.x", "in.(1,2)", "back\\slash", "\t=1", "a\nb", "a&b=c", 'a"b,c(d)', "é ü", "🙂"),
]


@pytest.fixture
def client(stack: Stack) -> Iterator[WidgetAnalytics]:
    with WidgetAnalytics(url=stack.api_url, secret_key=stack.secret_key) as opened:
        yield opened


def day_of(widget_id: UUID) -> Period:
    """A day that no other widget of this run has calls on: nothing is ever emptied."""
    start = datetime(1990, 1, 1, tzinfo=UTC) + timedelta(days=widget_id.int % 10_000)
    return Period(start, start + timedelta(days=1))


def keys(calls: list[Call]) -> list[tuple[str, str]]:
    return [(call.session_id, call.call_id) for call in calls]


def test_all_calls_are_read_past_the_row_limit_in_order(
    client: WidgetAnalytics, db: Connection, new_widget: NewWidget
) -> None:
    """2,700 calls, 1,300 of them at one instant and with odd ids among them, come once each, as SQL orders them."""
    widget_id = new_widget()
    day = day_of(widget_id)
    noon = day.start + timedelta(hours=12)
    spread = [
        LedgerCall(started_at=day.start + timedelta(seconds=60 * n), session_id=f"s{n}", call_id="c")
        for n in range(1_400)
    ]
    at_noon = [LedgerCall(started_at=noon, session_id=f"n{n}", call_id="c") for n in range(1_300 - len(ODD_IDS) ** 2)]
    odd = [LedgerCall(started_at=noon, session_id=session, call_id=call) for session in ODD_IDS for call in ODD_IDS]
    insert_calls(db, widget_id, spread + at_noon + odd)

    calls = list(client.calls(day, widgets=[widget_id]))

    expected = db.execute(
        """
        select session_id, call_id from public.widget_billing_calls(%s, %s) where widget_id = %s
        order by started_at, widget_id, session_id, call_id
        """,
        [day.start, day.end, widget_id],
    ).fetchall()
    assert len(expected) == 2_700
    assert keys(calls) == [(row["session_id"], row["call_id"]) for row in expected]


@pytest.mark.parametrize("page_size", [1, 3, 5_000])
def test_the_page_size_changes_nothing(stack: Stack, db: Connection, new_widget: NewWidget, page_size: int) -> None:
    """Pages of one row, and pages larger than the API admits, give the same calls."""
    widget_id = new_widget()
    day = day_of(widget_id)
    count = 1_200 if page_size > 1_000 else 25
    insert_calls(
        db,
        widget_id,
        [
            LedgerCall(started_at=day.start + timedelta(minutes=n // 5), session_id=f"s{n:04}", call_id="c")
            for n in range(count)
        ],
    )

    with WidgetAnalytics(url=stack.api_url, secret_key=stack.secret_key, page_size=page_size) as client:
        calls = list(client.calls(day, widgets=[widget_id]))

    assert keys(calls) == [(f"s{n:04}", "c") for n in range(count)]


def test_calls_that_pour_in_while_reading_neither_hide_nor_repeat_others(
    stack: Stack, db: Connection, new_widget: NewWidget
) -> None:
    """What was there when reading began comes exactly once, whatever is inserted before and behind meanwhile."""
    widget_id = new_widget()
    day = day_of(widget_id)
    before = [
        LedgerCall(started_at=day.start + timedelta(seconds=10 * n), session_id=f"s{n:04}", call_id="c")
        for n in range(600)
    ]
    insert_calls(db, widget_id, before)

    read: list[Call] = []
    with WidgetAnalytics(url=stack.api_url, secret_key=stack.secret_key, page_size=50) as client:
        for n, call in enumerate(client.calls(day, widgets=[widget_id])):
            read.append(call)
            if n % 20 == 0:
                beside = [
                    LedgerCall(
                        started_at=call.started_at + timedelta(seconds=shift),
                        session_id=f"new-{n}-{shift}",
                        call_id="c",
                    )
                    for shift in (-15, 0, 15)
                ]
                insert_calls(db, widget_id, beside)

    old = [key for key in keys(read) if key[0].startswith("s")]
    assert old == [(f"s{n:04}", "c") for n in range(600)]
    assert len(set(keys(read))) == len(read)
    assert [call.started_at for call in read] == sorted(call.started_at for call in read)


def test_values_are_exact_and_typed(client: WidgetAnalytics, db: Connection, new_widget: NewWidget) -> None:
    """Seconds are decimals to the microsecond, times know their zone, outcomes and evidence are what they say."""
    widget_id = new_widget()
    day = day_of(widget_id)
    start = day.start + timedelta(microseconds=123_456)
    insert_calls(
        db,
        widget_id,
        [
            LedgerCall(started_at=start, session_id="1", call_id="c", lasts=timedelta(hours=3, microseconds=1)),
            LedgerCall(started_at=start, session_id="2", call_id="c", end="call_error"),
            LedgerCall(started_at=start, session_id="3", call_id="c", lasts=None),
        ],
    )

    completed, failed, still_open = client.calls(day, widgets=[str(widget_id)])

    assert completed == Call(
        widget_id=widget_id,
        session_id="1",
        call_id="c",
        started_at=start,
        ended_at=start + timedelta(hours=3, microseconds=1),
        outcome=Outcome.COMPLETED,
        evidence=Evidence.OBSERVED,
        duration_seconds=Decimal("10800.000001"),
        billable_seconds=Decimal("10800.000001"),
        rule=completed.rule,
        amount=None,
        is_closed=False,
        currency=None,
    )
    assert completed.started_at.utcoffset() == timedelta(0)
    assert (failed.outcome, failed.billable_seconds) == (Outcome.FAILED, Decimal(0))
    assert (still_open.outcome, still_open.ended_at, still_open.evidence, still_open.duration_seconds) == (
        Outcome.OPEN,
        None,
        None,
        None,
    )


def test_periods_are_half_open(client: WidgetAnalytics, db: Connection, new_widget: NewWidget) -> None:
    """A call that starts at the first instant is in; one at the last is in the next period; none is in both."""
    widget_id = new_widget()
    day = day_of(widget_id)
    next_day = Period(day.end, day.end + timedelta(days=1))
    instants = {"first": day.start, "last": day.end - timedelta(microseconds=1), "next": day.end}
    insert_calls(
        db, widget_id, [LedgerCall(started_at=at, session_id=name, call_id="c") for name, at in instants.items()]
    )

    assert [call.session_id for call in client.calls(day, widgets=[widget_id])] == ["first", "last"]
    assert [call.session_id for call in client.calls(next_day, widgets=[widget_id])] == ["next"]


def test_as_of_counts_only_what_was_known_then(client: WidgetAnalytics, db: Connection, new_widget: NewWidget) -> None:
    """An end that came in later leaves the earlier account as it was."""
    widget_id = new_widget()
    day = day_of(widget_id)
    insert_calls(db, widget_id, [LedgerCall(started_at=day.start, session_id="s", call_id="c", lasts=None)])
    then = db.execute("select clock_timestamp() as at").fetchone()
    assert then is not None
    db.execute(
        """
        insert into public.widget_analytics (widget_id, event_type, session_id, call_id, timestamp)
        values (%s, 'call_end', 's', 'c', %s)
        """,
        [widget_id, day.start + timedelta(minutes=5)],
    )

    assert [call.outcome for call in client.calls(day, widgets=[widget_id], as_of=then["at"])] == [Outcome.OPEN]
    assert [call.outcome for call in client.calls(day, widgets=[widget_id])] == [Outcome.COMPLETED]
    assert [usage.open_calls for usage in client.usage(day, widgets=[widget_id], as_of=then["at"])] == [1]


def test_as_of_needs_a_time_zone(client: WidgetAnalytics) -> None:
    """A moment without a zone could be another moment."""
    with pytest.raises(ValueError, match="no time zone"):
        list(client.usage(Period.month("1980-01"), as_of=datetime(2026, 1, 1)))


def test_only_the_widgets_asked_for_are_read(client: WidgetAnalytics, db: Connection, new_widget: NewWidget) -> None:
    """One, several, none, or more than fit into a URL."""
    first, second, third = new_widget(), new_widget(), new_widget()
    day = day_of(first)
    for widget_id in (first, second, third):
        insert_calls(db, widget_id, [LedgerCall(started_at=day.start, session_id="s", call_id="c")])
    many = [uuid4() for _ in range(1_000)]

    def read(widgets: list[UUID]) -> set[UUID]:
        by_call = {call.widget_id for call in client.calls(day, widgets=widgets)}
        assert by_call == {usage.widget_id for usage in client.usage(day, widgets=widgets)}
        return by_call

    assert read([first]) == {first}
    assert read([first, third]) == {first, third}
    assert read([]) == set()
    assert read([*many, second]) == {second}


def test_usage_is_the_sum_of_the_calls(stack: Stack, db: Connection, new_widget: NewWidget) -> None:
    """For each of many widgets, over several pages: as many calls and exactly as many seconds."""
    widgets = sorted(new_widget() for _ in range(7))
    day = day_of(widgets[0])
    for number, widget_id in enumerate(widgets, start=1):
        insert_calls(
            db,
            widget_id,
            [
                LedgerCall(
                    started_at=day.start, session_id=f"s{n}", call_id="c", lasts=timedelta(seconds=60, microseconds=n)
                )
                for n in range(number)
            ],
        )

    with WidgetAnalytics(url=stack.api_url, secret_key=stack.secret_key, page_size=2) as client:
        usage = list(client.usage(day, widgets=widgets))
        calls = list(client.calls(day, widgets=widgets))

    assert [one.widget_id for one in usage] == widgets
    assert [one.calls for one in usage] == [1, 2, 3, 4, 5, 6, 7]
    assert [one.observed_calls for one in usage] == [1, 2, 3, 4, 5, 6, 7]
    for one in usage:
        seconds = sum((call.billable_seconds for call in calls if call.widget_id == one.widget_id), Decimal(0))
        assert one.billable_seconds == one.observed_seconds == seconds


def test_an_owner_reads_their_own_widgets_only(
    stack: Stack, db: Connection, new_owner: NewOwner, new_widget: NewWidget
) -> None:
    """With a signed-in user's token: calls, usage and open calls of that user's widgets, no others'."""
    owner = new_owner()
    mine, others = new_widget(owner), new_widget()
    day = day_of(mine)
    for widget_id in (mine, others):
        insert_calls(db, widget_id, [LedgerCall(started_at=day.start, session_id="s", call_id="c", lasts=None)])

    with WidgetAnalytics(
        url=stack.api_url, publishable_key=stack.publishable_key, access_token=stack.token_for(owner)
    ) as client:
        assert [call.widget_id for call in client.calls(day)] == [mine]
        assert [usage.widget_id for usage in client.usage(day)] == [mine]
        assert client.open_calls() == 1
        assert list(client.calls(day, widgets=[others])) == []


def test_enums_are_the_databases(db: Connection) -> None:
    """The event types that Python knows are those of the database, as are the outcomes and evidences of its calls."""
    types = db.execute("select unnest(widget_internal.event_types()) as name").fetchall()
    sources = db.execute("select unnest(widget_internal.event_sources()) as name").fetchall()
    facts = db.execute(
        """
        select f.outcome, f.evidence
        from unnest(widget_internal.event_sources()) source
        cross join unnest(array['call_end', 'call_error']) kind
        cross join unnest(array[null, now()]) heartbeat
        cross join lateral widget_internal.call_facts(
          widget_internal.claim('call_start', 'browser', now(), now()), heartbeat,
          widget_internal.claim(kind, source, now(), now()), null
        ) f
        union select f.outcome, f.evidence
        from widget_internal.call_facts(
          widget_internal.claim('call_start', 'browser', now(), now()), null, null, null
        ) f
        """
    ).fetchall()

    assert {row["name"] for row in types} == set(EventType)
    assert {row["name"] for row in sources} == {"inferred", "browser", "server", "provider", "operator"}
    assert {row["outcome"] for row in facts} == set(Outcome)
    assert {row["evidence"] for row in facts} - {None} == set(Evidence)
