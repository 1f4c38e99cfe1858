"""The bill over the archive, on DuckDB, is the one that Postgres made; scripts/test-spark compares Apache Spark's."""

from pathlib import Path

from tests.archive_histories import (
    MONTHS,
    archived_books,
    assert_files_say_what_postgres_says,
    assert_postgres_says_the_same,
)
from tests.archive_support import calls, close_months, move, rows, usage

EVENTS_OF_ARCHIVED_CALLS = """
    select distinct e.source::text as source
    from public.widget_analytics e
    join widget_internal.call_states c
      on c.widget_id = e.widget_id and c.session_id = e.session_id and c.call_id = coalesce(e.call_id, e.id::text)
    where c.archived_at is not null
"""


def test_archived_months_are_billed_alike_by_postgres_and_from_the_files(tmp_path: Path) -> None:
    """Calls and sums of random histories about the turns of months, before and after corrections of archived calls."""
    with archived_books(tmp_path, sessions=300) as books:
        left = rows(books.db, EVENTS_OF_ARCHIVED_CALLS)
        assert_postgres_says_the_same(books)
        assert_files_say_what_postgres_says(books)
        kinds = {call["evidence"] for month in books.calls.values() for call in month}
        voided = books.calls["2026-02"][0]
        books.db.execute(
            "select public.correct_widget_call(%(widget_id)s, %(session_id)s, %(call_id)s, 0, 'wrong', 'Ben')", voided
        )
        close_months(books.db, "2026-05")
        again = move(books.url, tmp_path, "2026-05")
        books.calls["2026-02"] = calls(books.db, "2026-02")
        books.usage.update({months: usage(books.db, *months) for months in books.usage})
        assert_files_say_what_postgres_says(books)

    assert {row["source"] for row in left} == {"operator"}
    assert kinds == {"observed", "provider", "operator", "heartbeat", "assumed", None}
    assert again.bills == ("2026-02", "2026-05")
    assert [call for call in books.calls["2026-02"] if call["billable_seconds"] == 0 and "Ben" in call["rule"]]
    assert len(books.usage) == len(MONTHS) + 1
