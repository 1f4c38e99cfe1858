"""How the command answers: help, wrong options, wrong settings, each with its exit code and one line."""

from pathlib import Path

import pytest

from local_stack.stack import Stack
from tests.client_support import environment, run, run_process


def test_the_version_is_the_packages(stack: Stack, tmp_path: Path) -> None:
    """`--version` prints it and nothing else."""
    from widget_analytics import __version__

    done = run_process(environment(stack), tmp_path, "--version")

    assert (done.returncode, done.stdout, done.stderr) == (0, f"widget-analytics {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["export", "cleanup", "status", "Exit codes", "SUPABASE_SECRET_KEY"]),
        (("export",), ["--month", "--from", "--to", "--widget", "--detail", "--format", "--output", "--as-of"]),
        (("cleanup",), ["--stale-after"]),
        (("status",), ["35 minutes"]),
    ],
)
def test_help_names_what_there_is(stack: Stack, tmp_path: Path, arguments: tuple[str, ...], words: list[str]) -> None:
    """Each command explains itself."""
    done = run(environment(stack, COLUMNS="120"), tmp_path, *arguments, "--help")

    assert done.returncode == 0
    for word in words:
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("--month", "2026-13"), "--month: '2026-13' is not a month; write it as 2026-10"),
        ((), "say which period: --month 2026-10, or both --from 2026-10-01 and --to 2026-11-01"),
        (("--from", "2026-10-01"), "say which period"),
        (("--month", "2026-10", "--to", "2026-10-05"), "say which period"),
        (("--from", "2026-10-01", "--to", "yesterday"), "--to: 'yesterday' is not a date or time"),
        (("--from", "2026-10-02", "--to", "2026-10-01"), "the period is empty"),
        (("--month", "2026-10", "--as-of", "then"), "--as-of: 'then' is not a date or time"),
    ],
)
def test_a_wrong_period_is_explained_in_one_line(
    stack: Stack, tmp_path: Path, arguments: tuple[str, ...], advice: str
) -> None:
    """Exit code 2, before anything is sent or written."""
    done = run(environment(stack), tmp_path, "export", *arguments, "--output", "bill.csv")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"widget-analytics: {advice}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("--widget", "7"), ("--detail", "bills"), ("--format", "pdf"), ("--moth", "1")])
def test_a_wrong_option_is_refused(stack: Stack, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Exit code 2, with the option named."""
    done = run(environment(stack), tmp_path, "export", "--month", "2026-10", *arguments)

    assert done.returncode == 2
    assert arguments[0] in done.stderr


EXPORT = ("export", "--month", "1981-01")


@pytest.mark.parametrize(
    ("arguments", "changes", "code", "advice"),
    [
        (EXPORT, {"SUPABASE_SECRET_KEY": "sb_secret_wrong"}, 3, "the API does not accept the key"),
        (("cleanup",), {"SUPABASE_SECRET_KEY": "sb_secret_wrong"}, 3, "the API does not accept the key"),
        (("status",), {"SUPABASE_SECRET_KEY": "sb_secret_wrong"}, 3, "the API does not accept the key"),
        (EXPORT, {"SUPABASE_SECRET_KEY": "sb_publishable_x"}, 3, "SUPABASE_SECRET_KEY holds a publishable key"),
        (EXPORT, {"SUPABASE_SECRET_KEY": ""}, 3, "no key: set SUPABASE_SECRET_KEY"),
        (EXPORT, {"SUPABASE_URL": ""}, 3, "no API URL: set SUPABASE_URL"),
        (EXPORT, {"SUPABASE_URL": "http://127.0.0.1:1"}, 4, "cannot reach 127.0.0.1"),
        (("status",), {"SUPABASE_URL": "http://127.0.0.1:1"}, 4, "cannot reach 127.0.0.1"),
    ],
)
def test_a_wrong_setting_is_explained_in_one_line(
    stack: Stack, tmp_path: Path, arguments: tuple[str, ...], changes: dict[str, str], code: int, advice: str
) -> None:
    """The same for each command; nothing on standard output, no traceback, no key."""
    done = run(environment(stack, **changes), tmp_path, *arguments)

    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"widget-analytics: {advice}")
    assert done.stderr.count("\n") == 1
    for key in ("sb_secret_wrong", "sb_publishable_x", stack.secret_key):
        assert key not in done.stderr


def test_the_publishable_key_alone_is_not_enough(stack: Stack, tmp_path: Path) -> None:
    """The message names the key that is."""
    env = environment(stack, SUPABASE_SECRET_KEY="", SUPABASE_PUBLISHABLE_KEY=stack.publishable_key)

    done = run(env, tmp_path, "status")

    assert (done.returncode, done.stdout) == (3, "")
    assert "SUPABASE_SECRET_KEY" in done.stderr
    assert stack.publishable_key not in done.stderr
