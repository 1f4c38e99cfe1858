"""Chromium, driven by playwright."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser as PlaywrightBrowser
from playwright.sync_api import BrowserContext, Frame, Page, Playwright, sync_playwright
from playwright.sync_api import Error as PlaywrightError
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from local_stack.browsers.discards import DiscardsPage, discards_page, open_discards_page
from local_stack.browsers.driver import Browser, BrowserError, Tab, Visitor, called
from local_stack.browsers.screen import open_screen
from local_stack.places import bare_environment
from local_stack.processes import Child, await_condition

# Names under .example are this machine; nothing else is looked up or called home.
_ARGUMENTS = [
    "--no-sandbox",  # it has none for root, and opens only our own pages
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP *.example 127.0.0.1",
]


def _executable() -> str | None:
    """The distribution's; without one playwright uses its own."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def launch(playwright: Playwright) -> PlaywrightBrowser:
    return playwright.chromium.launch(
        executable_path=_executable(),
        args=_ARGUMENTS,
        # Playwright switches the back/forward cache off, and it is one of the things to test.
        ignore_default_args=["--disable-back-forward-cache"],
    )


@contextmanager
def launch_chromium() -> Iterator["Chromium"]:
    with sync_playwright() as playwright, launch(playwright) as running:
        yield Chromium(running)


@contextmanager
def launch_chromium_on_screen() -> Iterator["ChromiumOnScreen"]:
    """As a person starts it: with a window and one profile. Only so it ends with its last window."""
    with (
        tempfile.TemporaryDirectory(prefix="widget-chromium-", ignore_cleanup_errors=True) as folder,
        open_screen(Path(folder)) as display,
        sync_playwright() as playwright,
    ):
        child = Child(
            "Chromium",
            [
                _executable() or playwright.chromium.executable_path,
                *_ARGUMENTS,
                "--ozone-platform=x11",
                "--remote-debugging-port=0",
                f"--user-data-dir={folder}/profile",
                "about:blank",
            ],
            log=Path(folder) / "log",
            environment=bare_environment(HOME=folder, DISPLAY=display),
        )
        try:
            address = child.await_output(r"listening on (ws://\S+)", seconds=60)[1]
            yield ChromiumOnScreen(playwright.chromium.connect_over_cdp(address), child, address)
        finally:
            child.stop()


class Chromium(Browser):
    engine = "chromium"

    def __init__(self, running: PlaywrightBrowser) -> None:
        self._running = running

    def new_visitor(self) -> "ChromiumVisitor":
        return ChromiumVisitor(self._running.new_context())

    def quit(self) -> None:
        self._running.close()

    def terminate(self) -> None:
        raise NotImplementedError("playwright owns this one's process: launch it on a screen")


class ChromiumOnScreen(Chromium):
    def __init__(self, running: PlaywrightBrowser, child: Child, address: str) -> None:
        super().__init__(running)
        self._child = child
        self._address = address

    def new_visitor(self) -> "ChromiumVisitor":
        """The one whose profile it is, before the tab that it opens with."""
        return OnlyVisitor(self._running.contexts[0])

    def quit(self) -> None:
        self.let_go()
        with connect(self._address) as socket, suppress(ConnectionClosed):
            socket.send(json.dumps({"id": 1, "method": "Browser.close"}))
            socket.recv(timeout=30)
        self._await_end()

    def terminate(self) -> None:
        self.let_go()
        os.kill(self._child.pid, signal.SIGTERM)
        self._await_end()

    @contextmanager
    def discards_page(self) -> Iterator[DiscardsPage]:
        """Freezes and discards tabs, once `let_go` is called: those that are driven are spared."""
        open_discards_page(self._running.contexts[0])
        with discards_page(self._address) as page:
            yield page

    def let_go(self) -> None:
        """Playwright has pages believe that they are in front, whatever happens to them: they would miss their end."""
        self._running.close()

    def _await_end(self) -> None:
        await_condition("ending Chromium", lambda: not self._child.is_running, seconds=30, explain=self._child.output)


class ChromiumVisitor(Visitor):
    def __init__(self, context: BrowserContext) -> None:
        super().__init__()
        self.context = context
        context.set_default_timeout(30_000)

    def _open_tab(self) -> "ChromiumTab":
        return ChromiumTab(self.context.new_page())

    def _open_window(self) -> "ChromiumTab":
        session = self.context.new_cdp_session(self.context.pages[0])
        context_id = session.send("Target.getTargetInfo")["targetInfo"].get("browserContextId")
        with self.context.expect_page() as opened:
            session.send(
                "Target.createTarget", {"url": "about:blank", "newWindow": True, "browserContextId": context_id}
            )
        return ChromiumTab(opened.value)

    def set_offline(self, is_offline: bool) -> None:
        try:
            self.context.set_offline(is_offline)
        except PlaywrightError:  # a tab was just closing, and is gone now
            self.context.set_offline(is_offline)

    def close(self) -> None:
        self.context.close()


class OnlyVisitor(ChromiumVisitor):
    def _open_tab(self) -> "ChromiumTab":
        return ChromiumTab(self.context.new_page() if self.tabs else self.context.pages[0])


class ChromiumTab(Tab):
    def __init__(self, page: Page) -> None:
        self.page = page
        page.on("dialog", lambda dialog: dialog.accept())

    def goto(self, url: str) -> None:
        self.page.goto(url)

    def evaluate(self, script: str, *arguments: Any, frame: bool = False) -> Any:
        target: Page | Frame = self.page
        if frame:
            if len(self.page.frames) < 2:
                raise BrowserError("the page has no frame")
            target = self.page.frames[1]
        try:
            return target.evaluate(called(script, arguments))
        except PlaywrightError as error:
            raise BrowserError(str(error)) from None

    def back(self) -> None:
        self.page.go_back(wait_until="commit")  # a page from the cache does not load

    def close(self) -> None:
        self.page.close(run_before_unload=True)

    def close_window(self) -> None:
        self.page.close(run_before_unload=True)  # the only tab in it

    def crash(self) -> None:
        with self.page.expect_event("crash"), suppress(PlaywrightError):  # the page is gone, as it should be
            self.page.goto("chrome://crash", timeout=5_000)
        self.page.close()  # what is left of it could not be told that the network is off
