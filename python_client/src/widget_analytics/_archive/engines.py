"""What runs the bill's SQL: DuckDB on this machine, or Apache Spark on as many as it takes."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from widget_analytics._archive.files import require_duckdb
from widget_analytics.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from widget_analytics._archive.place import Place

_ROWS_AT_ONCE = 10_000


class EngineName(StrEnum):
    """Which one."""

    DUCKDB = "duckdb"
    SPARK = "spark"


def query_files(
    engine: EngineName, place: Place, views: Mapping[str, Sequence[str]], query: str
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a query over the archive, each view being some of its files.

    Raises:
        MissingExtra: the engine is not installed.
        InputError: the files cannot be read.
    """
    run = _on_duckdb if engine is EngineName.DUCKDB else _on_spark
    return run(place, views, query)


def _on_duckdb(place: Place, views: Mapping[str, Sequence[str]], query: str) -> Iterator[dict[str, Any]]:
    duckdb = require_duckdb()
    try:
        with duckdb.connect() as connection:
            connection.execute("set timezone = 'UTC'")
            if place.remote_files is not None:
                connection.register_filesystem(place.remote_files)
            for view, files in views.items():
                connection.read_parquet([place.path(file) for file in files]).create_view(view)
            result = connection.execute(query)
            names = [column[0] for column in result.description]
            while some := result.fetchmany(_ROWS_AT_ONCE):
                yield from (dict(zip(names, row, strict=True)) for row in some)
    except duckdb.Error as error:
        raise InputError(f"the archive cannot be read: {' '.join(str(error).split())}") from error


def _on_spark(place: Place, views: Mapping[str, Sequence[str]], query: str) -> Iterator[dict[str, Any]]:
    try:
        from pyspark.errors import PySparkException  # noqa: PLC0415 (an extra)
        from pyspark.sql import SparkSession  # noqa: PLC0415
    except ImportError:
        raise MissingExtra("--engine spark", "pyspark", "spark") from None
    # On a cluster, spark-submit has said where; else this machine's cores.
    session = SparkSession.builder.appName("widget-analytics bill").getOrCreate()
    # Python is told times without a zone, by this setting.
    session.conf.set("spark.sql.session.timeZone", "UTC")
    try:
        for view, files in views.items():
            # Spark's own name for these stores.
            names = [place.path(file).replace("s3://", "s3a://", 1) for file in files]
            session.read.parquet(*names).createOrReplaceTempView(view)
        for row in session.sql(query).toLocalIterator(prefetchPartitions=True):
            yield row.asDict()
    except PySparkException as error:
        raise InputError(f"the archive cannot be read: {' '.join(str(error).split())[:500]}") from error
