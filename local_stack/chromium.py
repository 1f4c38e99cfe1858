"""The browser of the tests and the benchmark: Debian's Chromium, driven by playwright."""

import shutil

from playwright.sync_api import Browser, Playwright

# Names under .example are this machine; nothing else is looked up or called home.
ARGUMENTS = [
    "--no-sandbox",  # it has none for root, and opens only our own pages
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP *.example 127.0.0.1",
]


def executable() -> str | None:
    """The distribution's; without one playwright uses its own."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def launch(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(
        executable_path=executable(),
        args=ARGUMENTS,
        # Playwright switches the back/forward cache off, and it is one of the things to test.
        ignore_default_args=["--disable-back-forward-cache"],
    )
