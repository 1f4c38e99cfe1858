"""A connection to the database itself, whose errors are ours."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from widget_analytics._settings import patience
from widget_analytics.errors import ConfigError, NotMigrated, Refused, Unreachable, WrongKey

if TYPE_CHECKING:
    import psycopg


@contextmanager
def connected(url: str, *, setting: str, role: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect, and turn the database's errors inside into ours. Needs psycopg.

    Args:
        url: the database's address.
        setting: what the address came from, to be told in errors.
        role: whose address it must be, likewise.

    Raises:
        ConfigError: it is no address of a database.
        Unreachable, WrongKey, NotMigrated, Refused: as of the API.
    """
    import psycopg  # noqa: PLC0415
    from psycopg import errors  # noqa: PLC0415

    try:
        with psycopg.connect(
            url, autocommit=True, application_name="widget-analytics", connect_timeout=math.ceil(patience())
        ) as connection:
            yield connection
    except (errors.UndefinedTable, errors.UndefinedFunction, errors.UndefinedColumn, errors.InvalidSchemaName) as error:
        raise NotMigrated(f"the database lacks what this needs ({_line(error)}): run `supabase db push`.") from error
    except (errors.InsufficientPrivilege, errors.InvalidPassword, errors.InvalidAuthorizationSpecification) as error:
        raise WrongKey(f"{setting} must be of {role}: {_line(error)}") from error
    except psycopg.ProgrammingError as error:
        if error.sqlstate is None:
            raise ConfigError(f"{setting} must look like postgresql://postgres:…@host:5432/postgres") from error
        raise _refused(error) from error
    except psycopg.OperationalError as error:
        if error.sqlstate and not error.sqlstate.startswith(("08", "57P")):
            raise _refused(error) from error
        raise Unreachable(f"the database of {setting} cannot be reached: {_line(error)}") from error
    except psycopg.Error as error:
        raise _refused(error) from error


def _refused(error: psycopg.Error) -> Refused:
    return Refused(status=0, code=error.sqlstate or "", reason=_line(error), hint=error.diag.message_hint or "")


def _line(error: psycopg.Error) -> str:
    return error.diag.message_primary or " ".join(str(error).split())
