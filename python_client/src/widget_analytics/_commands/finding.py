"""Finds the widget that a person means, by name or id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Annotated
from uuid import UUID

import typer

from widget_analytics._commands.tables import plain
from widget_analytics._reader import Reader
from widget_analytics._report_month import Scope
from widget_analytics.errors import UsageError
from widget_analytics.models import Widget

WidgetOption = Annotated[str, typer.Option("--widget", metavar="NAME|ID", help="Which widget.")]
WidgetsOption = Annotated[
    list[str] | None,
    typer.Option("--widget", metavar="NAME|ID", help="Only this widget; may be repeated. All by default."),
]

_MOST_NAMED = 10


def find_widget(reader: Reader, text: str, option: str = "--widget") -> Widget:
    """Give the widget of that id or name; letters' case does not matter where only one is called so.

    Raises:
        UsageError: there is none, or there are several.
    """
    return _find(list(reader.widgets()), text, option)


def find_ids(reader: Reader, texts: Sequence[str] | None) -> list[UUID] | None:
    """Give the ids of the widgets meant; None for all. An id is taken as it is."""
    if not texts:
        return None
    widgets: list[Widget] | None = None
    ids = []
    for text in texts:
        widget_id = as_id(text)
        if widget_id is None:
            widgets = list(reader.widgets()) if widgets is None else widgets
            widget_id = _find(widgets, text, "--widget").id
        ids.append(widget_id)
    return ids


def find_scope(reader: Reader, customer: str | None, owner: str | None, widgets: Sequence[str] | None) -> Scope | None:
    """Say whose page a report is; None for all.

    Raises:
        UsageError: nobody is called so, or more than one of these is given.
    """
    if sum(bool(given) for given in (customer, owner, widgets)) > 1:
        raise UsageError("a page is of one of these: --customer, --owner or --widget")
    if widgets:
        found = [find_widget(reader, text) for text in widgets]
        return Scope(", ".join(widget.name or str(widget.id) for widget in found), frozenset(one.id for one in found))
    if customer is not None:
        return _scope(reader, "--customer", customer, lambda widget: [widget.customer_reference])
    if owner is not None:
        return _scope(reader, "--owner", owner, lambda widget: [widget.owner_email, str(widget.owner_id or "")])
    return None


def _scope(reader: Reader, option: str, text: str, called: Callable[[Widget], list[str | None]]) -> Scope:
    widgets = list(reader.widgets())
    found = frozenset(widget.id for widget in widgets if text in called(widget))
    if not found:
        there_are = sorted({name for widget in widgets if (name := called(widget)[0])})
        named = ", ".join(map(plain, there_are[:_MOST_NAMED])) or "none; `widget set` names one"
        raise UsageError(f"{option}: no widget has {text!r}; there are: {named}")
    return Scope(f"Customer {text}" if option == "--customer" else text, found)


def as_id(text: str) -> UUID | None:
    """Read an id; None where it is none."""
    with suppress(ValueError):
        return UUID(text)
    return None


def _find(widgets: list[Widget], text: str, option: str) -> Widget:
    widget_id = as_id(text)
    found = [widget for widget in widgets if widget_id in (None, widget.id) and (widget_id or widget.name == text)]
    if not found and not widget_id:
        found = [widget for widget in widgets if widget.name.casefold() == text.casefold()]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{option}: {len(found)} widgets are called {text!r}, give the id: {_named(found)}")
    names = {widget.name.casefold(): widget for widget in widgets if widget.name}
    near = [names[name] for name in get_close_matches(text.casefold(), names, n=3)]
    if near:
        raise UsageError(f"{option}: no widget is called {text!r}; do you mean {_named(near)}?")
    there_are = _named(widgets) if widgets else "none; `widget add` makes one"
    raise UsageError(f"{option}: there is no widget {text!r}; there are: {there_are}")


def _named(widgets: list[Widget]) -> str:
    more = f" and {len(widgets) - _MOST_NAMED:,} more, see `widget list`" if len(widgets) > _MOST_NAMED else ""
    return ", ".join(f"{plain(widget.name)!r} ({widget.id})" for widget in widgets[:_MOST_NAMED]) + more
