"""Our packages are on no registry: whoever registered their names would run code at our users'."""

import json
import re
import shutil
import subprocess
import tomllib

import pytest

from local_stack.places import ROOT

INSTALL = re.compile(
    r"""\b(?:pip3?|pipx|uv|npm|npx|yarn|pnpm|bun|deno)\s+(?:(?:install|i|add|exec|tool|run|pip|-\S+)\s+)*[^\n|;&#]*"""
)


def our_names() -> set[str]:
    names = {tomllib.loads((ROOT / "python_client/pyproject.toml").read_text())["project"]["name"]}
    for package in ("tracker", "dashboard"):
        names.add(json.loads((ROOT / package / "package.json").read_text())["name"])
    return names


def hints_by_name(text: str, names: set[str]) -> list[str]:
    """The commands that would fetch one of our packages by its name."""
    bare = re.compile(r"(?:^|[\s'\"=])(?:" + "|".join(map(re.escape, sorted(names))) + r")(?=$|[\s'\"`\[@=<>~)])")
    return [hint.group() for hint in INSTALL.finditer(text) if bare.search(hint.group())]


@pytest.mark.parametrize(
    "hint",
    [
        "pip install widget-analytics",
        "pip install 'widget-analytics[report]'",
        "pip install --upgrade widget-analytics==1.0",
        "uv pip install widget-analytics",
        "pipx install widget-analytics",
    ],
)
def test_a_hint_by_name_is_found(hint: str) -> None:
    """So that the next test can fail."""
    assert hints_by_name(f"needs pyarrow: {hint}", our_names())


def test_every_hint_names_a_folder() -> None:
    """No file tells anybody to install our packages by their names."""
    git = shutil.which("git") or "git"
    files = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    names = our_names()

    found = {}
    for name in files.split("\0"):
        path = ROOT / name
        if name.endswith((".png", "test_install_hints.py", "package-lock.json")) or not path.is_file():
            continue
        if hints := hints_by_name(path.read_text(errors="replace"), names):
            found[name] = hints

    assert found == {}
