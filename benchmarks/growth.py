"""What a larger history costs: each figure at 1, 10 and 50 million events, against the original way and itself."""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import median

import psycopg

from benchmarks import loads
from benchmarks.bench import ORIGINAL_BILL, OWNER_ID, Bench, running
from benchmarks.findings import Finding, at_least, at_most, figure, spread
from benchmarks.history import CALL_SECONDS, EVENTS_A_MONTH, History
from benchmarks.measure import seconds_of, take_turns
from benchmarks.pgbench import events_per_second, side_by_side, wal_per_event

NEWLY_STALE = 1000
# Of a month of 100,000 calls; and of one of its 1,000 widgets.
BILL_MILLISECONDS = 60
ONE_WIDGETS_BILL_MILLISECONDS = 2
CLOSING_SECONDS = 8
_UNTIL_PLANNED = 6  # PostgreSQL plans a function's query anew at each of the first five calls in a connection
SIZES = (EVENTS_A_MONTH, 10 * EVENTS_A_MONTH, 50 * EVENTS_A_MONTH)

_ORIGINAL_BILL = f"{ORIGINAL_BILL} and timestamp >= %s and timestamp < %s"  # the filter is what it lacks


def sizes_up_to(events: int) -> list[int]:
    return sorted({*(size for size in SIZES if size < events), events})


def measure(bench: Bench, events: int) -> Iterator[Finding]:
    """Fill step by step and measure at each step."""
    history = History(bench.stack, most_events=events)
    first_cleanup: list[float] | None = None
    with running(bench.plan, settings=bench.settings) as empty:
        for size in sizes_up_to(events):
            taken = seconds_of(partial(history.fill, size, bench.say))
            bench.say(f"filled up to {size:,} in {taken:.0f} s")
            at = millions(size)
            yield from _size_of_a_row(bench, at)
            yield from _bill(bench, history, at)
            yield from _one_widgets_bill(bench, history, at)
            cleanup = yield from _cleanup(bench, size, first_cleanup)
            first_cleanup = first_cleanup or cleanup
            yield from _idle_cleanup(bench, at)
            yield from _inserts(bench, empty, size)
            yield from _closing(bench, at)


def millions(events: int) -> str:
    return f"{events / 1e6:g} million events"


def _size_of_a_row(bench: Bench, at: str) -> Iterator[Finding]:
    def bytes_per_row(table: str) -> float:
        return bench.number(f"select pg_total_relation_size('{table}')::float8 / count(*) from {table}")

    ours, originals = bytes_per_row("public.widget_analytics"), bytes_per_row("original_baseline.widget_analytics")
    calls = bytes_per_row("widget_internal.call_states")
    yield Finding(
        f"bytes per event, heap and indexes, {at}: {figure(ours)} (and {figure(calls)} for each call)",
        f"the original table: {figure(originals)}",
        f"{figure(ours / originals)} ×",
        "–",
    )


def _bill(bench: Bench, history: History, at: str) -> Iterator[Finding]:
    month = history.newest_month
    with _connected(bench) as connection:
        billed = "select sum(billable_seconds) from public.widget_billing_usage(%s, %s)"
        originals = f"select sum(duration_seconds) from ({_ORIGINAL_BILL} group by widget_id, session_id) s"
        _check_both_bill_the_same(connection.execute(billed, month), connection.execute(originals.encode(), month))
        ours, other = take_turns(
            lambda: seconds_of(lambda: connection.execute(billed, month)),
            lambda: seconds_of(lambda: connection.execute(originals.encode(), month)),
            rounds=bench.plan.rounds,
        )
    what, against = f"the month's bill, all widgets, {at}", "the original query with a month filter"
    yield _times_faster(what, against, ours, other, BILL_MILLISECONDS)


