"""What can go wrong, as few classes as a caller can tell apart.

::

    WidgetAnalyticsError
    ├── ConfigError           a setting is missing or cannot be right; nothing was sent
    ├── Unreachable           no usable answer: network, DNS, TLS, time-out, an HTTP 5xx, a standby that lags
    ├── WrongKey              the API does not know the key, or the key's role may not do this
    ├── NotMigrated           the function, table or column is not there, or of another version
    ├── Refused               the database said no to this request: see .status and .code
    │   └── TooManyRequests   over quota (HTTP 429): see .retry_after
    ├── UsageError            an option's value makes no sense
    │   └── MissingExtra      an option needs a package that is installed only when asked for
    ├── InputError            a file or its manifest cannot be read
    └── OutputError           the file or the standard output cannot be written

Messages are one line, say what to do, and never hold a key.
"""

from __future__ import annotations

from importlib import import_module
from typing import ClassVar, Self


class WidgetAnalyticsError(Exception):
    """The base of everything that this package raises on purpose.

    Attributes:
        exit_code: what the command exits with.
        is_passing: whether it is worth trying again (a refused connection is, a page that is no API is not).
    """

    exit_code: ClassVar[int] = 1
    is_passing: bool = False


class ConfigError(WidgetAnalyticsError):
    """A setting is missing or cannot be right. Nothing was sent."""

    exit_code = 3


class Unreachable(WidgetAnalyticsError):
    """There was no usable answer: network, DNS, TLS, time-out, or an HTTP 5xx."""

    exit_code = 4

    def __init__(self, message: str, *, is_passing: bool = True) -> None:
        super().__init__(message)
        self.is_passing = is_passing


class WrongKey(WidgetAnalyticsError):
    """The API does not know the key, the token has expired, or the key's role may not do this."""

    exit_code = 3

    def __init__(self, message: str, *, is_passing: bool = False) -> None:
        super().__init__(message)
        self.is_passing = is_passing


class NotMigrated(WidgetAnalyticsError):
    """The database lacks what was asked for: ``supabase db push`` has not run, or other versions have met."""

    exit_code = 5

    @classmethod
    def unknown(cls, model: type, what: object) -> Self:
        """Tell of a row, or another answer, that is not what this version knows."""
        return cls(
            f"the database answers with a {model.__name__} that this version does not know ({what}). "
            "Bring the migrations and widget-analytics to the same version."
        )


class Refused(WidgetAnalyticsError):
    """The database said no to this request.

    Attributes:
        status: the HTTP status, 400 to 499 as a rule.
        code: the SQLSTATE or ``PGRST…`` code, such as ``22023`` for bad input; empty where there was none.
        reason: the database's own message; for an event it begins with the field's name.
        hint: what the database advises; empty where it advises nothing.
    """

    exit_code = 6

    def __init__(self, *, status: int, code: str, reason: str, hint: str = "", is_passing: bool = False) -> None:
        super().__init__(f"refused: {reason}" + (f" ({hint})" if hint else "") + f" [{code or status}]")
        self.status = status
        self.code = code
        self.reason = reason
        self.hint = hint
        self.is_passing = is_passing


class TooManyRequests(Refused):
    """Over quota (HTTP 429).

    Attributes:
        retry_after: seconds to wait before trying again; None where the answer did not say.
    """

    def __init__(
        self, *, status: int, code: str, reason: str, hint: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(status=status, code=code, reason=reason, hint=hint, is_passing=True)
        self.retry_after = retry_after


class UsageError(WidgetAnalyticsError):
    """An option's value makes no sense."""

    exit_code = 2


class MissingExtra(UsageError):
    """An option needs a package that is installed only when asked for."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs {package}: in the repository of widget analytics, pip install './python_client[{extra}]'"
        )

    @classmethod
    def unless_installed(cls, package: str, what: str, extra: str) -> None:
        """Raise this where a package cannot be imported."""
        try:
            import_module(package)
        except ImportError:
            raise cls(what, package, extra) from None


class InputError(WidgetAnalyticsError):
    """A file or its manifest cannot be read."""

    exit_code = 8


class OutputError(WidgetAnalyticsError):
    """The file or the standard output cannot be written."""

    exit_code = 7
