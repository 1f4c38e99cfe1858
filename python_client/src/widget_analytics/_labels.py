"""What an export adds to the database's columns: the names that people know a widget by, and the period.

Names are those of the moment of the export. What they label is the database's own, row by row.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import suppress
from dataclasses import make_dataclass
from datetime import date
from functools import cache

from widget_analytics._lines import quoted, utc
from widget_analytics._reader import Reader
from widget_analytics.book_models import PendingAdjustment
from widget_analytics.errors import NotMigrated, Refused, WrongKey
from widget_analytics.models import Widget, _Row
from widget_analytics.periods import Period

#: Those that may change after an export.
NAMES = {
    "widget_name": "str | None",
    "customer_reference": "str | None",
    "owner_id": "UUID | None",
    "owner_email": "str | None",
}
_PERIOD = {"period_start": "Instant", "period_end": "Instant"}
_CLOSED = "is_closed"


@cache
def file_model(model: type[_Row]) -> type[_Row]:
    """Give the columns of a file of such rows: names, period, whether it is closed, and the database's columns."""
    columns = NAMES | _PERIOD | ({} if _CLOSED in model.columns() else {_CLOSED: "bool"}) | model.annotations()
    return make_dataclass(f"Exported{model.__name__}", columns.items(), bases=(_Row,), kw_only=True)


def names_of(reader: Reader) -> dict[str, Widget]:
    """Give the widgets by id; none where the project's own table of widgets may not be read, and ids must do."""
    with suppress(NotMigrated, Refused, WrongKey):
        return {str(widget.id): widget for widget in reader.widgets()}
    return {}


class Labels:
    """The cells that stand before each line of the database's.

    Args:
        model: what the lines are.
        widgets: by id.
        period: of all lines.
        is_closed: whether they are of a closed month, where their own columns do not say.
        month: the one whose next statement pending adjustments would stand on.
    """

    def __init__(
        self, model: type[_Row], widgets: dict[str, Widget], period: Period, *, is_closed: bool, month: date | None
    ) -> None:
        columns = model.columns()
        self._place = columns.index("widget_id")
        self._widgets = widgets
        self._common = [utc(period.start), utc(period.end)]
        self._last = [] if _CLOSED in columns else [str(is_closed).lower()]
        if model is PendingAdjustment and month:
            self._last.append(month.isoformat())
        self._known: dict[bytes, bytes] = {}

    def add(self, batches: Iterable[list[bytes]]) -> Generator[list[bytes], None, None]:
        """Label lines, many at a time."""
        place, known = self._place, self._known
        for batch in batches:
            labelled = []
            for line in batch:
                widget_id = line.split(b",", place + 1)[place]
                prefix = known.get(widget_id) or self._prefix(widget_id)
                labelled.append(prefix + line)
            yield labelled

    def _prefix(self, widget_id: bytes) -> bytes:
        widget = self._widgets.get(widget_id.decode())
        names = [widget.name, widget.customer_reference, widget.owner_id, widget.owner_email] if widget else [None] * 4
        cells = ["" if name is None else str(name) for name in names]
        prefix = quoted([*cells, *self._common, *self._last]).encode() + b","
        self._known[widget_id] = prefix
        return prefix
