"""The whole stack as one object, for the demo and the tests alike."""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from local_stack import migrations
from local_stack.database import Database
from local_stack.functions import EdgeFunction, function_names
from local_stack.keys import Keys
from local_stack.places import GATEWAY, NODE, ROOT, bare_environment
from local_stack.postgres_server import PostgresServer
from local_stack.processes import Child
from local_stack.workspace import Workspace

GATEWAY_LOGIN = "authenticator"
MAX_ROWS = 1000
POOL_SIZE = 20
ACQUISITION_SECONDS = 10  # PostgREST's db-pool-acquisition-timeout


class Stack:
    """Starts on construction, ends with its `with` block, or with the process that made it.

    Ports left out are free ones. `durable=False` trades the database's crash safety for speed,
    `gateway=False` leaves out everything but the database, `migrate=False` leaves it as the
    platform makes it, `scheduler=False` does without pg_cron, `jobs=False` never runs what it
    schedules, `server` is the PostgreSQL to run, if not the usual, `settings` are added to its own, and
    `max_rows` is the number at which REST cuts a list. With GATEWAY_DEAD_CONNECTION_EVERY=N in the
    environment every Nth REST request is answered as by a PostgREST whose pooled connection died.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        database_port: int | None = None,
        durable: bool = True,
        scheduler: bool = True,
        jobs: bool = True,
        migrate: bool = True,
        seed: bool = False,
        gateway: bool = True,
        logs: Path | None = None,
        server: PostgresServer | None = None,
        settings: Mapping[str, str] | None = None,
        max_rows: int = MAX_ROWS,
    ) -> None:
        self._max_rows = max_rows
        self.keys = Keys()
        self._functions: dict[str, int] = {}
        self._gateway: Child | None = None
        self._children: list[Child] = []
        with ExitStack() as cleanup:
            workspace = Workspace()
            cleanup.callback(workspace.remove)
            self.directory = workspace.path
            self.logs = logs or workspace.path
            # Bound here and handed on, so that the URL is known before the gateway runs.
            self._socket = socket.create_server(("127.0.0.1", port or 0), backlog=256)
            cleanup.callback(self._socket.close)
            cleanup.callback(self._stop_children)
            functions = (
                {name: self._start_function(name, self.function_environment) for name in function_names()}
                if gateway
                else {}
            )
            self.database = Database(
                workspace.path / "postgres",
                log=self.logs / "postgres.log",
                port=database_port,
                durable=durable,
                scheduler=scheduler,
                jobs=jobs,
                installation=server,
                settings=settings,
            )
            cleanup.callback(self.database.stop)
            cleanup.callback(self._stop_children)  # before their database goes
            if migrate:
                workdir = ROOT if scheduler else migrations.without_schedules(workspace.path / "project")
                self.push_migrations(workdir=workdir, seed=seed)
            self._functions = {name: function.await_port() for name, function in functions.items()}
            if gateway:
                self._gateway = self._start_gateway()
            self._cleanup = cleanup.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._cleanup.close()

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def database_url(self) -> str:
        """As `postgres`, who owns the project and is not a superuser."""
        return self.database.url

    @property
    def superuser_url(self) -> str:
        return self.database.superuser_url

    @property
    def publishable_key(self) -> str:
        return self.keys.publishable_key

    @property
    def secret_key(self) -> str:
        return self.keys.secret_key

    @property
    def cron_secret(self) -> str:
        return self.keys.cron_secret

    @property
    def function_environment(self) -> dict[str, str]:
        """What the platform gives every Edge Function."""
        return {
            "SUPABASE_URL": self.api_url,
            "SUPABASE_ANON_KEY": self.keys.anon_key,
            "SUPABASE_SERVICE_ROLE_KEY": self.keys.service_role_key,
            "SUPABASE_PUBLISHABLE_KEYS": json.dumps({"default": self.keys.publishable_key}),
            "SUPABASE_SECRET_KEYS": json.dumps({"default": self.keys.secret_key}),
            "CRON_SECRET": self.keys.cron_secret,
        }

    @property
    def pids(self) -> dict[str, int]:
        """The processes that belong to the stack."""
        return {"postgres": self.database.pid, **{child.name: child.pid for child in self._children}}

    def token_for(self, user_id: object, *, seconds: int = 3600, **claims: object) -> str:
        """What a signed-in user sends as `Authorization: Bearer …`."""
        return self.keys.token(role="authenticated", sub=str(user_id), aud="authenticated", seconds=seconds, **claims)

    def push_migrations(self, *, workdir: Path = ROOT, seed: bool = False) -> str:
        return migrations.push(self.database_url, home=self.directory / "supabase", workdir=workdir, seed=seed)

    def check(self) -> None:
        """Raise if a part of the stack has ended by itself."""
        self.database.check()
        for child in self._children:
            child.check()

    def restart_gateway(self) -> None:
        """It reads the schema once: whatever changes the schema has to call this."""
        assert self._gateway is not None
        if not self._gateway.is_running:
            self._turn_away_who_waits()
        self._stop(self._gateway)
        self._gateway = self._start_gateway()

    def kill_gateway(self) -> None:
        """`kill -9` of it. Its port stays open: who connects meanwhile waits, and `restart_gateway` cuts it off."""
        assert self._gateway is not None
        self._gateway.kill()

    def _turn_away_who_waits(self) -> None:
        """Their requests would run now, long after they were sent, and after most of them were sent again."""
        self._socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self._socket.accept()[0].close()
        self._socket.setblocking(True)

    @contextmanager
    def function(self, name: str, environment: Mapping[str, str | None]) -> Iterator[str]:
        """A second process of a function with a changed environment (None takes a name out); yields its URL."""
        changed = {**self.function_environment, **environment}
        function = self._start_function(name, {key: value for key, value in changed.items() if value is not None})
        try:
            yield f"http://127.0.0.1:{function.await_port()}/{name}"
        finally:
            self._stop(function)

    def _start_function(self, name: str, environment: Mapping[str, str]) -> EdgeFunction:
        function = EdgeFunction(name, environment=environment, directory=self.logs)
        self._children.append(function)
        return function

    def _start_gateway(self) -> Child:
        descriptor = self._socket.fileno()
        settings = {
            "socket": descriptor,
            "api_url": self.api_url,
            "database_url": self.database.url_of(GATEWAY_LOGIN),
            "schema_url": self.database_url,
            "pool_size": POOL_SIZE,
            "acquisition_seconds": ACQUISITION_SECONDS,
            "max_rows": self._max_rows,
            "dead_connection_every": int(os.environ.get("GATEWAY_DEAD_CONNECTION_EVERY", "0")),
            "jwt_secret": self.keys.jwt_secret,
            "publishable_key": self.keys.publishable_key,
            "anon_key": self.keys.anon_key,
            "secret_key": self.keys.secret_key,
            "service_role_key": self.keys.service_role_key,
            "functions": self._functions,
        }
        gateway = Child(
            "gateway",
            [NODE, GATEWAY / "server.mjs"],
            log=self.logs / "gateway.log",
            environment=bare_environment(GATEWAY_SETTINGS=json.dumps(settings)),
            pass_fds=(descriptor,),
        )
        self._children.append(gateway)
        gateway.await_output("gateway is ready")
        return gateway

    def _stop(self, child: Child) -> None:
        child.stop()
        self._children.remove(child)

    def _stop_children(self) -> None:
        for child in reversed(self._children.copy()):
            self._stop(child)
