"""A stack of its own to send at: open and closed widgets, and no cleanup in between."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from local_stack.stack import GATEWAY_LOGIN, Stack
from tests.fuzz.inputs import Widgets
from tests.fuzz.senders import Target


@dataclass(frozen=True)
class Stage:
    stack: Stack
    db: psycopg.Connection[Any]
    target: Target

    def stored(self) -> int:
        """The events of the target's widgets."""
        widgets = [*self.target.widgets.open, *self.target.widgets.closed]
        row = self.db.execute(
            "select count(*) from public.widget_analytics where widget_id = any(%s)", [widgets]
        ).fetchone()
        assert row is not None
        return int(row[0])


@contextmanager
def stage(stack: Stack) -> Iterator[Stage]:
    with psycopg.connect(stack.database_url, autocommit=True) as db:
        # A 429 is another matter: here every good event must be taken.
        db.execute("update widget_internal.settings set events_per_sender_per_minute = null")
        target = Target(
            api_url=stack.api_url,
            key=stack.publishable_key,
            database_url=stack.database.url_of(GATEWAY_LOGIN),
            widgets=Widgets(
                open=(_widget(db), _widget(db, "*")),
                closed=(_widget(db, is_active=False), _widget(db, "other.example")),
            ),
        )
        try:
            yield Stage(stack, db, target)
        finally:
            db.execute("update widget_internal.settings set events_per_sender_per_minute = default")


def _widget(db: psycopg.Connection[Any], *hosts: str, is_active: bool = True) -> UUID:
    row = db.execute(
        "insert into public.widgets (allowed_domains, is_active) values (%s, %s) returning id",
        [list(hosts) or ["shop.example"], is_active],
    ).fetchone()
    assert row is not None
    widget_id: UUID = row[0]
    db.execute("insert into public.widget_quotas (widget_id, events_per_day) values (%s, null)", [widget_id])
    return widget_id
