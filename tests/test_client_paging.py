"""How all calls are read through an API with a row limit: the rule by itself, without an API."""

from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from itertools import chain
from operator import itemgetter

from hypothesis import given
from hypothesis import strategies as st

from widget_analytics import Period
from widget_analytics._paging import KEY, Filter, Row, array_literal, read_calls

START = datetime(2026, 10, 1, tzinfo=UTC)
PERIOD = Period(START, START + timedelta(days=31))


class Api:
    """Answers as the API does: ordered, and no more rows than its limit."""

    def __init__(self, rows: list[Row], limit: int) -> None:
        self.rows = sorted(rows, key=lambda row: (row["started_at"], *(row[column] for column in KEY)))
        self.limit = limit
        self.requests = 0
        self.rows_computed = 0

    def fetch(self, start: datetime, end: datetime, filters: list[Filter]) -> list[Row]:
        self.requests += 1
        starts = (text(start), text(end))
        asked = self.rows[slice(*(bisect_left(self.rows, at, key=itemgetter("started_at")) for at in starts))]
        self.rows_computed += len(asked)
        return [row for row in asked if all(_passes(row, one) for one in filters)][: self.limit]


def _passes(row: Row, one: Filter) -> bool:
    column, operator, literal = one
    mine, other = array_literal(row[column]), literal
    return mine == other if operator == "eq(any)" else mine > other


def text(instant: datetime) -> str:
    return instant.isoformat(timespec="microseconds")


def call(seconds: float, name: int) -> Row:
    # Names of one length, so that array literals compare as what they hold does.
    return {
        "started_at": text(START + timedelta(seconds=seconds)),
        "widget_id": f"w{name % 2}",
        "session_id": f"s{name % 3}",
        "call_id": f"c{name:06}",
    }


@given(
    seconds=st.lists(st.one_of(st.integers(0, 3), st.integers(0, 31 * 86_400 - 1)), max_size=60),
    limit=st.integers(1, 7),
)
def test_each_call_comes_once_and_in_order_whatever_the_limit(seconds: list[int], limit: int) -> None:
    """Any number of calls, many at one instant, and any row limit: all of them, once each, in order."""
    api = Api([call(second, name) for name, second in enumerate(seconds)], limit)

    read = list(chain.from_iterable(read_calls(PERIOD, api.fetch)))

    assert read == api.rows


def test_reading_is_not_quadratic() -> None:
    """Ten times the calls make the database compute about ten times the rows, not a hundred times."""
    few = Api([call(n * 60, n) for n in range(2_000)], 100)
    many = Api([call(n * 6, n) for n in range(20_000)], 100)

    assert sum(map(len, read_calls(PERIOD, few.fetch))) == 2_000
    assert sum(map(len, read_calls(PERIOD, many.fetch))) == 20_000

    assert many.rows_computed < 12 * few.rows_computed
    assert many.rows_computed < 6 * 20_000
    assert many.requests < 260


def test_an_array_literal_holds_any_text() -> None:
    r"""Only \ and " need care inside an array literal."""
    assert array_literal(r'a"b\c') == r'{"a\"b\\c"}'
