"""`python -m checks.migrations`: what squawk says of the migrations; its exceptions are in .squawk.toml."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from checks.findings import report
from local_stack.places import ROOT, SUPABASE, bare_environment

SQUAWK = ROOT / ".venv" / "bin" / "squawk"
CONFIG = ROOT / ".squawk.toml"

# Until then there is no ledger with rows and no client: all files of the first release run one after the other on
# empty tables. Of later files squawk also asks that they neither lock a large table for long, nor stumble over what is
# there, nor take away what somebody uses.
FIRST_RELEASE = "20261201000000"
FOR_LIVING_PROJECTS = (
    "adding-field-with-default",
    "adding-foreign-key-constraint",
    "adding-not-nullable-field",
    "adding-required-field",
    "ban-create-domain-with-constraint",
    "ban-drop-column",
    "ban-drop-constraint",
    "ban-drop-function",
    "ban-drop-not-null",
    "ban-drop-table",
    "changing-column-type",
    "constraint-missing-not-valid",
    "disallowed-unique-constraint",
    "prefer-robust-stmts",
    "renaming-column",
    "renaming-object",
    "renaming-table",
    "require-concurrent-index-creation",
    "require-concurrent-index-deletion",
)


def squawk(files: Sequence[Path]) -> list[str]:
    """A line for each finding in files of the first release and of later ones."""
    first = [file for file in files if file.name < FIRST_RELEASE]
    later = [file for file in files if file.name >= FIRST_RELEASE]
    return _run(first, FOR_LIVING_PROJECTS) + _run(later, ())


def _run(files: Sequence[Path], excluded: Sequence[str]) -> list[str]:
    if not files:
        return []
    # Rules that are excluded here take the place of those in the configuration.
    excluded = [*tomllib.loads(CONFIG.read_text())["excluded_rules"], *excluded]
    command: list[str | Path] = [
        SQUAWK,
        "--config",
        CONFIG,
        "--reporter=json",
        f"--exclude={','.join(excluded)}",
        *files,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=bare_environment(), check=False)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(f"squawk failed\n{done.stdout}{done.stderr}") from None
    return [f"{Path(one['file']).name}:{one['line'] + 1}: {one['rule_name']}: {one['message']}" for one in found]


def main() -> int:
    return report({"squawk": squawk(sorted((SUPABASE / "migrations").glob("*.sql")))})


if __name__ == "__main__":
    sys.exit(main())
