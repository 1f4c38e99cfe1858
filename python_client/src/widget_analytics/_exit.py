"""How the command fails: one line on standard error, and a code that a script can tell apart."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import typer

from widget_analytics.errors import WidgetAnalyticsError

#: What `status` exits with, by alarm: the first of these that there is.
STATUS_CODES = {
    "cleanup_failed": 1,
    "cleanup_late": 1,
    "delivery_low": 11,
    "completion_low": 12,
    "health_late": 13,
}
#: And with any other alarm.
OTHER_ALARM = 14
#: What `doctor` exits with where a check found a problem.
UNWELL = 15
NOT_EQUAL = 1
#: What `push` exits with where something waits or was refused.
INCOMPLETE = 1
NOT_DONE = 1

# What writing to a full disk, or over a limit, fails with. Files have errors of their own.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

CODES_HELP = (
    "Exit codes: 0 done; 1 status: the cleanup is late or failed, verify: not equal, a question: no, push: something "
    "waits or was refused; 2 wrong option; 3 wrong or missing key or setting; 4 API not reachable; 5 database not "
    "migrated; 6 refused by the database; 7 file cannot be written; 8 file or manifest cannot be read; status, where "
    "the cleanup is well: 11 too few events arrive, 12 too few calls end as observed, 13 nobody counts them, 14 "
    "another alarm; 15 doctor: a problem; 130 and 143 interrupted."
)


class _Stopped(BaseException):
    """SIGTERM or SIGHUP, as an exception: so that what is half done is cleared away."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what goes wrong inside into one line and an exit code.

    What is not foreseen stays a traceback, which shows no values.
    """
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _stop)
    try:
        yield
    except WidgetAnalyticsError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        # The reader has enough, as `head` does.
        _drop_output()
        raise typer.Exit(128 + 13) from None
    except UnicodeEncodeError as error:
        said = error.object[error.start : error.end]
        _fail(f"an option's value is not text in this system's encoding: {said!r}", 2)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _drop_output()
        _fail(f"cannot write standard output: {error.strerror}", 7)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except _Stopped as stopped:
        _fail("stopped", 128 + stopped.number)


def _drop_output() -> None:
    # What is still buffered must not raise again on the way out.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    raise _Stopped(number)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"widget-analytics: {message}", err=True)
    raise typer.Exit(code) from None
