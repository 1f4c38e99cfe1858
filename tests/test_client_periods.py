"""Months and instants, as the command line reads them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from widget_analytics import Period
from widget_analytics.periods import parse_instant


def test_a_month_is_half_open_in_utc() -> None:
    """October ends where November begins."""
    october = Period.month("2026-10")

    assert october == Period(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))


def test_december_ends_in_the_next_year() -> None:
    """The month after December is January of the year after."""
    assert Period.month("2026-12").end == datetime(2027, 1, 1, tzinfo=UTC)


def test_february_knows_leap_years() -> None:
    """2028 has a 29 February."""
    february = Period.month("2028-02")

    assert february.end - february.start == timedelta(days=29)


@pytest.mark.parametrize(
    "text", ["2026-13", "2026-00", "2026-1", "26-10", "2026-10-01", "october", "", "0000-01", "٢٠٢٦-10"]
)
def test_what_is_no_month_is_said_to_be_none(text: str) -> None:
    """The message names the text and shows how a month is written."""
    with pytest.raises(ValueError, match="write it as 2026-10"):
        Period.month(text)


def test_a_period_must_not_be_empty() -> None:
    """An end at or before the start is a mistake, not an empty bill."""
    with pytest.raises(ValueError, match="is empty"):
        Period(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC))


def test_a_period_needs_a_time_zone() -> None:
    """A time without a zone could mean another day."""
    with pytest.raises(ValueError, match="no time zone"):
        Period(datetime(2026, 10, 1), datetime(2026, 11, 1))


def test_instants_are_read_as_utc() -> None:
    """A date is its midnight; no zone means UTC; another zone is converted."""
    assert parse_instant("2026-10-01") == datetime(2026, 10, 1, tzinfo=UTC)
    assert parse_instant("2026-10-01T08:30:00Z") == datetime(2026, 10, 1, 8, 30, tzinfo=UTC)
    assert parse_instant("2026-10-01 08:30") == datetime(2026, 10, 1, 8, 30, tzinfo=UTC)
    assert parse_instant("2026-10-01T08:30:00+02:00") == datetime(2026, 10, 1, 6, 30, tzinfo=UTC)


def test_the_month_of_an_instant_is_that_of_utc() -> None:
    """Half past midnight on 1 November in Berlin is still October."""
    berlin = timezone(timedelta(hours=1))

    assert Period.month_of(datetime(2026, 11, 1, 0, 30, tzinfo=berlin)) == Period.month("2026-10")


def test_what_is_no_instant_is_said_to_be_none() -> None:
    """The message shows how one is written."""
    with pytest.raises(ValueError, match="2026-10-01T08:30:00Z"):
        parse_instant("yesterday")
