"""The company's books over the API: months to close, corrections, records, plans, widgets and their customers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from widget_analytics._paging import array_literal
from widget_analytics._queries import Paging, bounds
from widget_analytics._reader import Reader
from widget_analytics._rest import RestTransport
from widget_analytics._uuid7 import uuid7
from widget_analytics.book_models import Closing, KnownCall, MonthToClose, PendingMonth, Plan, Recorded
from widget_analytics.models import Charge, Usage, read_as
from widget_analytics.periods import Period


class Books(Reader):
    """Reads bills, and writes what they rest on. Writing needs the secret key, and may be repeated."""

    def __init__(self, transport: RestTransport) -> None:
        super().__init__(transport)
        self._transport = transport

    def months_to_close(self) -> list[MonthToClose]:
        """Give the months that are over and wait to be closed, the earliest first. Needs the secret key."""
        months = self._rows(model=MonthToClose, relation="widget_months_to_close", arguments={}, key=("month",))
        return list(months)

    def statement_preview(self, month: str) -> list[Charge]:
        """Give the charges that closing a month, such as ``2026-10``, would write now.

        Raises:
            Refused: the month is closed.
        """
        charges = self._rows(
            model=Charge,
            relation="widget_statement_preview",
            arguments={"period": month},
            key=("widget_id", "usage_period"),
            paging=Paging.KEY,
        )
        return list(charges)

    def close_month(self, month: str) -> Closing:
        """Write a month's statement, such as ``2026-10``, which nothing changes any more. Closed already: no change.

        Raises:
            Refused: the month is not over, or an earlier one is open.
        """
        return next(self._rows(model=Closing, relation="close_widget_billing_period", arguments={"period": month}))

    def schedule_closing(self, after: timedelta | None) -> None:
        """Have months closed by themselves so long after their end, seven days at least; None: no more."""
        wanted = None if after is None else f"{after.total_seconds():f} seconds"
        self._transport.call("schedule_widget_closing", lambda: {"after": wanted})

    def pending_months(self) -> Iterator[PendingMonth]:
        """Yield what late arrivals changed in closed months and no statement shows yet, month by month."""
        calls, seconds = defaultdict[date, int](int), defaultdict[date, Decimal](Decimal)
        for call in self.pending_adjustments():
            calls[call.usage_period] += 1
            seconds[call.usage_period] += call.difference_seconds
        for month in sorted(calls):
            of_month = self.billing_month(f"{month:%Y-%m}")
            amounts = defaultdict[str, Decimal](Decimal)
            for usage in self.usage(Period(of_month.period_start, of_month.period_end)):
                if usage.pending_calls and usage.pending_amount is not None and usage.currency:
                    amounts[usage.currency] += usage.pending_amount
            yield PendingMonth(month=month, calls=calls[month], seconds=seconds[month], amounts=dict(amounts))

    def draft_usage(self, period: Period, plan: Mapping[str, Any]) -> list[Usage]:
        """Rate the period's calls, as they are now, by a draft of a plan in place of each widget's own.

        Args:
            period: when the calls started.
            plan: columns of ``widget_plans``; price_per_minute and currency at least.
        """
        arguments = bounds(period.start, period.end) | {"what_if": dict(plan)}
        usage = self._rows(
            model=Usage, relation="widget_billing_usage", arguments=arguments, key=("widget_id",), paging=Paging.KEY
        )
        return list(usage)

    def find_calls(self, widget_id: UUID, call_id: str, session_id: str | None = None) -> list[KnownCall]:
        """Give the widget's calls of that name, of one session or of any."""
        where = [("widget_id", "eq", str(widget_id)), ("call_id", "eq(any)", array_literal(call_id))]
        if session_id is not None:
            where.append(("session_id", "eq(any)", array_literal(session_id)))
        calls = self._rows(model=KnownCall, relation="widget_calls", where=tuple(where), key=("started_at desc",))
        return list(calls)

    def correct_call(self, call: KnownCall, *, duration_seconds: Decimal, reason: str, corrected_by: str) -> KnownCall:
        """Set how long a call was, whatever else is said of it; 0 voids it. The latest correction counts."""
        arguments = {
            "widget_id": str(call.widget_id),
            "session_id": call.session_id,
            "call_id": call.call_id,
            "duration_seconds": f"{duration_seconds:f}",
            "reason": reason,
            "corrected_by": corrected_by,
        }
        return read_as(KnownCall, _known(self._transport.call("correct_widget_call", lambda: arguments)))

    def record_call(
        self,
        widget_id: UUID,
        session_id: str,
        call_id: str,
        *,
        source: str,
        record_id: str,
        started_at: datetime | None = None,
        ended_at: datetime | None = None,
        has_failed: bool = False,
    ) -> Recorded:
        """Add what your server or the call provider (``source``) knows of a call. Sent again, it changes nothing.

        Raises:
            Refused: a field is wrong, or another session of the widget knows that call; ``reason`` names it.
        """
        arguments = {
            "widget_id": str(widget_id),
            "session_id": session_id,
            "call_id": call_id,
            "source": source,
            "record_id": record_id,
            "started_at": started_at and started_at.isoformat(),
            "ended_at": ended_at and ended_at.isoformat(),
            "outcome": "failed" if has_failed else "completed",
        }
        answer = self._transport.call("record_widget_call_evidence", lambda: arguments)
        return read_as(Recorded, answer | {"call": answer["call"] and _known(answer["call"])})

    def plans(self) -> list[Plan]:
        """Give all plans, by widget and first month."""
        plans = self._rows(model=Plan, relation="widget_plans", key=("widget_id", "valid_from"), paging=Paging.KEY)
        return list(plans)

    def set_plan(self, plan: Plan) -> None:
        """Have a plan hold from its month on; one of the same widget and month is replaced.

        Raises:
            Refused: a closed month was billed by what held then.
        """
        row = {name: _text(getattr(plan, name)) for name in plan.columns()}
        self._upsert("widget_plans", row, "widget_id,valid_from")

    def user_ids(self, email: str) -> list[UUID]:
        """Give the project's users of an e-mail address, letters' case aside; several only with single sign-on."""
        return [UUID(one) for one in self._transport.call("widget_user_ids", lambda: {"email": email})]

    def add_widget(self, name: str, **columns: Any) -> UUID:
        """Add a widget, and give its id."""
        widget_id = uuid7()
        self._upsert("widgets", {"id": str(widget_id), "name": name, **columns}, "id")
        return widget_id

    def change_widget(self, widget_id: UUID, **columns: Any) -> None:
        """Change columns of a widget."""
        self._transport.answer(lambda api: api.from_("widgets").update(columns).eq("id", str(widget_id)))

    def set_customer(self, widget_id: UUID, reference: str | None) -> None:
        """Say whom a widget is billed to: your own customer number; None for nobody."""
        if reference is None:
            self._transport.answer(lambda api: api.from_("widget_customers").delete().eq("widget_id", str(widget_id)))
        else:
            self._upsert("widget_customers", {"widget_id": str(widget_id), "reference": reference}, "widget_id")

    def _upsert(self, table: str, row: Mapping[str, Any], key: str) -> None:
        self._transport.answer(lambda api: api.from_(table).upsert(dict(row), on_conflict=key))


def _known(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in KnownCall.columns()}


def _text(value: object) -> object:
    # As text, a number keeps its digits.
    return value if isinstance(value, bool | int) else str(value)
