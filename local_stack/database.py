"""PostgreSQL with pg_cron and what the platform gives a new project, on a port of 127.0.0.1."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import psycopg
from psutil import NoSuchProcess, Process

from local_stack.places import GATEWAY, NODE, bare_environment
from local_stack.postgres_server import PostgresServer, complete_server, installed_servers
from local_stack.processes import Child, as_account, await_condition, is_alive, unused_port

SUPERUSER = "supabase_admin"
OWNER = "postgres"
NAME = "postgres"
_HERE = Path(__file__).parent
_SYSTEM_USER = "postgres"  # the server refuses to run as root
_ATTEMPTS = 5
_BOOT_SECONDS = 60  # after a crash it recovers first

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_connections": "200",
    "wal_level": "logical",
    "shared_preload_libraries": "pg_stat_statements",
}
_CRON_SETTINGS = {
    "shared_preload_libraries": "pg_stat_statements, pg_cron",
    "cron.database_name": NAME,
    # Jobs start inside the server, as the platform's do, and so need no password.
    "cron.use_background_workers": "on",
    "max_worker_processes": "32",
}
_NO_JOBS = {"cron.max_running_jobs": "0"}  # scheduled all the same
_EXTENSIONS = ("pgcrypto", "uuid-ossp", "plpgsql_check")
_THROWAWAY_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
# As Supabase sets a project of 1 GB: https://gist.github.com/egor-romanov/323e2847851bbd758081511785573c08
MICRO_SETTINGS = {
    "shared_buffers": "256MB",
    "effective_cache_size": "768MB",
    "maintenance_work_mem": "64MB",
    "work_mem": "3500kB",
    "max_wal_size": "4GB",
    "min_wal_size": "1GB",
    "random_page_cost": "1.1",
    "effective_io_concurrency": "200",
    "checkpoint_completion_target": "0.9",
    "max_parallel_workers": "2",
    "max_parallel_workers_per_gather": "1",
}


class Database:
    """A running server; `url` is the project owner's, `superuser_url` the platform's.

    Without an `installation` it is the machine's own that has every extension needed.
    """

    def __init__(
        self,
        directory: Path,
        *,
        log: Path,
        port: int | None,
        durable: bool,
        scheduler: bool,
        jobs: bool = True,
        installation: PostgresServer | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        installation = installation or complete_server() or (None if scheduler else next(installed_servers(), None))
        if installation is None:
            raise RuntimeError("no PostgreSQL with pg_cron and plpgsql_check: run scripts/demo or scripts/test")
        self._installation = _within_reach(installation, directory)
        self._data, self._log = directory / "data", log
        self._settings = _settings(durable=durable, scheduler=scheduler, jobs=jobs) | dict(settings or {})
        self._initialize()
        self._start_on(port)
        try:
            with psycopg.connect(self.superuser_url, autocommit=True) as connection:
                connection.execute((_HERE / "platform.sql").read_bytes())
                connection.execute("set role supabase_auth_admin")
                connection.execute(_auth_tables().encode())
                connection.execute("reset role")
                for name in _EXTENSIONS:
                    if name in installation.extensions:
                        connection.execute(f'create extension "{name}" with schema extensions'.encode())
                if scheduler:
                    connection.execute((_HERE / "scheduler.sql").read_bytes())
        except BaseException:
            self.stop()
            raise

    def _initialize(self) -> None:
        account = _account()
        self._data.mkdir(parents=True)
        if account:
            os.chown(self._data, *account)
        locale = "C.UTF-8" if sys.platform.startswith("linux") else "en_US.UTF-8"
        options = ["--auth=trust", "--no-sync", "--encoding=UTF8", f"--locale={locale}", f"--username={SUPERUSER}"]
        done = subprocess.run(
            [self._installation.bin / "initdb", "-D", self._data, *options],
            cwd=self._data,
            capture_output=True,
            text=True,
            env=bare_environment(),
            check=False,
            **as_account(account),
        )
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed\n{done.stderr}")

    def _start_on(self, port: int | None) -> None:
        """On a free port if none is given: another program may take it before the server does."""
        for attempts_left in reversed(range(_ATTEMPTS)):
            self.port = port or unused_port()
            try:
                self._start()
            except RuntimeError as error:
                if port or not attempts_left or "could not bind" not in str(error):
                    raise
            else:
                break

    def _start(self) -> None:
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        self._server = Child(
            "postgres",
            [self._installation.bin / "postgres", "-D", self._data, "-p", str(self.port), *options],
            log=self._log,
            environment=bare_environment(),
            cwd=self._data,
            account=_account(),
            stop_signal=signal.SIGINT,  # without waiting for those who are connected
            # At once and without a checkpoint: what a killed run leaves is thrown away.
            death_signal=signal.SIGQUIT,
        )
        try:
            self._server.await_output("ready to accept connections", seconds=_BOOT_SECONDS)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self._server.pid

    @property
    def url(self) -> str:
        return self.url_of(OWNER)

    @property
    def superuser_url(self) -> str:
        return self.url_of(SUPERUSER)

    def url_of(self, role: str) -> str:
        return f"postgresql://{role}@127.0.0.1:{self.port}/{NAME}?sslmode=disable"

    @property
    def is_running(self) -> bool:
        return self._server.is_running

    def check(self) -> None:
        """Raise if the server has ended by itself."""
        self._server.check()

    def kill(self) -> None:
        """`kill -9` of the server and of every process of its own: nothing is flushed, nobody is told."""
        os.kill(self.pid, signal.SIGSTOP)  # it must neither start further processes nor see its own end
        processes = Process(self.pid).children()
        for process in processes:
            with suppress(NoSuchProcess):
                process.kill()
        self._server.kill()
        await_condition(
            "the end of postgres",
            lambda: not any(is_alive(process.pid) for process in processes),
            seconds=10,
            explain=lambda: f"processes {processes}",
        )

    def start(self) -> None:
        """Start again what was killed or has ended, on the same files and port: returns when it has recovered."""
        if not self.is_running:
            self._start()

    def stop(self) -> None:
        self._server.stop()


def _settings(*, durable: bool, scheduler: bool, jobs: bool) -> dict[str, str]:
    settings = dict(_SETTINGS)
    if scheduler:
        settings |= _CRON_SETTINGS if jobs else _CRON_SETTINGS | _NO_JOBS
    return settings if durable else settings | _THROWAWAY_SETTINGS


def _account() -> tuple[int, int] | None:
    """Whom to run the server as, if not as the caller."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        raise RuntimeError(f"running as root needs the system user {_SYSTEM_USER!r}") from None
    return entry.pw_uid, entry.pw_gid


def _within_reach(installation: PostgresServer, directory: Path) -> PostgresServer:
    """The same, or a copy of it where the account that runs the server may not go, as into root's home."""
    account = _account()
    if account is None:
        return installation
    try:
        subprocess.run(
            [installation.bin / "postgres", "--version"],
            stdout=subprocess.DEVNULL,
            check=True,
            **as_account(account),
        )
    except PermissionError:
        copy = directory / "server"
        shutil.copytree(installation.bin.parent, copy, symlinks=True)
        return installation._replace(bin=copy / "bin")
    return installation


@cache
def _auth_tables() -> str:
    command: Sequence[str | Path] = [NODE, GATEWAY / "auth_schema.mjs"]
    return subprocess.run(command, env=bare_environment(), capture_output=True, text=True, check=True).stdout
