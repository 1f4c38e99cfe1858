"""The checks of scripts/check: what is ours passes them, and each finds a fault that is planted."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from checks import audit
from checks.database import CHECKS
from checks.migrations import squawk
from checks.secrets import repository, secrets
from local_stack.places import ROOT, SUPABASE
from local_stack.stack import Stack
from tests.support import Connection

# Which checks must see it, what to plant, and how to take it away again.
FAULTS = [
    (
        {"supabase db lint", "plpgsql_check"},
        "create function public.fault() returns int language plpgsql as 'begin return nobody; end'",
        "drop function public.fault()",
    ),
    (
        {"plpgsql_check"},
        """
        create function public.fault_of_trigger() returns trigger language plpgsql
          as 'begin new.none := 1; return new; end';
        create trigger fault before insert on public.widgets for each row execute function public.fault_of_trigger()
        """,
        "drop function public.fault_of_trigger() cascade",
    ),
    (
        {"supabase db advisors", "pgrls"},
        "create table public.fault_table (id int primary key)",
        "drop table public.fault_table",
    ),
    (
        {"open definers", "pgrls"},
        """
        create function widget_internal.fault_open() returns int language sql security definer set search_path = ''
          as 'select 1';
        grant execute on function widget_internal.fault_open() to anon
        """,
        "drop function widget_internal.fault_open()",
    ),
]


def test_the_database_passes(stack: Stack) -> None:
    """Supabase's own linters, plpgsql_check, pgrls and our list of open definers find nothing."""
    assert {name: check(stack) for name, check in CHECKS.items()} == {name: [] for name in CHECKS}


def test_faults_planted_in_the_database_are_found(stack: Stack, db: Connection) -> None:
    """Each fault by the checks that are there for it."""
    try:
        for _, plant, _ in FAULTS:
            db.execute(plant.encode())

        found = {name: "\n".join(check(stack)) for name, check in CHECKS.items()}
    finally:
        for _, _, remove in FAULTS:
            db.execute(remove.encode())

    for names, _, remove in FAULTS:
        fault = remove.split()[2].partition(".")[2].removesuffix("()")
        assert {name for name in names if fault in found[name]} == names, fault


def test_the_migrations_pass() -> None:
    """squawk finds nothing in them."""
    assert squawk(sorted((SUPABASE / "migrations").glob("*.sql"))) == []


def test_a_later_migration_must_not_lock_the_ledger(tmp_path: Path) -> None:
    """An index that is made while nobody can write is found, in files after the first release."""
    migration = tmp_path / "20990101000000_widget_pages.sql"
    migration.write_text("-- Why.\n\ncreate index if not exists pages on public.widget_analytics (page_url);\n")

    (finding,) = squawk([migration])

    assert finding.startswith(f"{migration.name}:3: require-concurrent-index-creation: ")


def test_no_secret_is_served(tmp_path: Path) -> None:
    """None of the built tracker; a planted one is found and not shown."""
    built = [file for file in repository() if file.is_relative_to(ROOT / "tracker" / "dist")]
    planted = tmp_path / "settings.ts"
    # In parts, so that none is planted in this file.
    lines = ("const id = 'AKIA", "QYLPMN5HFIQR7XYA';\nconst pass", "word = 'hunter2 and more';\n")
    planted.write_text("".join(lines))

    found = secrets([*built, planted])

    assert [file.suffix for file in built if file.suffix == ".js"]
    assert found == [f"{planted}:1: AWS Access Key", f"{planted}:2: Secret Keyword"]


def test_bandit_finds_a_shell(tmp_path: Path) -> None:
    """With the options of scripts/check."""
    planted = tmp_path / "planted.py"
    planted.write_text("import subprocess\n\nsubprocess.run('ls ' + input(), shell=True)\n")
    (command,) = [line for line in (ROOT / "scripts" / "check").read_text().splitlines() if line.startswith("bandit ")]
    options = command.split("--recursive")[0].split()[1:]

    done = subprocess.run(
        [ROOT / ".venv" / "bin" / "bandit", *options, planted], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "shell=True" in done.stdout


PACKAGE = {"name": "postgres", "versions": {"3.4.9": {"name": "postgres", "version": "3.4.9"}}}


@contextmanager
def service(answer: object, *, status: int = 200) -> Iterator[str]:
    """Stands where a service of known holes would: every question has the same answer, and it knows one package."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self._send(answer, status)

        def do_GET(self) -> None:
            self._send(PACKAGE, 200)

        def _send(self, what: object, status: int) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(what).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder that pins one Node package."""
    package = {"name": "x", "version": "1.0.0", "dependencies": {"postgres": "3.4.9"}}
    (tmp_path / "package.json").write_text(json.dumps(package))
    packages = {"": package, "node_modules/postgres": {"version": "3.4.9"}}
    lock = {"name": "x", "version": "1.0.0", "lockfileVersion": 3, "packages": packages}
    (tmp_path / "package-lock.json").write_text(json.dumps(lock))
    return tmp_path


def test_a_known_hole_of_a_node_package_is_found(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the service says of a pinned version is told; where it knows of nothing, nothing is."""
    hole = {"id": 1, "url": "", "title": "A hole", "severity": "high", "vulnerable_versions": "<4", "cwe": []}
    for answer, findings in (({"postgres": [hole]}, ["postgres: high"]), ({}, [])):
        with service(answer) as url:
            monkeypatch.setenv("npm_config_registry", url)

            assert audit.node_packages(project) == findings


def test_a_known_hole_of_a_functions_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function's own lock file is Deno's; all packages in it are asked about."""
    lock = tmp_path / "npm-lock.json"
    lock.write_text(json.dumps({"version": "5", "npm": {"@livekit/protocol@1.51.0": {}, "postgres@3.4.9": {}}}))
    hole = {"id": 1, "url": "", "title": "A hole", "severity": "high", "vulnerable_versions": "<4", "cwe": []}
    with service({"postgres": [hole]}) as url:
        monkeypatch.setenv("npm_config_registry", url)

        assert audit.deno_packages(lock) == ["postgres: high"]


def test_a_known_hole_of_a_python_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the versions that mend it."""
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"tenacity==9.0.0 --hash=sha256:{'0' * 64}\n")
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}]
    affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": ranges} for name in ("pip", "tenacity")]
    hole = {"id": "HOLE-1", "modified": "2026-01-01T00:00:00Z", "summary": "A hole", "affected": affected}
    with service({"vulns": [hole]}) as url:
        monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
        monkeypatch.setenv("PIP_AUDIT_OSV_URL", url)

        found = audit.python_packages(requirements)

    assert found == ["tenacity 9.0.0: HOLE-1 (mended in 99)"]


def test_an_audit_without_its_service_is_no_pass(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is skipped aloud, and fails where the audit is required."""
    monkeypatch.setattr(audit, "AUDITS", {"npm audit": lambda: audit.node_packages(project)})
    with service({"error": "no such thing"}, status=405) as url:
        monkeypatch.setenv("npm_config_registry", url)

        skipped = audit.main()
        said = capfd.readouterr().err
        monkeypatch.setenv("AUDIT_REQUIRED", "1")
        required = audit.main()

    assert (skipped, required) == (0, 1)
    assert "npm audit: SKIPPED, NOTHING WAS AUDITED: 405" in said
