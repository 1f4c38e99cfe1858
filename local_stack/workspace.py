"""A stack's own temporary directory, and the removal of those that killed runs left behind."""

import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path

_PREFIX = "widget-stack-"


class Workspace:
    """A directory that is locked for as long as its owner lives."""

    def __init__(self) -> None:
        remove_leftovers()
        made = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}"))
        self._lock = os.open(made, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Only now does it get the name that others look for: none of them can find it unlocked.
        self.path = made.rename(made.with_name(made.name.removeprefix("new-")))
        # The database server may run as another user, and must pass through.
        self.path.chmod(0o711)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def remove_leftovers() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:  # another run removed it first
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:  # its owner lives
            pass
        finally:
            os.close(lock)
