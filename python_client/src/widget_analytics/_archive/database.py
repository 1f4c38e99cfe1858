"""The connection as the tables' owner: what the API offers nobody (R2) is done with it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from widget_analytics._exit import MissingExtra
from widget_analytics._settings import database_url
from widget_analytics.errors import ConfigError, NotMigrated, Refused, Unreachable, WrongKey

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
    try:
        import psycopg  # noqa: PLC0415 (an extra)
        from psycopg import errors  # noqa: PLC0415
    except ImportError:
        raise MissingExtra("an archive", "psycopg", "archive") from None
    url = database_url()
    try:
        with psycopg.connect(url, autocommit=True, application_name="widget-analytics") as connection:
            yield connection
    except (errors.UndefinedTable, errors.UndefinedFunction, errors.UndefinedColumn, errors.InvalidSchemaName) as error:
        raise NotMigrated(f"the database lacks what this needs ({_line(error)}): run `supabase db push`.") from error
    except (errors.InsufficientPrivilege, errors.InvalidPassword, errors.InvalidAuthorizationSpecification) as error:
        raise WrongKey(f"SUPABASE_DB_URL must be of the owner of the tables, `postgres`: {_line(error)}") from error
    except psycopg.ProgrammingError as error:
        if error.sqlstate is None:
            raise ConfigError("SUPABASE_DB_URL must look like postgresql://postgres:…@host:5432/postgres") from error
        raise _refused(error) from error
    except psycopg.OperationalError as error:
        if error.sqlstate and not error.sqlstate.startswith(("08", "57P")):
            raise _refused(error) from error
        raise Unreachable(f"the database of SUPABASE_DB_URL cannot be reached: {_line(error)}") from error
    except psycopg.Error as error:
        raise _refused(error) from error


def _refused(error: psycopg.Error) -> Refused:
    return Refused(status=0, code=error.sqlstate or "", reason=_line(error), hint=error.diag.message_hint or "")


def _line(error: psycopg.Error) -> str:
    return error.diag.message_primary or " ".join(str(error).split())
