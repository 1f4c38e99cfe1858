"""PostgreSQL with pg_cron and what the platform gives a new project, on a port of 127.0.0.1."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pg8000
import psycopg
from psutil import NoSuchProcess, Process
from testing.common.database import get_unused_port
from testing.postgresql import Postgresql

from local_stack.places import GATEWAY, NODE, bare_environment
from local_stack.postgres_server import PostgresServer, complete_server, installed_servers
from local_stack.processes import await_condition, dies_with_parent, is_alive

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
        self._server = _start(
            directory,
            log=log,
            port=port,
            settings=_settings(durable=durable, scheduler=scheduler, jobs=jobs) | dict(settings or {}),
            scheduler=scheduler,
            installation=installation,
        )
        try:
            with psycopg.connect(self.superuser_url, autocommit=True) as connection:
                connection.execute((_HERE / "platform.sql").read_bytes())
                connection.execute("set role supabase_auth_admin")
                connection.execute(_auth_tables().encode())
                connection.execute("reset role")
                for name in _EXTENSIONS:
                    if name in self._server.extensions:
                        connection.execute(f'create extension "{name}" with schema extensions'.encode())
                if scheduler:
                    connection.execute((_HERE / "scheduler.sql").read_bytes())
        except BaseException:
            self.stop()
            raise

    @property
    def port(self) -> int:
        port: int = self._server.settings["port"]
        return port

    @property
    def pid(self) -> int:
        pid: int = self._server.server_pid
        return pid

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
        return bool(self._server.is_alive())

    def check(self) -> None:
        """Raise if the server has ended by itself."""
        if not self.is_running:
            raise RuntimeError(f"postgres has ended\n{self._server.read_bootlog()}")

    def kill(self) -> None:
        """`kill -9` of the server and of every process of its own: nothing is flushed, nobody is told."""
        self._server.kill()

    def start(self) -> None:
        """Start again what was killed or has ended, on the same files and port: returns when it has recovered."""
        self._server.start()

    def stop(self) -> None:
        self._server.stop()


class _Server(Postgresql):
    """`testing.postgresql`'s server, able to run under root and to die with its parent."""

    child_process: subprocess.Popen[bytes] | None

    def __init__(self, installation: PostgresServer, settings: dict[str, str], log: Path, **options: Any) -> None:
        self.extensions = installation.extensions
        self._configuration = settings
        self._data = Path(options["base_dir"], "data")
        self.log = log
        self._account = _account()
        super().__init__(
            initdb=str(installation.bin / "initdb"), postgres=str(installation.bin / "postgres"), **options
        )

    def setup(self) -> None:
        self._data.mkdir(parents=True)
        if self._account:
            os.chown(self._data, *self._account)
        self.initialize_database()

    def initialize_database(self) -> None:
        locale = "C.UTF-8" if sys.platform.startswith("linux") else "en_US.UTF-8"
        self._run_initdb(
            "--auth=trust", "--no-sync", "--encoding=UTF8", f"--locale={locale}", f"--username={SUPERUSER}"
        )

    def _run_initdb(self, *arguments: str) -> None:
        process = subprocess.run(
            [self.initdb, "-D", str(self._data), *arguments],
            cwd=self.base_dir,
            capture_output=True,
            text=True,
            env=bare_environment(),
            **self._as_account(),
        )
        if process.returncode != 0:
            raise RuntimeError(f"initdb failed\n{process.stderr}")

    def start(self) -> None:
        if self.child_process and self.child_process.poll() is None:
            return
        self.prestart()
        with self.log.open("ab") as log:
            self.child_process = subprocess.Popen(
                self.get_server_commandline(),
                cwd=self.base_dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=bare_environment(),
                # At once and without a checkpoint: what a killed run leaves is thrown away.
                preexec_fn=dies_with_parent(signal.SIGQUIT),
                **self._as_account(),
            )
        try:
            self.wait_booting()
        except BaseException:
            self.stop()
            raise

    def kill(self) -> None:
        assert self.child_process is not None
        server = self.child_process.pid
        os.kill(server, signal.SIGSTOP)  # it must neither start further processes nor see its own end
        processes = Process(server).children()
        for process in (*processes, Process(server)):
            with suppress(NoSuchProcess):
                process.kill()
        self.child_process.wait()
        self.child_process = None
        await_condition(
            "the end of postgres",
            lambda: not any(is_alive(process.pid) for process in processes),
            seconds=10,
            explain=lambda: f"processes {processes}",
        )

    def read_bootlog(self) -> str:
        return self.log.read_text()[-2000:]

    def get_server_commandline(self) -> list[str]:
        command = [self.postgres, "-D", str(self._data), "-p", str(self.settings["port"])]
        for name, value in self._configuration.items():
            command += ["-c", f"{name}={value}"]
        return command

    def is_server_available(self) -> bool:
        try:
            with closing(pg8000.connect(host="127.0.0.1", port=self.settings["port"], user=SUPERUSER, database=NAME)):
                return True
        except (pg8000.Error, OSError):  # OSError: it ends while it starts
            return False

    def _as_account(self) -> dict[str, Any]:
        if self._account is None:
            return {}
        uid, gid = self._account
        return {"user": uid, "group": gid, "extra_groups": []}


def _start(
    directory: Path,
    *,
    log: Path,
    port: int | None,
    settings: dict[str, str],
    scheduler: bool,
    installation: PostgresServer | None,
) -> _Server:
    installation = installation or complete_server() or (None if scheduler else next(installed_servers(), None))
    if installation is None:
        raise RuntimeError("no PostgreSQL with pg_cron and plpgsql_check: run scripts/demo or scripts/test")
    installation = _within_reach(installation, directory)
    server = _Server(
        installation, settings, log, base_dir=str(directory), auto_start=0, port=port, boot_timeout=_BOOT_SECONDS
    )
    server.setup()
    for attempt in range(1, _ATTEMPTS + 1):
        if port is None:  # another program may take it before the server does
            server.settings["port"] = get_unused_port()
        try:
            server.start()
            break
        except RuntimeError as error:
            taken = "could not bind" in str(error)
            if not taken or port is not None or attempt == _ATTEMPTS:
                raise
    return server


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
    uid, gid = account
    try:
        subprocess.run(
            [installation.bin / "postgres", "--version"],
            stdout=subprocess.DEVNULL,
            user=uid,
            group=gid,
            extra_groups=[],
            check=True,
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
