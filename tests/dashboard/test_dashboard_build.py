"""The page's own package: its types, its settings, and its size."""

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

from local_stack.places import NODE, ROOT, bare_environment

DASHBOARD = ROOT / "dashboard"


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [NODE, *command], cwd=folder, env=bare_environment(**environment), capture_output=True, text=True, check=False
    )


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy to build in: the stack serves the original meanwhile."""
    folder = tmp_path / "dashboard"
    shutil.copytree(DASHBOARD, folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (folder / "node_modules").symlink_to(DASHBOARD / "node_modules")
    return folder


def test_types() -> None:
    """Strict types hold."""
    done = run(DASHBOARD, "node_modules/typescript/bin/tsc", "--noEmit")

    assert done.returncode == 0, done.stdout + done.stderr


def test_a_build_takes_its_settings_from_the_environment(package: Path) -> None:
    """They stand in the page, and its policy lets it reach that project alone."""
    done = run(
        package,
        "build.mjs",
        SUPABASE_URL="https://abc.supabase.co/",
        SUPABASE_PUBLISHABLE_KEY="sb_publishable_x",
        BILLING_CONTACT="billing@company.example",
    )

    page = (package / "dist" / "index.html").read_text()
    assert done.returncode == 0, done.stderr
    assert "connect-src https://abc.supabase.co;" in page
    assert 'content="sb_publishable_x"' in page
    assert 'content="billing@company.example"' in page
    assert "%SUPABASE" not in page


# {"alg":"HS256"} . {"role":"service_role"} . no signature
SERVICE_ROLE = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.x"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"SUPABASE_PUBLISHABLE_KEY": "sb_secret_x"}, "is a secret key"),
        ({"SUPABASE_PUBLISHABLE_KEY": SERVICE_ROLE}, "is a secret key"),
        ({"SUPABASE_URL": "abc.supabase.co"}, "must be a URL"),
        ({"SUPABASE_URL": "https://abc.supabase.co; script-src *"}, "must have no spaces"),
        ({"BILLING_CONTACT": "javascript:alert(1)"}, "must be an e-mail address or an https:// address"),
    ],
    ids=["secret key", "service role", "no URL", "a policy of its own", "a script"],
)
def test_a_bad_setting_is_refused(package: Path, settings: dict[str, str], complaint: str) -> None:
    """Above all a secret key, which everybody could read in the page. Nothing is written."""
    done = run(package, "build.mjs", **settings)

    assert done.returncode == 1
    assert next(iter(settings)) in done.stderr
    assert complaint in done.stderr
    assert not (package / "dist").exists()


def test_size() -> None:
    """What a browser loads once stays within 160 kB; the build fails over it, too."""
    script = (DASHBOARD / "dist" / "dashboard.js").read_bytes()

    assert len(gzip.compress(script, compresslevel=9)) <= 160 * 1024
