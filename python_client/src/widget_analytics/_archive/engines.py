"""What runs the bill's SQL: DuckDB on this machine, or Apache Spark on as many as it takes."""

from __future__ import annotations

from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from widget_analytics._exit import InputError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from widget_analytics._archive.place import Place

_ROWS_AT_ONCE = 10_000


class EngineName(StrEnum):
    """Which one."""

    DUCKDB = "duckdb"
    SPARK = "spark"


class Engine(Protocol):
    """Runs the subset of SQL that the bill is written in.

    Attributes:
        microseconds: its function from a timestamp to microseconds since 1970.
    """

    microseconds: str

    def read(self, view: str, files: Sequence[str]) -> None:
        """Name the rows of Parquet files."""

    def run(self, statement: str) -> None:
        """Run what has no rows."""

    def rows(self, query: str) -> Iterator[dict[str, Any]]:
        """Yield a query's rows."""


@contextmanager
def engine_for(name: EngineName, place: Place) -> Iterator[Engine]:
    """Start an engine.

    Raises:
        MissingExtra: it is not installed.
    """
    if name is EngineName.DUCKDB:
        with _duckdb(place) as engine:
            yield engine
    else:
        with _spark() as engine:
            yield engine


@contextmanager
def _duckdb(place: Place) -> Iterator[Engine]:
    try:
        import duckdb  # noqa: PLC0415 (an extra)
    except ImportError:
        raise MissingExtra("--engine duckdb", "duckdb", "archive") from None
    with duckdb.connect() as connection:
        if place.remote_files is not None:
            connection.register_filesystem(place.remote_files)
        try:
            yield _DuckDB(connection)
        except duckdb.Error as error:
            raise InputError(f"the archive cannot be read: {' '.join(str(error).split())}") from error


class _DuckDB:
    microseconds = "epoch_us"

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def read(self, view: str, files: Sequence[str]) -> None:
        names = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
        # Names of our own, and files quoted: a view takes no parameters.
        query = f"select * from read_parquet([{names}], hive_partitioning = false)"  # noqa: S608
        self.run(f"create temporary view {view} as {query}")

    def run(self, statement: str) -> None:
        self._connection.execute(statement.replace("`", '"'))

    def rows(self, query: str) -> Iterator[dict[str, Any]]:
        result = self._connection.execute(query)
        columns = [column[0] for column in result.description]
        while some := result.fetchmany(_ROWS_AT_ONCE):
            for row in some:
                yield dict(zip(columns, row, strict=True))


@contextmanager
def _spark() -> Iterator[Engine]:
    try:
        from pyspark.errors import PySparkException  # noqa: PLC0415 (an extra)
        from pyspark.sql import SparkSession  # noqa: PLC0415
    except ImportError:
        raise MissingExtra("--engine spark", "pyspark", "spark") from None
    # On a cluster, spark-submit has said where; else this machine's cores.
    session = SparkSession.builder.appName("widget-analytics bill").getOrCreate()
    try:
        yield _Spark(session)
    except PySparkException as error:
        raise InputError(f"the archive cannot be read: {' '.join(str(error).split())[:500]}") from error


class _Spark:
    microseconds = "unix_micros"

    def __init__(self, session: Any) -> None:
        self._session = session

    def read(self, view: str, files: Sequence[str]) -> None:
        # Spark's own name for these stores.
        names = [file.replace("s3://", "s3a://", 1) for file in files]
        self._session.read.parquet(*names).createOrReplaceTempView(view)

    def run(self, statement: str) -> None:
        self._session.sql(statement)

    def rows(self, query: str) -> Iterator[dict[str, Any]]:
        for row in self._session.sql(query).toLocalIterator(prefetchPartitions=True):
            yield row.asDict()
