"""The client: events in, calls and usage out."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from widget_analytics._batches import MAX_BYTES, Item, batches, item
from widget_analytics._paging import KEY, Filter, read_by_key, read_calls
from widget_analytics._settings import Settings
from widget_analytics._transport import Transport
from widget_analytics.errors import NotMigrated, Unreachable
from widget_analytics.models import (
    Alarm,
    BillingMonth,
    Call,
    Charge,
    CleanupResult,
    CleanupRun,
    Event,
    Rates,
    Refusal,
    Rejection,
    Statement,
    StatementLine,
    Tracked,
    Usage,
    Widget,
)
from widget_analytics.status import Status, Thresholds, read_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from supabase import Client

    from widget_analytics.periods import Period

_HALF_HOUR = timedelta(minutes=30)
# Covers both a server whose clock is not quite the database's, and events whose transaction has not ended yet: over
# the API none may take longer than the statement time-out, 8 seconds unless set otherwise.
_SETTLING = timedelta(minutes=1)
# A closed month's tables, each with what orders its rows.
_STATEMENT_TABLES: dict[type[Charge | StatementLine], tuple[str, tuple[str, ...]]] = {
    Charge: ("widget_statement_charges", ("widget_id", "usage_period")),
    StatementLine: ("widget_statement_lines", ("widget_id", "usage_period", "session_id", "call_id")),
}
# Many more ids would not fit into a URL; then all widgets are read, and the others are left out here.
_MAX_WIDGETS_IN_URL = 100


class WidgetAnalytics:
    """A client of one Supabase project.

    What is not given is read from the environment, else from the nearest ``.env``: ``SUPABASE_URL``,
    ``SUPABASE_SECRET_KEY``, ``SUPABASE_PUBLISHABLE_KEY``. A key given here keeps both of those keys out.

    Args:
        url: the project's API URL, such as ``https://abcdefgh.supabase.co``.
        secret_key: the project's secret key; it may do all that this class offers, and belongs on no one's page.
        publishable_key: the project's publishable key; enough to send events, and to go with an access token.
        access_token: a signed-in user's token (JWT): then reading gives that widget owner's rows only.
        origin: the page that events are said to come from, such as ``https://shop.example``: the database takes a
            widget's events only for hosts in its ``allowed_domains``.
        timeout: seconds to wait for each answer.
        attempts: how often a request is sent at most; again only where that may help (no connection, 5xx, 429).
        page_size: rows to ask for at once. The project's own limit may be lower; all rows are read in any case.

    Raises:
        ConfigError: a setting is missing or cannot be right.

    Each method raises a `WidgetAnalyticsError`; the tree stands in `widget_analytics.errors`.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        secret_key: str | None = None,
        publishable_key: str | None = None,
        access_token: str | None = None,
        origin: str | None = None,
        timeout: float = 60.0,
        attempts: int = 4,
        page_size: int = 1_000,
    ) -> None:
        settings = Settings.load(
            url=url, secret_key=secret_key, publishable_key=publishable_key, access_token=access_token
        )
        self._transport = Transport(settings, origin=origin, timeout=timeout, attempts=attempts)
        self._page_size = page_size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. The client is of no use afterwards."""
        self._transport.close()

    def track(self, event: Event) -> Tracked:
        """Send one event. Sent again, it changes nothing and counts as a duplicate.

        Raises:
            Refused: the widget is unknown, not active or not allowed on ``origin`` (status 403), or a field is wrong
                (400; ``reason`` names it).
        """
        sent = item(0, event)
        answer = self._transport.send(lambda api: api.rpc("track_event", sent.to_send()).execute().data)
        return _tracked(answer)

    def track_many(self, events: Iterable[Event]) -> Tracked:
        """Send any number of events, in as few calls as the API takes.

        One bad event never costs another: it is in ``rejected``, by its place in ``events``. After an error, send the
        same `Event` objects again: what has arrived already counts as duplicates.
        """
        accepted, duplicates, rejected = 0, 0, list[Rejection]()
        for batch in batches(events):
            if batch[0].size > MAX_BYTES:
                rejected.append(Rejection(batch[0].index, f"event: must have at most {MAX_BYTES} bytes as JSON"))
                continue
            tracked = self._track_batch(batch)
            accepted += tracked.accepted
            duplicates += tracked.duplicates
            rejected += [Rejection(batch[r.index].index, r.reason) for r in tracked.rejected]
        return Tracked(accepted=accepted, duplicates=duplicates, rejected=tuple(rejected))

    def _track_batch(self, batch: list[Item]) -> Tracked:
        def request(api: Client) -> Any:
            return api.rpc("track_events", {"events": [sent.to_send() for sent in batch]}).execute().data

        return _tracked(self._transport.send(request))

    def complete_stale_sessions(self, stale_after: timedelta = _HALF_HOUR) -> CleanupResult:
        """Complete the calls that have been open for longer than ``stale_after`` without a sign of life.

        Safe at any moment, and twice at once. Needs the secret key.
        """
        arguments = {"stale_after": f"{stale_after.total_seconds():f} seconds"}
        rows = self._transport.rows(lambda api: api.rpc("complete_stale_sessions", arguments))
        (result,) = CleanupResult.read(rows)
        return result

    def erase_session(self, widget_id: UUID | str, session_id: str) -> int:
        """Erase page, agent and properties of a session's events; give how many lost something. No bill changes.

        Needs the secret key, or the widget owner's access token. What arrives later is not covered: call it again.

        Raises:
            Refused: the widget is unknown, or not yours (status 403).
        """
        arguments = {"widget_id": str(widget_id), "session_id": session_id}
        answer: Any = self._transport.send(lambda api: api.rpc("erase_widget_session", arguments).execute().data)
        return int(answer["erased"])

    def calls(
        self, period: Period, *, widgets: Iterable[UUID | str] | None = None, as_of: datetime | None = None
    ) -> Iterator[Call]:
        """Yield the calls that started in the period, by start, widget, session and call id; in constant memory.

        Each call is as it stood when its page was read. For an account that can be repeated to the letter, give
        ``as_of``.

        Args:
            period: when the calls started.
            widgets: only these widgets' calls; None for all.
            as_of: count only events received by then, so that a past bill can be made again; None for all events.
        """
        wanted = _wanted(widgets)

        def fetch(start: datetime, end: datetime, filters: list[Filter]) -> list[dict[str, Any]]:
            arguments = _billing_arguments(start, end, as_of)
            return self._transport.rows(
                lambda api: (
                    _filtered(api.rpc("widget_billing_calls", arguments).select(Call.select()), wanted, filters)
                    .order("started_at")
                    .order(KEY[0])
                    .order(KEY[1])
                    .order(KEY[2])
                    .limit(self._page_size)
                )
            )

        for call in Call.read(read_calls(period, fetch)):
            if wanted is None or call.widget_id in wanted:
                yield call

    def usage(
        self, period: Period, *, widgets: Iterable[UUID | str] | None = None, as_of: datetime | None = None
    ) -> Iterator[Usage]:
        """Yield each widget's usage in the period, by widget id. The arguments are those of `calls`."""
        wanted = _wanted(widgets)
        arguments = _billing_arguments(period.start, period.end, as_of)

        def fetch(filters: list[Filter]) -> list[dict[str, Any]]:
            return self._transport.rows(
                lambda api: (
                    _filtered(api.rpc("widget_billing_usage", arguments).select(Usage.select()), wanted, filters)
                    .order("widget_id")
                    .limit(self._page_size)
                )
            )

        page = fetch([])
        while page:
            for usage in Usage.read(page):
                if wanted is None or usage.widget_id in wanted:
                    yield usage
            page = fetch([("widget_id", "gt", page[-1]["widget_id"])])

    def settled_moment(self) -> datetime:
        """Give a moment whose events are all there: read ``as_of`` it, a bill stays the same to the letter.

        It is the server's time less a minute, so neither this machine's clock nor a request on its way matters. (Who
        writes events by hand, in a transaction that is open for longer than that, must wait with the bill.)
        """
        self._transport.rows(lambda api: api.from_("widget_billing_periods").select("period").limit(1))
        if self._transport.answered_at is None:
            raise Unreachable("the answers tell no time (Date): name a moment yourself, as_of", is_passing=False)
        return self._transport.answered_at - _SETTLING

    def billing_month(self, month: str) -> BillingMonth:
        """Give the bounds of a month, such as ``2026-10``, in the time zone that the database bills in."""
        answer: Any = self._transport.send(
            lambda api: api.rpc("widget_billing_period", {"period": month}).execute().data
        )
        (bounds,) = BillingMonth.read([answer])
        return bounds

    def statement(self, month: date) -> Statement | None:
        """Give a closed month, by its first day; None where it is not closed, or has nothing of one's own."""
        rows = self._transport.rows(
            lambda api: api.from_("widget_billing_periods").select(Statement.select()).eq("period", month.isoformat())
        )
        return next(Statement.read(rows), None)

    def charges(self, month: date, *, widgets: Iterable[UUID | str] | None = None) -> Iterator[Charge]:
        """Yield what a closed month charges, by widget and month of use; nothing where it is not closed."""
        wanted = _wanted(widgets)

        def fetch(filters: list[Filter]) -> list[dict[str, Any]]:
            return self._statement_rows(Charge, month, wanted, filters)

        for charge in Charge.read(read_by_key(_STATEMENT_TABLES[Charge][1], fetch)):
            if wanted is None or charge.widget_id in wanted:
                yield charge

    def statement_lines(
        self, month: date, *, widgets: Iterable[UUID | str] | None = None, only_adjustments: bool = False
    ) -> Iterator[StatementLine]:
        """Yield a closed month's calls and adjustments, by widget, month of use, session and call; in constant memory.

        Args:
            month: its first day.
            widgets: only these widgets' lines; None for all.
            only_adjustments: leave out the calls of the month itself.
        """
        wanted = _wanted(widgets)
        only: list[Filter] = [("usage_period", "lt", month.isoformat())] if only_adjustments else []

        def fetch(filters: list[Filter]) -> list[dict[str, Any]]:
            return self._statement_rows(StatementLine, month, wanted, only + filters)

        for line in StatementLine.read(read_by_key(_STATEMENT_TABLES[StatementLine][1], fetch)):
            if wanted is None or line.widget_id in wanted:
                yield line

    def _statement_rows(
        self,
        model: type[Charge | StatementLine],
        month: date,
        wanted: frozenset[UUID] | None,
        filters: list[Filter],
    ) -> list[dict[str, Any]]:
        table, key = _STATEMENT_TABLES[model]

        def request(api: Client) -> Any:
            rows = api.from_(table).select(model.select()).eq("period", month.isoformat())
            rows = _filtered(rows, wanted, filters)
            for column in key:
                rows = rows.order(column)
            return rows.limit(self._page_size)

        return self._transport.rows(request)

    def widgets(self) -> Iterator[Widget]:
        """Yield the widgets, by id."""

        def fetch(filters: list[Filter]) -> list[dict[str, Any]]:
            return self._transport.rows(
                lambda api: (
                    _filtered(api.from_("widgets").select(Widget.select()), None, filters)
                    .order("id")
                    .limit(self._page_size)
                )
            )

        return Widget.read(read_by_key(("id",), fetch))

    @property
    def host(self) -> str:
        """The project's host, such as ``abcdefgh.supabase.co``."""
        return self._transport.host

    def cleanup_runs(self, *, limit: int = 20) -> list[CleanupRun]:
        """Give the latest runs of the cleanup, the latest first. Needs the secret key."""
        rows = self._transport.rows(
            lambda api: (
                api.from_("widget_cleanup_runs")
                .select(CleanupRun.select())
                .order("started_at", desc=True)
                .order("id", desc=True)
                .limit(limit)
            )
        )
        return list(CleanupRun.read(rows))

    def open_calls(self) -> int:
        """Count the calls that have not ended."""
        from postgrest import CountMethod  # noqa: PLC0415 (with supabase, when a client is made)

        count = self._transport.send(
            lambda api: (
                api.from_("widget_calls")
                .select("call_id", count=CountMethod.exact)
                .is_("ended_at", "null")
                .limit(1)
                .execute()
                .count
            )
        )
        return int(count or 0)

    def refusals(self, *, since: datetime) -> Iterator[Refusal]:
        """Yield what the door refused, by hour, from the hour that ``since`` lies in."""
        hour = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)

        def fetch(seen: int) -> list[dict[str, Any]]:
            # By position: these counts are few, for people to look at, and some have no widget to compare by.
            return self._transport.rows(
                lambda api: (
                    api.from_("widget_refusals")
                    .select(Refusal.select())
                    .gte("hour", hour.isoformat())
                    .order("hour")
                    .order("widget_id")
                    .order("reason")
                    .order("detail")
                    .range(seen, seen + self._page_size - 1)
                )
            )

        seen = 0
        while page := fetch(seen):
            yield from Refusal.read(page)
            seen += len(page)

    def rates(self, *, since: datetime) -> list[Rates]:
        """Tell how well tracking has gone since the hour that ``since`` lies in: all widgets together, then each."""
        rows = self._transport.rows(
            lambda api: (
                api.rpc("widget_rates", {"since": since.isoformat()})
                .select(Rates.select())
                .order("widget_id", nullsfirst=True)
                .limit(self._page_size)
            )
        )
        return list(Rates.read(rows))

    def alarms(self, thresholds: Thresholds | None = None) -> list[Alarm]:
        """Tell what is not well, by the database's clock and counts of the last 24 hours. Needs the secret key."""
        limits = thresholds or Thresholds()
        arguments = {
            "min_delivery_rate": str(limits.min_delivery),
            "min_completion_rate": str(limits.min_completion),
            "min_cases": limits.min_cases,
        }
        rows = self._transport.rows(
            lambda api: api.rpc("widget_alarms", arguments).select(Alarm.select()).limit(self._page_size)
        )
        return list(Alarm.read(rows))

    def status(self, thresholds: Thresholds | None = None) -> Status:
        """Tell how things stand: cleanup, open calls, rates, this month so far, refusals. Needs the secret key."""
        return read_status(self, thresholds)


