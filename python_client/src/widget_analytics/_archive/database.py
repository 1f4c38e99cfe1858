"""The connection as the tables' owner: what the API offers nobody (R2) is done with it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from widget_analytics._database import connected, require_psycopg
from widget_analytics._settings import DATABASE_URL, database_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg


@contextmanager
def owner_connection() -> Iterator[psycopg.Connection[Any]]:
    """Connect to the database of SUPABASE_DB_URL, and turn its errors inside into ours.

    Raises:
        ConfigError: there is no such setting, or it is no address of a database.
        Unreachable, WrongKey, NotMigrated, Refused: as of the API.
    """
    require_psycopg("an archive", "archive")
    role = "the owner of the tables, `postgres`"
    with connected(database_url(), setting=DATABASE_URL, role=role) as connection:
        # Estimates over a large ledger would have each chunk's short query compiled, for ten times as long as it runs.
        connection.execute("set jit = off")
        yield connection
