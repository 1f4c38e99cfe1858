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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from local_stack.demo_site import DemoSite
from local_stack.keys import Keys
from local_stack.places import ROOT, RUN, SUPABASE
from local_stack.processes import await_condition
from local_stack.stack import Stack

_LOCK = "supervisor.lock"
_STATE = "state.json"
_LOG = "supervisor.log"
_DEMO_SITE_PORT = 54380
_PLAYGROUND = "44444444-4444-7444-8444-444444444444"  # the widget in seed.sql that any page may use
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
    demo_site_url: str = ""
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


def running(folder: Path = RUN) -> Running | None:
    """The stack in the background, if there is one and it is ready."""
    if _holder(folder) is None or not (folder / _STATE).exists():
        return None
    return Running.read(folder / _STATE)


def up(folder: Path = RUN, *, seed: bool = True) -> Running:
    """Start a stack with a fresh database; one that runs already is stopped first."""
    folder.mkdir(mode=0o700, exist_ok=True)
    down(folder)
    for old in folder.glob("*.log"):
        old.unlink()
    with (folder / _LOG).open("wb") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "local_stack", "serve", str(folder), *([] if seed else ["--no-seed"])],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def ready() -> bool:
        if supervisor.poll() is not None:
            raise RuntimeError(f"the stack did not start\n{_last_words(folder)}")
        return _holder(folder) == supervisor.pid and (folder / _STATE).exists()

    try:
        _await("starting", ready, folder, seconds=_SECONDS_TO_START)
    except BaseException:
        supervisor.terminate()
        raise
    return Running.read(folder / _STATE)


def down(folder: Path = RUN) -> bool:
    """Stop the stack in the background; says whether there was one."""
    pid = _holder(folder)
    if pid is None:
        (folder / _STATE).unlink(missing_ok=True)  # left by a supervisor that was killed
        return False
    os.kill(pid, signal.SIGTERM)
    try:
        _await("stopping", lambda: _holder(folder) != pid, folder, seconds=_SECONDS_TO_STOP)
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)  # what it started goes with it
        _await("stopping", lambda: _holder(folder) != pid, folder, seconds=5)
    return True


def serve(folder: Path = RUN, *, seed: bool = True) -> None:
    """Hold a stack until told to stop."""
    with _held_lock(folder):
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        notes: list[str] = []
        configuration = tomllib.loads((SUPABASE / "config.toml").read_text())
        with (
            Stack(
                port=_preferred_port(configuration["api"]["port"], "API", notes),
                database_port=_preferred_port(configuration["db"]["port"], "database", notes),
                seed=seed,
                logs=folder,
            ) as stack,
            DemoSite(
                port=_preferred_port(_DEMO_SITE_PORT, "demo site", []) or 0,
                url=stack.api_url,
                key=stack.publishable_key,
                widget_id=_PLAYGROUND,
            ) as site,
        ):
            Running(
                api_url=stack.api_url,
                database_url=stack.database_url,
                superuser_url=stack.superuser_url,
                keys=stack.keys,
                demo_site_url=site.address(),
                pids={"supervisor": os.getpid(), **stack.pids},
                notes=notes,
            ).write(folder / _STATE)
            try:
                while not stop.wait(1):
                    stack.check()
            finally:
                (folder / _STATE).unlink(missing_ok=True)


def _preferred_port(port: int, name: str, notes: list[str]) -> int | None:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        notes.append(f"Port {port} is taken, so the {name} is on another one.")
        return None
    return port


def _await(what: str, condition: Callable[[], bool], folder: Path, *, seconds: float) -> None:
    await_condition(f"{what} the stack", condition, seconds=seconds, explain=lambda: _last_words(folder))


def _last_words(folder: Path) -> str:
    return "\n".join((folder / _LOG).read_text().splitlines()[-30:])


@contextmanager
def _held_lock(folder: Path) -> Iterator[None]:
    path = folder / _LOCK
    path.touch(mode=0o600)
    with path.open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _holder(folder: Path) -> int | None:
    """The supervisor's process id, if one runs."""
    with suppress(FileNotFoundError), (folder / _LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with suppress(ValueError):  # it has not written its id yet
                return int(lock.read())
    return None
