"""Chromium, Firefox and WebKit behind one small interface, for the browser tests and the delivery benchmark."""

from contextlib import AbstractContextManager

from local_stack.browsers.driver import Browser, BrowserError, Tab, Visitor

__all__ = ["ENGINES", "Browser", "BrowserError", "Tab", "Visitor", "is_installed", "launch"]

ENGINES = ("chromium", "firefox", "webkit")


def launch(engine: str, *, on_screen: bool = False) -> AbstractContextManager[Browser]:
    """Start a browser; it ends with the block. `on_screen` is for Chromium: with a window, as a person starts it."""
    # Imported when asked for: each engine needs programs of its own.
    if engine == "chromium":
        from local_stack.browsers.chromium import launch_chromium, launch_chromium_on_screen

        return launch_chromium_on_screen() if on_screen else launch_chromium()
    if engine == "firefox":
        from local_stack.browsers.firefox import launch_firefox

        return launch_firefox()
    if engine == "webkit":
        from local_stack.browsers.webkit import launch_webkit

        return launch_webkit()
    raise ValueError(f"{engine}: must be one of {', '.join(ENGINES)}")


def is_installed(engine: str) -> bool:
    """Whether the machine has what the engine needs; set-up installs it where the distribution offers it."""
    if engine == "firefox":
        from local_stack.browsers.firefox import executable

        return executable() is not None
    if engine == "webkit":
        from local_stack.browsers.webkit import missing_programs

        return not missing_programs()
    return True  # set-up fetches Chromium where the distribution has none
