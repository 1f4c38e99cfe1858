"""Three owners with rows in every table, each row marked with whose it is."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_DNS, UUID, uuid5

from tests.support import Connection, record


@dataclass(frozen=True)
class Owner:
    """A signed-in user. What is marked with a mark is this owner's, and nobody else's to see."""

    user_id: UUID
    widget_ids: tuple[UUID, ...]
    marks: tuple[str, ...]


@dataclass(frozen=True)
class World:
    owners: tuple[Owner, ...]
    """The last has no widgets, and sees nothing at all."""
    months: tuple[str, ...]
    """Closed, closed, open."""

    def foreign_marks(self, to: Owner | None) -> list[str]:
        return [mark for owner in self.owners if owner is not to for mark in owner.marks]


def make_world(db: Connection) -> World:
    """Two months are closed, with adjustments; calls of this month are open, corrected, refused, erased."""
    owners = tuple(_owner(db, number, widgets=2) for number in range(3))
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    last = (month - timedelta(days=1)).replace(day=1)
    before = (last - timedelta(days=1)).replace(day=1)
    for owner in owners:
        _calls(db, owner, [before + timedelta(days=9), last + timedelta(days=9), _now() - timedelta(hours=2)])
    for closed, corrected in ((before, last), (last, month)):
        db.execute("select public.close_widget_billing_period(%s)", [f"{closed:%Y-%m}"])
        if corrected is last:
            _correct(db, owners, f"{closed:%m}")
    _correct(db, owners, f"{last:%m}")
    for owner in owners:
        for widget_id in owner.widget_ids:
            db.execute("select public.erase_widget_session(%s, %s)", [widget_id, f"{owner.marks[0]}-forgotten"])
            db.execute(
                "insert into public.widget_customers (widget_id, reference) values (%s, %s)",
                [widget_id, f"customer of {owner.marks[0]}"],
            )
        _provider(db, owner)
    db.execute(
        """
        select public.plan_widget_pushes('stripe', 'test', %s, jsonb_agg(jsonb_build_object(
          'widget_id', c.widget_id, 'usage_period', c.usage_period, 'event_id', c.widget_id || ' ' || c.usage_period,
          'customer', c.customer, 'payload', jsonb_build_object('customer', c.customer)
        )))
        from public.widget_charges_to_push c where to_char(c.period, 'YYYY-MM') = %s
        """,
        [f"{last:%Y-%m}", f"{last:%Y-%m}"],
    )
    _archive(db)
    db.execute("select public.complete_stale_sessions('1 minute')")
    db.execute("select public.refresh_widget_health()")
    return World((*owners, _owner(db, 3, widgets=0)), tuple(f"{each:%Y-%m}" for each in (before, last, month)))


def _now() -> datetime:
    return datetime.now(UTC)


def _owner(db: Connection, number: int, *, widgets: int) -> Owner:
    mark = f"secret-of-{number}"
    user_id = uuid5(NAMESPACE_DNS, f"{mark}.example")
    db.execute("insert into auth.users (id, email) values (%s, %s)", [user_id, f"{mark}@owner.example"])
    widget_ids = tuple(_widget(db, user_id, mark, each) for each in range(widgets))
    return Owner(user_id, widget_ids, (mark, str(user_id), *map(str, widget_ids)))


def _widget(db: Connection, owner_id: UUID, mark: str, number: int) -> UUID:
    widget_id = uuid5(NAMESPACE_DNS, f"{number}.{mark}.example")
    db.execute(
        "insert into public.widgets (id, owner_id, name, allowed_domains) values (%s, %s, %s, %s)",
        [widget_id, owner_id, mark, [f"{mark}.example"]],
    )
    db.execute(
        "insert into public.widget_plans (widget_id, valid_from, name, price_per_minute, currency)"
        " values (%s, '2000-01-01', %s, 0.1, 'EUR')",
        [widget_id, mark],
    )
    db.execute("insert into public.widget_quotas values (%s, 1000)", [widget_id])
    db.execute(
        "select widget_internal.count_refusals(array[(%s, 'domain_not_allowed', %s)::widget_internal.refusal])",
        [widget_id, f"{mark}.evil.example"],
    )
    return widget_id


def _calls(db: Connection, owner: Owner, starts: list[datetime]) -> None:
    mark = owner.marks[0]
    told: dict[str, Any] = {
        "page_url": f"https://{mark}.example/", "user_agent": mark, "properties": {"note": mark, "rtt_ms": 80},
    }  # fmt: skip
    for widget_id in owner.widget_ids:
        record(db, widget_id, f"{mark}-forgotten", "widget_load", starts[-1], **told)
        for start in starts:
            session = f"{mark}-{start:%m}"
            record(db, widget_id, session, "widget_load", start, **told)
            for call_id, seconds in (("x", 60), ("y", 600)):
                record(db, widget_id, session, "call_start", start, call_id=f"{mark}-{call_id}", **told)
                end = start + timedelta(seconds=seconds)
                record(db, widget_id, session, "call_end", end, call_id=f"{mark}-{call_id}", **told)
        record(db, widget_id, f"{mark}-open", "call_start", _now() - timedelta(hours=1), call_id=f"{mark}-open")
        record(db, widget_id, f"{mark}-orphan", "call_end", _now(), call_id=f"{mark}-orphan", **told)
        db.execute(
            "select public.record_widget_call_evidence(%s, %s, %s, 'provider', %s, %s, %s)",
            [widget_id, f"{mark}-open", f"{mark}-p", f"{mark}-r", _now() - timedelta(minutes=9), _now()],
        )


def _provider(db: Connection, owner: Owner) -> None:
    """An agent of the owner's, and a call that it carried and no browser told of."""
    mark = owner.marks[0]
    db.execute(
        "insert into public.widget_provider_agents (provider, agent, widget_id) values ('vapi', %s, %s)",
        [mark, owner.widget_ids[0]],
    )
    db.execute(
        "select public.record_widget_provider_call("
        "'vapi', %s, agent => %s, reason => %s, started_at => %s, ended_at => %s)",
        [f"{mark}-record", mark, mark, _now() - timedelta(minutes=5), _now()],
    )


def _correct(db: Connection, owners: tuple[Owner, ...], month: str) -> None:
    for owner in owners:
        mark = owner.marks[0]
        for widget_id in owner.widget_ids:
            db.execute(
                "select public.correct_widget_call(%s, %s, %s, 5, %s, %s)",
                [widget_id, f"{mark}-{month}", f"{mark}-x", f"{mark} asked", f"clerk of {mark}"],
            )


def _archive(db: Connection) -> None:
    """A closed month whose events are about to move."""
    db.execute(
        "insert into public.widget_archives (month, place, events_before, as_of)"
        " select p.period, '/archive', p.period_end, p.as_of from public.widget_billing_periods p limit 1"
    )
