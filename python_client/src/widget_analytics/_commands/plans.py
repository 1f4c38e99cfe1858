"""``plan set``, ``plan show`` and ``what-if``: what calls cost, and what they would cost."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Self

import typer

from widget_analytics._commands.asking import DryRun, Yes, goes_ahead
from widget_analytics._commands.finding import WidgetOption, WidgetsOption, find_ids, find_widget
from widget_analytics._commands.tables import Sums, assumed_share, money, number, plain, price, table
from widget_analytics._exit import one_line_errors
from widget_analytics._labels import label, names_of
from widget_analytics._options import first_of
from widget_analytics.book_models import Plan
from widget_analytics.client import WidgetAnalytics
from widget_analytics.errors import InputError, UsageError
from widget_analytics.models import Usage, Widget
from widget_analytics.periods import Period

# As a column of widget_plans holds.
_MOST_SECONDS = 2**31 - 1

plan = typer.Typer(help="Set and show what a widget's calls cost.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.add_typer(plan, name="plan")
    app.command(name="what-if")(what_if)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """A draft of a plan: columns of ``widget_plans``."""

    price_per_minute: Decimal
    currency: str
    name: str = "Standard"
    monthly_fee: Decimal = Decimal(0)
    included_seconds: int = 0
    minimum_seconds: int = 0
    increment_seconds: int = 0
    bills_failed_calls: bool = False
    assumed_calls: str = "full"

    @classmethod
    def read(cls, given: Mapping[str, Any], where: str) -> Self:
        """Read them, as text or as JSON has them.

        Raises:
            UsageError: a column is missing, unknown, or cannot be so.
        """
        known = {column.name: column for column in fields(cls)}
        for name in given:
            if name not in known:
                raise UsageError(f"{where}: a plan has no {name!r}; it has {', '.join(known)}")
        for name, column in known.items():
            if column.default is MISSING and given.get(name) is None:
                raise UsageError(f"{where}: a plan needs {name}")
        read: dict[str, Any] = {
            name: _READERS[str(known[name].type)](name, value, where) for name, value in given.items()
        }
        return cls(**read)

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """Read a file of JSON.

        Raises:
            InputError: it cannot be read.
            UsageError: it is no plan.
        """
        try:
            content = json.loads(path.read_bytes(), parse_float=Decimal)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise InputError(f"{path} is no JSON: {error}") from error
        if not isinstance(content, dict):
            raise InputError(f'{path} must hold an object, such as {{"price_per_minute": 0.10, "currency": "EUR"}}')
        return cls.read(content, str(path))

    def to_json(self) -> dict[str, Any]:
        """Write them for the API: a number as text keeps its digits."""
        return {name: str(value) if isinstance(value, Decimal) else value for name, value in vars(self).items()}

    def sentence(self) -> str:
        """Tell them in a line."""
        parts = [f"{price(self.price_per_minute, self.currency)} a minute"]
        parts += [f"{price(self.monthly_fee, self.currency)} a month"] if self.monthly_fee else []
        parts += [f"{self.included_seconds:,} s included"] if self.included_seconds else []
        parts += [f"at least {self.minimum_seconds:,} s a call"] if self.minimum_seconds else []
        parts += [f"in steps of {self.increment_seconds:,} s"] if self.increment_seconds else []
        parts += ["failed calls too"] if self.bills_failed_calls else []
        parts += [f"assumed ends: {self.assumed_calls}"] if self.assumed_calls != "full" else []
        return ", ".join(parts)


@plan.command(name="set")
def set_plan(
    widget: WidgetOption,
    start: Annotated[str, typer.Option("--from", metavar="YYYY-MM", help="The first month that it holds for.")],
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Terms as JSON, as `what-if` takes them; options go before.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="What the plan is called.")] = None,
    per_minute: Annotated[str | None, typer.Option("--price", metavar="AMOUNT", help="Price of a minute.")] = None,
    currency: Annotated[str | None, typer.Option(metavar="EUR", help="ISO 4217.")] = None,
    fee: Annotated[str | None, typer.Option(metavar="AMOUNT", help="Due once a month, with calls or without.")] = None,
    included: Annotated[
        int | None, typer.Option(metavar="SECONDS", min=0, help="So many of a month's seconds cost nothing.")
    ] = None,
    minimum: Annotated[
        int | None, typer.Option(metavar="SECONDS", min=0, help="A billed call counts at least this.")
    ] = None,
    increment: Annotated[
        int | None, typer.Option(metavar="SECONDS", min=0, help="Then it is rounded up to a multiple of this.")
    ] = None,
    failed: Annotated[bool | None, typer.Option("--failed/--no-failed", help="Failed calls are billed, too.")] = None,
    assumed: Annotated[
        str | None,
        typer.Option(metavar="full|none|SECONDS", help="Calls whose end is assumed: how much is billed."),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Have a plan hold for a widget from a month on, until its next plan.

    What is left out is as in FILE, else as in the plan that holds by then, else 0. Shows what the month's bill becomes.
    """
    given = {
        "name": name,
        "price_per_minute": per_minute,
        "currency": currency,
        "monthly_fee": fee,
        "included_seconds": included,
        "minimum_seconds": minimum,
        "increment_seconds": increment,
        "bills_failed_calls": failed,
        "assumed_calls": assumed,
    }
    with one_line_errors():
        month = first_of(start)
        terms = None if file is None else Terms.of_file(file)
        with WidgetAnalytics() as client:
            found = find_widget(client, widget)
            before = _plan_of(client.plans(), found, month)
            base = vars(terms) if terms else _terms(before).to_json() if before else {}
            wanted = {column: value for column, value in given.items() if value is not None}
            new = Terms.read(dict(base) | wanted, "plan set")
            made = Plan(widget_id=found.id, valid_from=month, **vars(new))
            lines = list(_plan_lines(client, found, before, made, new))
            if goes_ahead(lines, "Set this plan?", dry_run=dry_run, yes=yes):
                client.set_plan(made)
                typer.echo(f"{plain(found.name) or found.id}: {plain(new.name)} holds from {start}")


