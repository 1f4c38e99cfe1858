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
        target = Target(
            api_url=stack.api_url,
            key=stack.publishable_key,
            database_url=stack.database.url_of(GATEWAY_LOGIN),
            widgets=Widgets(
                open=(_widget(db), _widget(db, "*")),
                closed=(_widget(db, is_active=False), _widget(db, "other.example")),
            ),
        )
        yield Stage(stack, db, target)


def _widget(db: psycopg.Connection[Any], *hosts: str, is_active: bool = True) -> UUID:
    row = db.execute(
        "insert into public.widgets (allowed_domains, is_active) values (%s, %s) returning id",
        [list(hosts) or ["shop.example"], is_active],
    ).fetchone()
    assert row is not None
    widget_id: UUID = row[0]
    return widget_id
