"""Child processes that are awaited by condition and never outlive the stack."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.02


def dies_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    """A `preexec_fn` by which the kernel signals the child when its parent is gone.

    This holds even if the parent was killed outright. It must run after the child has changed its
    user, which clears the setting, and `subprocess` runs it there. Linux only: elsewhere a killed
    run can leave processes behind.
    """
    if not sys.platform.startswith("linux"):
        return None
    if threading.current_thread() is not threading.main_thread():
        # The kernel takes the end of the *thread* that forked for the end of the parent.
        raise RuntimeError("start child processes from the main thread")
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def in_child() -> None:
        if libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
            os._exit(127)
        if os.getppid() != parent:  # it died before the call above
            os._exit(127)

    return in_child


def await_condition(what: str, condition: Callable[[], bool], *, seconds: float, explain: Callable[[], str]) -> None:
    """Poll until `condition` holds; on timeout raise with `explain()`, which may also raise."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} took longer than {seconds:g} s\n{explain()}")
        time.sleep(_POLL_SECONDS)


def is_alive(pid: int) -> bool:
    """Whether a process is there and has not ended. Linux only."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Child:
    """One long-running program with its output in a log file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: dict[str, str],
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            # What an earlier process of this name wrote is not this one's.
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=pass_fds,
                preexec_fn=dies_with_parent(signal.SIGKILL),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def output(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def await_output(self, pattern: str, *, seconds: float = 60) -> re.Match[str]:
        """Wait until the program has written `pattern`, and say why if it never will."""
        found: re.Match[str] | None = None

        def written() -> bool:
            nonlocal found
            ended = self._process.poll() is not None  # asked first: it may write, then end
            found = re.search(pattern, self.output())
            if found is None and ended:
                raise RuntimeError(f"{self.name} ended with status {self._process.returncode}\n{self._last_lines()}")
            return found is not None

        await_condition(f"starting {self.name}", written, seconds=seconds, explain=self._last_lines)
        assert found is not None
        return found

    def check(self) -> None:
        """Raise if the program has ended by itself."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} ended with status {self._process.returncode}\n{self._last_lines()}")

    def kill(self) -> None:
        """`kill -9`, as a crash would end it."""
        self._process.kill()
        self._process.wait()

    def stop(self, *, seconds: float = 10) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def _last_lines(self) -> str:
        lines = self.output().splitlines()[-20:]
        return "\n".join(f"  {self.name}: {line}" for line in lines) or f"  {self.name} wrote nothing"
