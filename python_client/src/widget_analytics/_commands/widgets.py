"""``widget add``, ``widget list`` and ``widget set``: what is embedded where, and whom it is billed to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

import idna
import typer

from widget_analytics._commands.asking import DryRun, Yes, goes_ahead
from widget_analytics._commands.finding import as_id, find_widget
from widget_analytics._commands.tables import plain, table
from widget_analytics._exit import one_line_errors
from widget_analytics.client import WidgetAnalytics
from widget_analytics.errors import UsageError
from widget_analytics.models import Widget

widget = typer.Typer(help="Add, list and change widgets.", no_args_is_help=True)

Domains = Annotated[
    list[str] | None,
    typer.Option(
        "--domain", metavar="HOST", help="A host whose pages may use it; *.HOST its subdomains, * any. May be repeated."
    ),
]
Customer = Annotated[
    str | None, typer.Option(metavar="REF", help="Your own customer number: whom it is billed to; '' for nobody.")
]
Owner = Annotated[
    str | None,
    typer.Option(metavar="ID|EMAIL", help="The user who sees its usage, by id or e-mail address."),
]

_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\]")
_MOST_LETTERS = 100


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.add_typer(widget, name="widget")


def host_of(text: str) -> str:
    """Read a host as the database compares it with a page's: letters small, international names in punycode.

    Raises:
        UsageError: it is something else; says what to leave out.
    """
    host = text.strip().lower()
    _, has_scheme, rest = host.partition("://")
    if has_scheme:
        bare = re.split(r"[/?#:]", rest, maxsplit=1)[0]
        raise UsageError(f"--domain: {text!r} has a scheme; a host alone is meant, {bare!r} (http and https alike)")
    if re.search(r"[/?#]", host):
        bare = re.split(r"[/?#:]", host, maxsplit=1)[0]
        raise UsageError(f"--domain: {text!r} has a path; all pages of a host may use it: {bare!r}")
    name, has_port, port = host.rpartition(":")
    if has_port and port.isdecimal() and not name.endswith(":") and (":" not in name or name.endswith("]")):
        raise UsageError(f"--domain: {text!r} has a port; a host alone is meant, {name!r}, on any port")
    star, name = ("*.", host[2:]) if host.startswith("*.") else ("", host)
    if not name.isascii():
        try:
            host = star + idna.encode(name, uts46=True).decode()
        except idna.IDNAError as error:
            raise UsageError(f"--domain: {text!r} is no host ({error})") from None
    if host != "*" and not _HOST.fullmatch(host):
        raise UsageError(f"--domain: {text!r} is no host; write it as shop.example, *.shop.example, localhost or *")
    return host


@widget.command(name="add")
def add_widget(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people call it.")],
    domain: Domains = None,
    customer: Customer = None,
    owner: Owner = None,
    demo: Annotated[bool, typer.Option("--demo", help="Its events are taken and not stored.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Add a widget, and print its id, which the page's snippet names."""
    with one_line_errors():
        hosts = [host_of(text) for text in domain or []]
        _check_line("NAME", name)
        if customer:
            _check_line("--customer", customer)
        with WidgetAnalytics() as client:
            others = list(client.widgets())
            columns: dict[str, Any] = {"allowed_domains": hosts, "is_demo": demo}
            if owner:
                columns["owner_id"] = str(_owner(client, owner))
            lines = [f"widget {plain(name)}", f"  domains   {_hosts(hosts)}", f"  customer  {plain(customer or '-')}"]
            if any(other.name == name for other in others):
                lines.append("  another widget is called so: commands will need their ids")
            if goes_ahead(lines, "Add it?", dry_run=dry_run, yes=yes):
                widget_id = client.add_widget(name, **columns)
                if customer:
                    client.set_customer(widget_id, customer)
                typer.echo(f"{widget_id}")


@widget.command(name="list")
def list_widgets(
    customer: Annotated[str | None, typer.Option(metavar="REF", help="Only this customer's.")] = None,
) -> None:
    """List the widgets with their customers, owners and domains."""
    with one_line_errors(), WidgetAnalytics() as client:
        rows = sorted(
            (
                one.name,
                one.customer_reference or "-",
                one.owner_email or str(one.owner_id or "-"),
                _hosts(one.allowed_domains),
                "demo" if one.is_demo else "active" if one.is_active else "inactive",
                str(one.id),
            )
            for one in client.widgets()
            if customer is None or one.customer_reference == customer
        )
        head = ("name", "customer", "owner", "domains", "state", "id")
        none = "there is no widget; `widget add` makes one"
        if customer is not None:
            none = f"no widget has the customer {customer!r}"
        for line in table(head, rows, left=6) if rows else [none]:
            typer.echo(line)


@widget.command(name="set")
def set_widget(
    which: Annotated[str, typer.Argument(metavar="NAME|ID", help="Which widget.")],
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="What people call it from now on.")] = None,
    domain: Domains = None,
    customer: Customer = None,
    owner: Owner = None,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Whether its events are taken.")] = None,
    demo: Annotated[bool | None, typer.Option("--demo/--no-demo", help="Its events are taken and not stored.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Change a widget. The domains given take the place of all that it has."""
    with one_line_errors():
        hosts = None if domain is None else [host_of(text) for text in domain]
        if customer:
            _check_line("--customer", customer)
        with WidgetAnalytics() as client:
            found = find_widget(client, which, "NAME")
            columns: dict[str, Any] = {
                "name": None if name is None else _check_line("--name", name),
                "allowed_domains": hosts,
                "owner_id": None if owner is None else str(_owner(client, owner)),
                "is_active": active,
                "is_demo": demo,
            }
            columns = {column: value for column, value in columns.items() if value is not None}
            if not columns and customer is None:
                raise UsageError("say what to change: --name, --domain, --customer, --owner, --active or --demo")
            lines = _change_lines(found, columns, customer)
            if goes_ahead(lines, "Change it?", dry_run=dry_run, yes=yes):
                if columns:
                    client.change_widget(found.id, **columns)
                if customer is not None:
                    client.set_customer(found.id, customer or None)
                typer.echo(f"{plain(str(columns.get('name', found.name))) or found.id} was changed")


def _change_lines(found: Widget, columns: dict[str, Any], customer: str | None) -> list[str]:
    lines = [f"widget {plain(found.name) or found.id}"]
    for column, value in columns.items():
        is_list = column == "allowed_domains"
        was = getattr(found, column)
        lines.append(
            f"  {column.replace('_', ' ')}: {_hosts(was) if is_list else plain(str(was))}"
            f" -> {_hosts(value) if is_list else plain(str(value))}"
        )
    if customer is not None:
        lines.append(f"  customer: {plain(found.customer_reference or '-')} -> {plain(customer or '-')}")
    return lines


def _owner(client: WidgetAnalytics, text: str) -> UUID:
    known = as_id(text)
    if known:
        return known
    found = client.user_ids(text)
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"--owner: several users have the address {text!r}, give the id: {', '.join(map(str, found))}")
    raise UsageError(
        f"--owner: no user has the address {text!r}: invite them first (Dashboard > Authentication > Users)"
    )


def _check_line(option: str, text: str) -> str:
    if not text.isprintable() or not text.strip() or len(text) > _MOST_LETTERS:
        raise UsageError(f"{option}: must be a line of 1 to {_MOST_LETTERS} letters")
    return text


def _hosts(hosts: Sequence[str]) -> str:
    return ", ".join(hosts) or "none: no page may use it"
