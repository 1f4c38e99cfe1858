"""The bill over the archive, on DuckDB, is the one that Postgres made; scripts/test-spark compares Apache Spark's."""

from pathlib import Path

from tests.archive_histories import archived_books, assert_files_say_what_postgres_said
from widget_analytics._archive.engines import EngineName


def test_duckdb_bills_what_postgres_billed(tmp_path: Path) -> None:
    """Calls and sums of random histories about the turns of months, under plans, in a zone with summer time."""
    with archived_books(tmp_path, histories=200) as books:
        assert_files_say_what_postgres_said(books, EngineName.DUCKDB)

    calls = [call for month in books.calls.values() for call in month]
    assert {call["evidence"] for call in calls} >= {"observed", "provider", "operator", "heartbeat", "assumed", None}
    assert any(call["amount"] for call in calls)
    assert any("set by Ann: said so" in call["rule"] for call in calls)
    # One month is empty, and its files say so, too.
    assert [month for month in books.calls if not books.calls[month]] == ["2025-02"]
