"""The bill over the archive, on Apache Spark, is the one that Postgres made. Run by scripts/test-spark."""

from pathlib import Path

import pytest

from tests.archive_histories import archived_books, assert_files_say_what_postgres_says
from widget_analytics._archive.engines import EngineName


@pytest.mark.timeout(3600)
def test_spark_bills_what_postgres_billed(tmp_path: Path) -> None:
    """The very SQL that DuckDB runs, over the same histories."""
    with archived_books(tmp_path, sessions=100) as books:
        assert_files_say_what_postgres_says(books, EngineName.SPARK)

    assert sum(map(len, books.calls.values())) > 50
