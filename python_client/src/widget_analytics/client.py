"""The client: events in, calls and usage out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from widget_analytics._batches import MAX_BYTES, Item, batches, item
from widget_analytics._books import Books
from widget_analytics._queries import Paging, bounds
from widget_analytics._rest import RestTransport
from widget_analytics._settings import Settings, patience
from widget_analytics.book_models import Reconciliation
from widget_analytics.models import (
    Alarm,
    CleanupResult,
    CleanupRun,
    Event,
    Rates,
    Refusal,
    Rejection,
    Tracked,
    read_as,
)
from widget_analytics.periods import Period
from widget_analytics.status import Status, Thresholds

_HALF_HOUR = timedelta(minutes=30)


class WidgetAnalytics(Books):
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
        timeout: seconds to wait for each answer to begin, attempts included: as WIDGET_ANALYTICS_TIMEOUT says, else 30.
        attempts: how often a request is sent at most; again only where that may help.
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
        timeout: float | None = None,
        attempts: int = 4,
        page_size: int = 10_000,
    ) -> None:
        settings = Settings.load(
            url=url, secret_key=secret_key, publishable_key=publishable_key, access_token=access_token
        )
        super().__init__(
            RestTransport(
                settings,
                origin=origin,
                timeout=patience() if timeout is None else timeout,
                attempts=attempts,
                page_size=page_size,
            )
        )

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
        return read_as(Tracked, self._transport.call("track_event", sent.to_send))

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
            tracked = read_as(Tracked, self._transport.call("track_events", partial(_to_send, batch)))
            accepted += tracked.accepted
            duplicates += tracked.duplicates
            rejected += [Rejection(batch[r.index].index, r.reason) for r in tracked.rejected]
        return Tracked(accepted=accepted, duplicates=duplicates, rejected=tuple(rejected))

    def complete_stale_sessions(self, stale_after: timedelta = _HALF_HOUR) -> CleanupResult:
        """Complete the calls that have been open for longer than ``stale_after`` without a sign of life.

        Safe at any moment, and twice at once. Needs the secret key.
        """
        arguments = {"stale_after": f"{stale_after.total_seconds():f} seconds"}
        rows = self._rows(model=CleanupResult, relation="complete_stale_sessions", arguments=arguments)
        return next(rows)

    def erase_session(self, widget_id: UUID | str, session_id: str) -> int:
        """Erase page, agent and properties of a session's events; give how many lost something. No bill changes.

        Needs the secret key, or the widget owner's access token. What arrives later is not covered: call it again.

        Raises:
            Refused: the widget is unknown, or not yours (status 403).
        """
        arguments = {"widget_id": str(widget_id), "session_id": session_id}
        return int(self._transport.call("erase_widget_session", lambda: arguments)["erased"])

    def cleanup_runs(self, *, limit: int = 20) -> list[CleanupRun]:
        """Give the latest runs of the cleanup, the latest first. Needs the secret key."""
        runs = self._rows(
            model=CleanupRun,
            relation="widget_cleanup_runs",
            key=("started_at desc", "id desc"),
            paging=Paging.POSITION,
            most=limit,
        )
        return list(runs)

    def open_calls(self) -> int:
        """Count the calls that have not ended."""
        from postgrest import CountMethod  # noqa: PLC0415 (with supabase, when a client is made)

        answer = self._transport.respond(
            lambda api: (
                api.from_("widget_calls").select("call_id", count=CountMethod.exact).is_("ended_at", None).limit(1)
            )
        )
        # Such as 0-0/17.
        return int(answer.headers["content-range"].rpartition("/")[2])

    def refusals(self, *, since: datetime) -> Iterator[Refusal]:
        """Yield what the door refused, by hour, from the hour that ``since`` lies in."""
        hour = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        return self._rows(
            model=Refusal,
            relation="widget_refusals",
            where=(("hour", "gte", hour.isoformat()),),
            key=("hour", "widget_id", "reason", "detail"),
            paging=Paging.POSITION,
        )

    def rates(self, *, since: datetime) -> list[Rates]:
        """Tell how well tracking has gone since the hour that ``since`` lies in: all widgets together, then each."""
        rates = self._rows(
            model=Rates,
            relation="widget_rates",
            arguments={"since": since.isoformat()},
            key=("widget_id nulls first",),
            paging=Paging.POSITION,
        )
        return list(rates)

    def reconciliation(self, period: Period) -> list[Reconciliation]:
        """Tell what call providers carried in a period beside what is billed. Needs the secret key."""
        rows = self._rows(
            model=Reconciliation,
            relation="widget_reconciliation",
            arguments=bounds(period.start, period.end),
            key=("provider", "widget_id"),
            paging=Paging.POSITION,
        )
        return list(rows)

    def alarms(self, thresholds: Thresholds | None = None) -> list[Alarm]:
        """Return what is wrong, by the database's clock and counts of the last 24 hours. Needs the secret key."""
        limits = thresholds or Thresholds()
        arguments = {
            "min_delivery_rate": str(limits.min_delivery),
            "min_completion_rate": str(limits.min_completion),
            "min_cases": limits.min_cases,
        }
        alarms = self._rows(model=Alarm, relation="widget_alarms", arguments=arguments, paging=Paging.POSITION)
        return list(alarms)

    def status(self, thresholds: Thresholds | None = None) -> Status:
        """Tell how things stand: cleanup, open calls, rates, this month so far, refusals. Needs the secret key."""
        now = datetime.now(UTC)
        since, month = now - timedelta(days=1), Period.month_of(now)
        usage = list(self.usage(month))
        refusals = Counter[str]()
        for refusal in self.refusals(since=since):
            refusals[refusal.reason] += refusal.refusals
        return Status(
            at=now,
            last_run=next(iter(self.cleanup_runs(limit=1)), None),
            open_calls=self.open_calls(),
            month=month,
            month_calls=sum(one.calls for one in usage),
            month_seconds=sum((one.billable_seconds for one in usage), Decimal(0)),
            month_assumed_seconds=sum((one.assumed_seconds for one in usage), Decimal(0)),
            refusals=dict(sorted(refusals.items(), key=lambda entry: (-entry[1], entry[0]))),
            rates=next(rates for rates in self.rates(since=since) if rates.widget_id is None),
            alarms=tuple(self.alarms(thresholds)),
            months_to_close=tuple(self.months_to_close()),
            pending=tuple(self.pending_months()),
        )


def _to_send(batch: list[Item]) -> dict[str, Any]:
    return {"events": [one.to_send() for one in batch]}
