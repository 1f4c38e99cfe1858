"""Where things are in a checkout that has been set up."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUPABASE = ROOT / "supabase"
GATEWAY = ROOT / "local_stack" / "gateway"
RUN = ROOT / ".stack"

_BIN = ROOT / ".venv" / "bin"
NODE = _BIN / "node"
DENO = _BIN / "deno"
DENO_CACHE = ROOT / ".venv" / "deno"
SUPABASE_CLI = ROOT / "node_modules" / "supabase" / "dist" / "supabase.js"


def bare_environment(**more: str) -> dict[str, str]:
    """What a child process starts with: nothing of the caller's but where to find programs."""
    environment = {
        "PATH": f"{_BIN}{os.pathsep}/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
    }
    if "TMPDIR" in os.environ:
        environment["TMPDIR"] = os.environ["TMPDIR"]
    return environment | more