def _plan_lines(
    client: WidgetAnalytics, widget: Widget, before: Plan | None, made: Plan, terms: Terms
) -> Iterator[str]:
    month = f"{made.valid_from:%Y-%m}"
    yield f"{plain(widget.name) or widget.id} from {month}"
    old = f"{before.name} from {before.valid_from:%Y-%m}: {_terms(before).sentence()}" if before else "no plan"
    replaced = " (is replaced)" if before and before.valid_from == made.valid_from else ""
    yield f"  now      {plain(old)}{replaced}"
    yield f"  will be  {plain(terms.name)}: {terms.sentence()}"
    bounds = client.billing_month(month)
    if bounds.period_start < datetime.now(UTC):
        period = Period(bounds.period_start, bounds.period_end)
        was = next((one for one in client.usage(period, widgets=[widget.id])), None)
        will = next((one for one in client.draft_usage(period, terms.to_json()) if one.widget_id == widget.id), None)
        yield f"  {month}  {_amount(was)} -> {_amount(will)}"


def _amount(usage: Usage | None) -> str:
    return money(usage.amount, usage.currency) if usage and usage.amount is not None else "no amount"


@plan.command(name="show")
def show_plans(
    widget: WidgetsOption = None,
) -> None:
    """Show the plans, each with the first month that it holds for."""
    with one_line_errors(), WidgetAnalytics() as client:
        wanted = find_ids(client, widget)
        names = names_of(client)
        rows = [
            (
                label(names, one.widget_id),
                f"{one.valid_from:%Y-%m}",
                one.name,
                _terms(one).sentence(),
            )
            for one in client.plans()
            if wanted is None or one.widget_id in wanted
        ]
        rows.sort()
        for line in table(("widget", "from", "plan", "terms"), rows, left=4) if rows else ["there is no plan"]:
            typer.echo(line)


