"""`python -m checks.secrets`: what detect-secrets finds in the files of the repository and in the built tracker."""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.core.secrets_collection import SecretsCollection
from detect_secrets.settings import transient_settings

from checks.findings import report
from local_stack.places import ROOT

# Each is a value that opens nothing, and why it stands there.
EXCEPTIONS = (
    (r"SUPABASE_SECRET_KEY", "the name of the variable, not its value"),
    (r"sb_(secret|publishable)_[a-z_]*(\\ndef)?", "a made-up key of tests: real ones are longer and have digits"),
    (r"correct horse battery( staple)?", "a made-up password of tests"),
    (r"demo-password", "of accounts with made-up data, on this machine alone"),
    (r"testing", "what the archive's tests give a store of their own"),
    (r"(cron-)?secret", "a made-up CRON_SECRET of tests"),
    (r"eyJhbGciOiJub25lIn0\.e30\.", "a token with the algorithm `none`, which a test sees refused"),
    (r"eyJhbGciOiJIUzI1NiJ9\.eyJyb2xlIjoi\w+\.(c2lnbmF0dXJl)?", "tokens of tests, signed `signature`"),
    (r"(APIxxxx:|webhook_|(ultravox|vapi)-)secret|(test-api-)?key", "made-up secrets of providers, in tests and docs"),
    (r"MDEyMzQ1Njc4OWFiY2RlZjAx\w+=|whsec_MfKQ9r8G\w+|ICkSr2rEeslk\w+", "in published tests of signatures"),
)

# Numbers of any kind look random to these; keys of all services that we use have a form of their own or a name.
_NOT_USED = {"Base64HighEntropyString", "HexHighEntropyString"}
# Made by tools: hashes of packages, which are meant to be public.
_MADE = ("requirements.txt", "package-lock.json", "npm-lock.json")


def secrets(files: Iterable[Path]) -> list[str]:
    """A line for each value that looks like a secret and is none of the exceptions; it is not shown."""
    found = SecretsCollection()
    with transient_settings(_settings()):
        for file in files:
            found.scan_file(str(file))
    return [
        f"{path}:{secret.line_number}: {secret.type}"
        for path, secret in found
        if not any(re.fullmatch(value, secret.secret_value or "") for value, _ in EXCEPTIONS)
    ]


def repository() -> list[Path]:
    """What git has or would take, and what is served to browsers."""
    listed = subprocess.run(
        ["/usr/bin/env", "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    files = [ROOT / name for name in listed.split("\0") if name]
    built = (ROOT / "tracker" / "dist").rglob("*")
    return [file for file in (*files, *built) if file.is_file() and file.name not in _MADE]


def _settings() -> dict[str, object]:
    classes: Iterable[type] = get_mapping_from_secret_type_to_class().values()
    plugins = [plugin.__name__ for plugin in classes]
    return {"plugins_used": [{"name": name} for name in sorted(plugins) if name not in _NOT_USED]}


def main() -> int:
    return report({"detect-secrets": secrets(repository())})


if __name__ == "__main__":
    sys.exit(main())
