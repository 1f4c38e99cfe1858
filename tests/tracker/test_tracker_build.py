"""The package itself: its types, its unit tests, and its size."""

import gzip
import subprocess

import pytest

from local_stack.places import NODE, ROOT, bare_environment

TRACKER = ROOT / "tracker"


@pytest.mark.parametrize(
    "command",
    [["node_modules/typescript/bin/tsc", "--noEmit", "-p", "tsconfig.test.json"], ["test/run.mjs"]],
    ids=["types", "unit tests"],
)
def test_package(command: list[str]) -> None:
    """Strict types hold, and the queue's and the sender's rules with them."""
    done = subprocess.run([NODE, *command], cwd=TRACKER, env=bare_environment(), capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_size_budget() -> None:
    """What a customer's page loads stays within its budget; the build fails over it, too."""
    script = (TRACKER / "dist" / "usage.min.js").read_bytes()

    assert len(gzip.compress(script, compresslevel=9)) <= 2192
