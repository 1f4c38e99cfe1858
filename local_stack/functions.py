"""Edge Functions: one Deno process each, with no more permissions than it needs."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from local_stack.places import DENO, DENO_CACHE, SUPABASE, bare_environment
from local_stack.processes import Child

# What the platform puts into a function's environment, and what its owner may configure.
ENVIRONMENT = (
    "SUPABASE_URL",
    "SUPABASE_ANON_KEY",
    "SUPABASE_SERVICE_ROLE_KEY",
    "SUPABASE_PUBLISHABLE_KEYS",
    "SUPABASE_SECRET_KEYS",
    "CRON_SECRET",
    "CLEANUP_ALLOW_UNAUTHENTICATED",
    "PROVIDERS_PUBLIC_URL",
    "DAILY_WEBHOOK_SECRET",
    "ELEVENLABS_WEBHOOK_SECRET",
    "LIVEKIT_WEBHOOK_SECRET",
    "RETELL_WEBHOOK_SECRET",
    "TWILIO_WEBHOOK_SECRET",
    "ULTRAVOX_WEBHOOK_SECRET",
    "VAPI_WEBHOOK_SECRET",
    "BUF_BIGINT_DISABLE",  # the LiveKit SDK's Protocol Buffers ask for it
)


def function_names(supabase: Path = SUPABASE) -> Iterator[str]:
    """The functions that have an entry point; each must say in config.toml that it checks its callers."""
    configured = tomllib.loads((supabase / "config.toml").read_text()).get("functions", {})
    for entry in sorted(supabase.glob("functions/*/index.ts")):
        name = entry.parent.name
        if name.startswith("_"):
            continue
        if configured.get(name, {}).get("verify_jwt") is not False:
            # The local gateway does not do what `verify_jwt` asks for: better none than an open one.
            raise RuntimeError(f"[functions.{name}] in supabase/config.toml must set verify_jwt = false")
        yield name


class EdgeFunction(Child):
    """One function behind a port of its own."""

    def __init__(self, name: str, *, environment: Mapping[str, str], directory: Path) -> None:
        home = SUPABASE / "functions" / name
        lock = home / "npm-lock.json"
        command: list[str | Path] = [
            DENO,
            "run",
            "--no-prompt",
            *(["--lock", lock, "--frozen"] if lock.exists() else ["--no-lock"]),
            "--cached-only",  # nothing is fetched at run time
            "--allow-net=127.0.0.1",
            f"--allow-env={','.join(ENVIRONMENT)}",
            "--config",
            home / "deno.json",
            home / "index.ts",
        ]
        super().__init__(
            f"function {name}",
            command,
            log=directory / f"function-{name}.log",
            environment=bare_environment(
                **environment,
                DENO_DIR=str(DENO_CACHE),
                DENO_NO_PACKAGE_JSON="1",
                DENO_NO_UPDATE_CHECK="1",
                DENO_SERVE_ADDRESS="tcp:127.0.0.1:0",
            ),
        )

    def await_port(self) -> int:
        return int(self.await_output(r"Listening on http://127\.0\.0\.1:(\d+)")[1])