def _one_widgets_bill(bench: Bench, history: History, at: str) -> Iterator[Finding]:
    month = history.newest_month
    with _connected(bench) as connection, _connected(bench) as as_owner:
        claims = json.dumps({"role": "authenticated", "sub": OWNER_ID})
        as_owner.execute("select set_config('request.jwt.claims', %s, false)", [claims])
        as_owner.execute("set role authenticated")
        billed = "select sum(billable_seconds) from public.widget_billing_usage(%s, %s)"
        originals = (
            f"select sum(duration_seconds) from ({_ORIGINAL_BILL} and widget_id = %s group by widget_id, session_id) s"
        )
        values = [*month, loads.FIRST_WIDGET]
        _check_both_bill_the_same(as_owner.execute(billed, month), connection.execute(originals.encode(), values))
        # A server's connections are open for long: by now each has planned this query, and keeps the plan.
        for _ in range(_UNTIL_PLANNED):
            as_owner.execute(billed, month)
            connection.execute(originals.encode(), values)
        ours, other = take_turns(
            lambda: seconds_of(lambda: as_owner.execute(billed, month)),
            lambda: seconds_of(lambda: connection.execute(originals.encode(), values)),
            rounds=10 * bench.plan.rounds,
        )
    what, against = f"one widget's month, asked by its owner, {at}", "the same for one widget"
    yield _times_faster(what, against, ours, other, ONE_WIDGETS_BILL_MILLISECONDS)


def _check_both_bill_the_same(
    ours: psycopg.Cursor[tuple[object, ...]], originals: psycopg.Cursor[tuple[object, ...]]
) -> None:
    """But for the calls that go on over the month's ends, of which the original query sees one half."""
    billed, wanted = ours.fetchone(), originals.fetchone()
    assert billed is not None
    assert wanted is not None
    if abs(float(str(billed[0])) - float(str(wanted[0]))) > 10 * CALL_SECONDS:
        raise RuntimeError(f"the bills differ: {billed[0]} and {wanted[0]} seconds")


def _times_faster(what: str, against: str, ours: Sequence[float], other: Sequence[float], target: float) -> Finding:
    ratios = [theirs / own for own, theirs in zip(ours, other, strict=True)]
    return Finding(
        f"{what}: {_duration(ours)}",
        f"{against}: {_duration(other)}",
        f"{spread(ratios)} faster",
        f"≤ {target:g} ms",
        median(ours) * 1000 <= target,
    )


def _duration(seconds: Sequence[float]) -> str:
    return f"{figure(median(seconds) * 1000)} ms"


def _cleanup(bench: Bench, size: int, at_first: list[float] | None) -> Generator[Finding, None, list[float]]:
    """Each time 1,000 calls have become stale since the last."""
    ours, originals = [], []
    for _ in range(max(bench.plan.rounds, 3)):
        _make_stale(bench, "public.widget_analytics")
        ours.append(seconds_of(lambda: bench.execute("select public.complete_stale_sessions()")))
    for _ in range(1 if size > EVENTS_A_MONTH else bench.plan.rounds):
        _make_stale(bench, "original_baseline.widget_analytics")
        originals.append(seconds_of(lambda: bench.execute("select original_baseline.cleanup()")))
    ratios = [median(originals) / own for own in ours]
    yield Finding(
        f"cleanup with {NEWLY_STALE:,} newly stale calls, {millions(size)}: {_duration(ours)}",
        f"the original algorithm: {_duration(originals)}",
        f"{spread(ratios)} faster",
        "–",
    )
    if at_first:
        ratios = [own / median(at_first) for own in ours]
        yield Finding(f"the same, {millions(size)}", "itself at the first size", spread(ratios), *at_most(ratios, 1.2))
    return ours


def _make_stale(bench: Bench, table: str) -> None:
    """Add calls in sessions of their own, on all widgets, that began within the last hour and never ended."""
    is_ours = table == "public.widget_analytics"
    new_id = "widget_internal.uuid_v7()::text" if is_ours else "gen_random_uuid()::text"
    bench.execute(
        f'insert into {table} (widget_id, event_type, session_id, "timestamp"{", call_id" if is_ours else ""})'
        f" select ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'call_start', {new_id},"
        "   now() - interval '31 minutes' - n * interval '1 second'"
        f"{f', {new_id}' if is_ours else ''}"
        " from generate_series(1, %s) n",
        [NEWLY_STALE],
    )


