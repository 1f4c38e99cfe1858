"""A stack that goes on in the background, in a session of its own: what `up` leaves running.

The supervisor holds a lock on a file with its process id for as long as it lives. So whoever finds
the file locked knows that this id is the supervisor's, and whoever finds it free knows that none runs.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from local_stack.keys import Keys
from local_stack.places import ROOT, RUN, SUPABASE
from local_stack.processes import await_condition
from local_stack.stack import Stack

_LOCK = RUN / "supervisor.lock"
_STATE = RUN / "state.json"
_LOG = RUN / "supervisor.log"
_SECONDS_TO_START = 120
_SECONDS_TO_STOP = 30


@dataclass(frozen=True)
class Running:
    """How to reach the stack that runs in the background."""

    api_url: str
    database_url: str
    superuser_url: str
    keys: Keys
    pids: dict[str, int]
    notes: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        draft = path.with_suffix(".draft")
        draft.touch(mode=0o600)  # it holds secrets
        draft.write_text(json.dumps(asdict(self), indent=2))
        draft.replace(path)

    @classmethod
    def read(cls, path: Path) -> "Running":
        content = json.loads(path.read_text())
        return cls(**content | {"keys": Keys(**content["keys"])})


def running() -> Running | None:
    """The stack in the background, if there is one and it is ready."""
    if _holder() is None or not _STATE.exists():
        return None
    return Running.read(_STATE)


def up(*, seed: bool = True) -> Running:
    """Start a stack with a fresh database; one that runs already is stopped first."""
    RUN.mkdir(mode=0o700, exist_ok=True)
    down()
    for log in RUN.glob("*.log"):
        log.unlink()
    with _LOG.open("wb") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "local_stack", "serve", *([] if seed else ["--no-seed"])],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def ready() -> bool:
        if supervisor.poll() is not None:
            raise RuntimeError(f"the stack did not start\n{_LOG.read_text()}")
        return _holder() == supervisor.pid and _STATE.exists()

    try:
        await_condition("starting the stack", ready, seconds=_SECONDS_TO_START, explain=_LOG.read_text)
    except BaseException:
        supervisor.terminate()
        raise
    return Running.read(_STATE)


def down() -> bool:
    """Stop the stack in the background; says whether there was one."""
    pid = _holder()
    if pid is None:
        _STATE.unlink(missing_ok=True)  # left by a supervisor that was killed
        return False
    os.kill(pid, signal.SIGTERM)
    try:
        await_condition(
            "stopping the stack", lambda: _holder() != pid, seconds=_SECONDS_TO_STOP, explain=_LOG.read_text
        )
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)  # what it started goes with it
        await_condition("stopping the stack", lambda: _holder() != pid, seconds=5, explain=str)
    return True


def serve(*, seed: bool) -> None:
    """Hold a stack until told to stop."""
    with _held_lock():
        _STATE.unlink(missing_ok=True)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        notes: list[str] = []
        configuration = tomllib.loads((SUPABASE / "config.toml").read_text())
        with Stack(
            port=_preferred_port(configuration["api"]["port"], "API", notes),
            database_port=_preferred_port(configuration["db"]["port"], "database", notes),
            seed=seed and (SUPABASE / "seed.sql").exists(),
            logs=RUN,
        ) as stack:
            Running(
                api_url=stack.api_url,
                database_url=stack.database_url,
                superuser_url=stack.superuser_url,
                keys=stack.keys,
                pids={"supervisor": os.getpid(), **stack.pids},
                notes=notes,
            ).write(_STATE)
            try:
                while not stop.wait(1):
                    stack.check()
            finally:
                _STATE.unlink(missing_ok=True)


def _preferred_port(port: int, name: str, notes: list[str]) -> int | None:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        notes.append(f"port {port} is taken, so the {name} is on another one")
        return None
    return port


@contextmanager
def _held_lock() -> Iterator[None]:
    _LOCK.touch(mode=0o600)
    with _LOCK.open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _holder() -> int | None:
    with suppress(FileNotFoundError), _LOCK.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with suppress(ValueError):  # it has not written its id yet
                return int(lock.read())
    return None