def _wanted(widgets: Iterable[UUID | str] | None) -> frozenset[UUID] | None:
    """Read widget ids.

    Raises:
        ValueError: one is no UUID.
    """
    return None if widgets is None else frozenset(UUID(str(widget)) for widget in widgets)


def _billing_arguments(start: datetime, end: datetime, as_of: datetime | None) -> dict[str, Any]:
    arguments = {"period_start": start.isoformat(), "period_end": end.isoformat()}
    if as_of is None:
        return arguments
    if as_of.tzinfo is None:
        raise ValueError(f"as_of has no time zone: {as_of}")
    return arguments | {"as_of": as_of.isoformat()}


def _filtered(request: Any, wanted: frozenset[UUID] | None, filters: list[Filter]) -> Any:
    if wanted is not None and len(wanted) <= _MAX_WIDGETS_IN_URL:
        request = request.in_("widget_id", sorted(map(str, wanted)))
    for column, operator, value in filters:
        request = request.filter(column, operator, value)
    return request


def _tracked(answer: Any) -> Tracked:
    try:
        return Tracked(
            accepted=answer["accepted"],
            duplicates=answer["duplicates"],
            rejected=tuple(Rejection(r["index"], r["reason"]) for r in answer["rejected"]),
        )
    except (KeyError, TypeError) as error:
        raise NotMigrated(
            "the database's answer to events is none that this version knows. "
            "Bring the migrations and widget-analytics to the same version."
        ) from error