def _idle_cleanup(bench: Bench, at: str) -> Iterator[Finding]:
    with _connected(bench) as connection:
        taken = [seconds_of(lambda: connection.execute("select public.complete_stale_sessions()")) for _ in range(10)]
    yield Finding(
        f"cleanup with nothing to do, {at}",
        "–",
        f"{_duration(taken)} ({figure(min(taken) * 1000)}–{figure(max(taken) * 1000)})",
        "no growth",
    )
    waits = _waits_for_cleanup(bench)
    yield Finding(
        "a call event that comes in while such a cleanup's transaction is open",
        "–",
        "waits for a lock" if waits else "is stored at once",
        "no lock that it waits for",
        not waits,
    )


def _waits_for_cleanup(bench: Bench) -> bool:
    with _connected(bench) as cleanup, cleanup.transaction(), _connected(bench) as sender:
        cleanup.execute("select public.complete_stale_sessions()")
        sender.execute("select set_config('request.headers', %s, false)", [json.dumps(loads.HEADERS)])
        sender.execute("set role anon")
        sender.execute("set lock_timeout = '500ms'")
        try:
            for event_type in ("call_start", "call_end"):
                answer = sender.execute(
                    "select (public.track_event(%s::uuid, %s, 'meanwhile') ->> 'accepted')::integer",
                    [loads.FIRST_WIDGET, event_type],
                ).fetchone()
                assert answer == (1,)
        except psycopg.errors.LockNotAvailable:
            return True
    return False


def _closing(bench: Bench, at: str) -> Iterator[Finding]:
    """Close every month that waits; the last of them is what is measured."""
    months = [
        str(month) for (month,) in bench.execute("select to_char(month, 'YYYY-MM') from widget_months_to_close()")
    ]
    close = "select calls from public.close_widget_billing_period(%s)"
    for month in months[:-1]:
        bench.execute(close, [month])
        bench.say(f"closed {month}")
    if months:
        calls: list[float] = []
        seconds = seconds_of(lambda: calls.append(bench.number(close, months[-1:])))
        yield Finding(
            f"closing a month of {calls[0]:,.0f} calls, {len(months) - 1} months closed just before, {at}",
            "–",
            f"{figure(seconds)} s",
            f"≤ {CLOSING_SECONDS} s",
            seconds <= CLOSING_SECONDS,
        )


def _inserts(bench: Bench, empty: Bench, size: int) -> Iterator[Finding]:
    at = millions(size)
    ours, originals = loads.tracker("load"), loads.bare_insert()
    pair = side_by_side(
        (bench.stack, ours), (bench.stack, originals), clients=16, seconds=bench.plan.seconds, rounds=bench.plan.rounds
    )
    yield Finding(
        f"load, 16 connections, into {at}: {figure(events_per_second(pair.ours))}/s",
        f"bare insert of the original row into as many: {figure(events_per_second(pair.other))}/s",
        spread(pair.rate_ratios()),
        "–",
    )
    wal = wal_per_event(pair.ours)
    yield Finding(
        f"the same: {figure(wal)} bytes of WAL per event",
        f"the same: {figure(wal_per_event(pair.other))}",
        f"{spread(pair.wal_ratios())} less",
        "≤ 900 bytes",
        wal <= 900,
    )
    for requests, widgets, where in (
        (("load",), loads.ANY_WIDGET, ""),
        (("start with heartbeat", "heartbeat", "end"), loads.ANY_WIDGET, ""),
        (("start with heartbeat", "heartbeat", "end"), loads.ONE_WIDGET, ", one widget"),
    ):
        load = loads.tracker(*requests, widgets=widgets)
        pair = side_by_side(
            (bench.stack, load),
            (empty.stack, load),
            clients=16,
            seconds=bench.plan.seconds,
            rounds=bench.plan.rounds,
            before_each=empty.empty,
        )
        yield Finding(
            f"{load.name}{where}, 16 connections, into {at}",
            "itself on an empty table",
            spread(pair.rate_ratios()),
            *at_least(pair.rate_ratios(), 0.9),
        )


@contextmanager
def _connected(bench: Bench) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(bench.stack.database_url, autocommit=True) as connection:
        yield connection
