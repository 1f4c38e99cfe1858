"""`python -m checks.audit`: known holes in the packages that are pinned, by pip-audit and `npm audit`.

Both ask a service. Where it cannot be reached they are skipped, and say so: with AUDIT_REQUIRED=1 that fails.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from checks.findings import report
from local_stack.places import ROOT

BIN = ROOT / ".venv" / "bin"


class NotReachable(Exception):
    """The service that knows the holes does not answer, or not as that service does."""


def python_packages(requirements: Path) -> list[str]:
    """pip-audit on a lock file. First it asks for one package that the service is sure to know."""
    with tempfile.TemporaryDirectory() as folder:
        known = Path(folder, "requirements.txt")
        known.write_text("pip==25.0\n")
        if "skip_reason" in _pip_audit(known)[0]:
            raise NotReachable("the vulnerability service of PyPI does not know pip itself")
    audited = _pip_audit(requirements, "--require-hashes")
    return [_python_finding(package) for package in audited if package.get("vulns") or "skip_reason" in package]


def _python_finding(package: dict[str, Any]) -> str:
    if "skip_reason" in package:
        return f"{package['name']}: {package['skip_reason']}"
    holes = ", ".join(f"{hole['id']} (mended in {' '.join(hole['fix_versions'])})" for hole in package["vulns"])
    return f"{package['name']} {package['version']}: {holes}"


def _pip_audit(requirements: Path, *options: str) -> list[dict[str, Any]]:
    fixed = ("--disable-pip", "--no-deps", "--format=json", "--progress-spinner=off")
    done = _run([BIN / "pip-audit", "--requirement", requirements, *fixed, *options])
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last_words = done.stderr.strip().splitlines()[-1:]
        if any(word in done.stderr for word in ("ConnectionError", "Could not connect", "timed out", "Max retries")):
            raise NotReachable(*last_words) from None
        raise RuntimeError(f"pip-audit failed\n{done.stderr}") from None
    return packages


def node_packages(folder: Path) -> list[str]:
    """`npm audit` on a folder's lock file."""
    done = _run([BIN / "npm", "audit", "--json", "--prefix", folder])
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(f"npm audit failed\n{done.stderr}") from None
    if "auditReportVersion" in answer:
        return [f"{name}: {hole['severity']}" for name, hole in answer["vulnerabilities"].items()]
    raise NotReachable(answer.get("message") or answer.get("error", {}).get("summary") or "no answer")


def deno_packages(lock: Path) -> list[str]:
    """The npm packages of a function's lock file, by `npm audit`, which reads its own kind alone."""
    # Such as jose@5.10.0, and after a _ what it is installed beside.
    names = (name.partition("_")[0].rpartition("@") for name in json.loads(lock.read_text())["npm"])
    pinned = {name: version for name, _, version in names}
    project = {"name": "function", "version": "0.0.0", "dependencies": pinned}
    packages = {f"node_modules/{name}": {"version": version} for name, version in pinned.items()}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "package.json").write_text(json.dumps(project))
        content = {**project, "lockfileVersion": 3, "packages": {"": project, **packages}}
        Path(folder, "package-lock.json").write_text(json.dumps(content))
        return node_packages(Path(folder))


def _run(command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False
    )


AUDITS: dict[str, Callable[[], list[str]]] = {
    "pip-audit": lambda: python_packages(ROOT / "requirements.txt"),
    "npm audit": lambda: node_packages(ROOT),
    "npm audit of the tracker": lambda: node_packages(ROOT / "tracker"),
    "npm audit of the functions": lambda: deno_packages(ROOT / "supabase/functions/providers/npm-lock.json"),
}


def main() -> int:
    found: dict[str, list[str]] = {}
    for name, audit in AUDITS.items():
        try:
            found[name] = audit()
        except NotReachable as reason:
            if os.environ.get("AUDIT_REQUIRED") == "1":
                found[name] = [f"not reachable: {reason}"]
            else:
                print(f"{name}: SKIPPED, NOTHING WAS AUDITED: {reason}", file=sys.stderr)
    return report(found) if found else 0


if __name__ == "__main__":
    sys.exit(main())
