"""Chromium, driven by playwright."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from playwright.sync_api import Browser as PlaywrightBrowser
from playwright.sync_api import BrowserContext, Frame, Page, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from local_stack.browsers.driver import Browser, BrowserError, Tab, Visitor, called
from local_stack.chromium import launch


@contextmanager
def launch_chromium() -> Iterator["Chromium"]:
    with sync_playwright() as playwright, launch(playwright) as running:
        yield Chromium(running)


class Chromium(Browser):
    engine = "chromium"

    def __init__(self, running: PlaywrightBrowser) -> None:
        self._running = running

    def new_visitor(self) -> "ChromiumVisitor":
        return ChromiumVisitor(self._running.new_context())

    def quit(self) -> None:
        self._running.new_browser_cdp_session().send("Browser.close")


class ChromiumVisitor(Visitor):
    def __init__(self, context: BrowserContext) -> None:
        super().__init__()
        self.context = context
        context.set_default_timeout(30_000)

    def _open_tab(self) -> "ChromiumTab":
        return ChromiumTab(self.context.new_page())

    def set_offline(self, is_offline: bool) -> None:
        try:
            self.context.set_offline(is_offline)
        except PlaywrightError:  # a tab was just closing, and is gone now
            self.context.set_offline(is_offline)

    def close(self) -> None:
        self.context.close()


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

    def crash(self) -> None:
        with self.page.expect_event("crash"), suppress(PlaywrightError):  # the page is gone, as it should be
            self.page.goto("chrome://crash", timeout=5_000)
