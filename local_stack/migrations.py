"""Applies supabase/migrations with the Supabase CLI."""

import shutil
import subprocess
from pathlib import Path

from local_stack.places import NODE, ROOT, SUPABASE, SUPABASE_CLI, bare_environment


def supabase(*arguments: str, home: Path, workdir: Path = ROOT, seconds: float = 120) -> str:
    """Run the Supabase CLI and return what it printed.

    It gets a home of its own: it must find no login there, ask nothing, and report to nobody.
    """
    process = subprocess.run(
        [NODE, SUPABASE_CLI, *arguments, "--workdir", workdir],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        env=bare_environment(
            HOME=str(home),
            SUPABASE_HOME=str(home),
            SUPABASE_TELEMETRY_DISABLED="1",
            DO_NOT_TRACK="1",
            SUPABASE_NO_UPDATE_NOTIFIER="1",
            SUPABASE_NO_KEYRING="1",
        ),
    )
    output = process.stdout + process.stderr
    if process.returncode != 0:
        raise RuntimeError(f"supabase {' '.join(arguments)} failed\n{output}")
    return output


def push(database_url: str, *, home: Path, workdir: Path = ROOT, seed: bool = False) -> str:
    """Apply what the database has not seen yet, with the rights of the URL's role."""
    arguments = ["db", "push", f"--remote={database_url}", "--yes", "--skip-vault"]
    return supabase(*arguments, *(["--include-seed"] if seed else []), home=home, workdir=workdir)


def without_schedules(workdir: Path) -> Path:
    """A copy of the migrations in `workdir`, less what a project without pg_cron leaves out."""
    folder = workdir / "supabase" / "migrations"
    folder.mkdir(parents=True)
    for migration in (SUPABASE / "migrations").glob("*.sql"):
        if not migration.stem.endswith("_schedule"):
            shutil.copy(migration, folder)
    shutil.copy(SUPABASE / "config.toml", workdir / "supabase")
    return workdir
