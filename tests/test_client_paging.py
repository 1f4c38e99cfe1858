"""How all calls of a period are read page by page: the rule by itself, without an API."""

from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from itertools import chain
from operator import itemgetter

from hypothesis import given, settings
from hypothesis import strategies as st

from widget_analytics import Period
from widget_analytics._paging import Place, array_literal, read_calls

START = datetime(2026, 10, 1, tzinfo=UTC)
PERIOD = Period(START, START + timedelta(days=31))


class Api:
    """Answers as the database does: ordered, and no more calls than were asked for."""

    def __init__(self, places: list[Place], most: int) -> None:
        self.places = sorted(places)
        self.most = most
        self.requests = 0
        self.calls_computed = 0

    def fetch(self, start: datetime, end: datetime, after: Place | None) -> list[bytes]:
        self.requests += 1
        starts = (text(start), text(end))
        asked = self.places[slice(*(bisect_left(self.places, at, key=itemgetter(0)) for at in starts))]
        self.calls_computed += len(asked)
        return [line(place) for place in asked if after is None or place > after][: self.most]

    def read(self) -> list[bytes]:
        return list(chain.from_iterable(read_calls(PERIOD, self.fetch, self.most)))


def text(instant: datetime) -> str:
    return instant.isoformat(timespec="microseconds")


def line(place: Place) -> bytes:
    started_at, widget, session, call = place
    return f'{widget},"{session}",{call},{started_at},\n'.encode()


def call(seconds: float, name: int) -> Place:
    return text(START + timedelta(seconds=seconds)), f"w{name % 2}", f"s,{name % 3}", f"c{name:06}"


@settings(deadline=None)
@given(
    seconds=st.lists(st.one_of(st.integers(0, 3), st.integers(0, 31 * 86_400 - 1)), max_size=60),
    most=st.integers(1, 7),
)
def test_each_call_comes_once_and_in_order_whatever_the_page(seconds: list[int], most: int) -> None:
    """Any number of calls, many at one instant, and pages of any length: all of them, once each, in order."""
    api = Api([call(second, name) for name, second in enumerate(seconds)], most)

    assert api.read() == [line(place) for place in api.places]


def test_reading_is_not_quadratic() -> None:
    """Ten times the calls make the database compute about ten times the calls, not a hundred times."""
    few = Api([call(n * 60, n) for n in range(2_000)], 100)
    many = Api([call(n * 6, n) for n in range(20_000)], 100)

    assert len(few.read()) == 2_000
    assert len(many.read()) == 20_000

    assert many.calls_computed < 12 * few.calls_computed
    assert many.calls_computed < 3 * 20_000
    assert many.requests < 300


def test_an_array_literal_holds_any_text() -> None:
    r"""Only \ and " need care inside an array literal."""
    assert array_literal(r'a"b\c') == r'{"a\"b\\c"}'