def what_if(
    file: Annotated[Path, typer.Argument(metavar="PLAN.json", help="A draft: an object with columns of widget_plans.")],
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="The month whose calls are rated.")],
    widget: WidgetsOption = None,
) -> None:
    """Rate a month's real calls by a draft of a plan: each customer's bill before and after. Nothing is stored.

    The draft holds for each widget in place of its own plan. Before: what a closed month charged, an open one as it is.
    """
    with one_line_errors():
        first_of(month)
        terms = Terms.of_file(file)
        with WidgetAnalytics() as client:
            bounds = client.billing_month(month)
            period = Period(bounds.period_start, bounds.period_end)
            wanted = find_ids(client, widget)
            before = {usage.widget_id: usage for usage in client.usage(period, widgets=wanted)}
            after = {
                usage.widget_id: usage
                for usage in client.draft_usage(period, terms.to_json())
                if wanted is None or usage.widget_id in wanted
            }
            typer.echo(f"{month} by {plain(terms.name)}: {terms.sentence()}")
            shares = [assumed_share(usages.values()) for usages in (before, after)]
            typer.echo(f"assumed ends: {shares[0]} of the billable seconds, by the draft {shares[1]}")
            for line in _before_and_after(before.values(), after.values(), names_of(client)):
                typer.echo(line)


def _before_and_after(before: Iterable[Usage], after: Iterable[Usage], widgets: dict[str, Widget]) -> Iterator[str]:
    bills = defaultdict[str, tuple[Sums, Sums]](lambda: (Sums(), Sums()))
    seconds = defaultdict[str, list[Decimal]](lambda: [Decimal(0), Decimal(0)])
    total = (Sums(), Sums())
    for place, usages in enumerate((before, after)):
        for usage in usages:
            widget = widgets.get(str(usage.widget_id))
            customer = (widget and (widget.customer_reference or widget.name)) or str(usage.widget_id)
            seconds[customer][place] += usage.billable_seconds
            bills[customer][place].add(usage.amount, usage.currency)
            total[place].add(usage.amount, usage.currency)
    rows = [
        (customer, *map(number, seconds[customer]), *map(str, bills[customer]), _difference(*bills[customer]))
        for customer in sorted(bills)
    ]
    rows.append(("all", *(number(sum((s[place] for s in seconds.values()), Decimal(0))) for place in (0, 1)),
                 *map(str, total), _difference(*total)))  # fmt: skip
    yield from table(("customer", "seconds", "by the draft", "amount", "by the draft", "difference"), rows)


def _difference(before: Sums, after: Sums) -> str:
    difference = Sums()
    for currency, amount in after.amounts.items():
        difference.add(amount, currency)
    for currency, amount in before.amounts.items():
        difference.add(-amount, currency)
    return str(difference)


def _plan_of(plans: Iterable[Plan], widget: Widget, month: date) -> Plan | None:
    held = [one for one in plans if one.widget_id == widget.id and one.valid_from <= month]
    return max(held, key=lambda one: one.valid_from, default=None)


def _terms(plan: Plan) -> Terms:
    return Terms(**{column.name: getattr(plan, column.name) for column in fields(Terms)})


def _decimal(name: str, value: Any, where: str) -> Decimal:
    try:
        if isinstance(value, bool):
            raise InvalidOperation
        read = Decimal(str(value))
    except InvalidOperation:
        raise UsageError(f"{where}: {name} must be a number, not {value!r}") from None
    if not read.is_finite() or read < 0:
        raise UsageError(f"{where}: {name} must be 0 or more, not {value}")
    return read


def _whole(name: str, value: Any, where: str) -> int:
    read = _decimal(name, value, where)
    if read > _MOST_SECONDS:
        raise UsageError(f"{where}: {name} must be at most {_MOST_SECONDS}, not {value}")
    if read % 1:
        raise UsageError(f"{where}: {name} must be whole seconds, not {value}")
    return int(read)


def _word(name: str, value: Any, where: str) -> str:
    if name == "assumed_calls":
        value = str(value)
        if value not in ("full", "none") and not (value.isdecimal() and 0 < int(value) < 10_000_000):  # noqa: PLR2004
            raise UsageError(f"{where}: {name} must be full, none or a number of seconds, not {value!r}")
    elif not isinstance(value, str) or not value.isprintable() or not value:
        raise UsageError(f"{where}: {name} must be a line of text, not {value!r}")
    elif name == "currency" and not (value.isascii() and value.isalpha() and value.isupper() and len(value) == 3):  # noqa: PLR2004
        raise UsageError(f"{where}: currency must be three capital letters, such as EUR, not {value!r}")
    return str(value)


def _truth(name: str, value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{where}: {name} must be true or false, not {value!r}")
    return value


_READERS: dict[str, Callable[[str, Any, str], object]] = {
    "Decimal": _decimal,
    "int": _whole,
    "str": _word,
    "bool": _truth,
}
