"""Firefox, driven by WebDriver BiDi over its own socket: no further program is needed."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from psutil import NoSuchProcess, Process
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from local_stack.browsers.driver import Browser, BrowserError, Tab, Visitor, called
from local_stack.places import bare_environment
from local_stack.processes import Child, await_condition

_PREFERENCES: Mapping[str, bool | int | str] = {
    # Nothing but the pages asks for anything.
    "app.update.auto": False,
    "app.update.enabled": False,
    "browser.safebrowsing.blockedURIs.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.search.update": False,
    "datareporting.healthreport.uploadEnabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.systemAddon.update.enabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
    "toolkit.telemetry.unified": False,
    # Quitting asks nobody.
    "browser.sessionstore.resume_from_crash": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.tabs.warnOnClose": False,
    "browser.warnOnQuit": False,
    "toolkit.startup.max_resumed_crashes": -1,
}


def executable() -> str | None:
    return shutil.which("firefox-esr") or shutil.which("firefox")


@contextmanager
def launch_firefox() -> Iterator["Firefox"]:
    program = executable()
    if program is None:
        raise BrowserError("Firefox is not installed")
    # Firefox may still write there while it ends.
    with tempfile.TemporaryDirectory(prefix="widget-firefox-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        (home / "user.js").write_text(
            "".join(f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in _PREFERENCES.items())
        )
        child = Child(
            "Firefox",
            [
                program,
                "--headless",
                "--no-remote",
                "--profile",
                home,
                "--remote-debugging-port=0",
                "--remote-allow-system-access",
            ],
            log=home / "log",
            environment=bare_environment(HOME=folder),
        )
        try:
            address = child.await_output(r"listening on (ws://\S+)", seconds=60)[1]
            with connect(f"{address}/session", max_size=None, compression=None, open_timeout=30) as socket:
                browser = Firefox(socket, child)
                yield browser
        finally:
            child.stop()


class Firefox(Browser):
    engine = "firefox"

    def __init__(self, socket: Connection, child: Child) -> None:
        self._socket = socket
        self._child = child
        self._last_id = 0
        self.command("session.new", capabilities={"alwaysMatch": {"unhandledPromptBehavior": {"default": "accept"}}})

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        self._last_id += 1
        self._socket.send(json.dumps({"id": self._last_id, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == self._last_id:
                break
        if message["type"] != "success":
            raise BrowserError(f"{method}: {message['error']}: {message['message']}")
        result: dict[str, Any] = message["result"]
        return result

    def new_visitor(self) -> "FirefoxVisitor":
        return FirefoxVisitor(self)

    def quit(self) -> None:
        with suppress(ConnectionClosed):
            self.command("browser.close")
        self.await_end()

    def quit_by_menu(self) -> None:
        self.in_window("goQuitApplication({ ctrlKey: true })")
        self.await_end()

    def terminate(self) -> None:
        os.kill(self._child.pid, signal.SIGTERM)
        self.await_end()

    def await_end(self) -> None:
        await_condition("quitting Firefox", lambda: not self._child.is_running, seconds=30, explain=self._child.output)

    def windows(self) -> int:
        return len(self.command("browsingContext.getTree", **{"moz:scope": "chrome"})["contexts"])

    def in_window(self, script: str) -> None:
        """Run a function of Firefox's own newest window, as its menus and shortcuts do."""
        [*_, window] = self.command("browsingContext.getTree", **{"moz:scope": "chrome"})["contexts"]
        with suppress(ConnectionClosed):
            self.command(
                "script.evaluate",
                # Later: what closes the window would close the answer's way, too.
                expression=f"void setTimeout(() => {{ {script} }})",
                target={"context": window["context"]},
                awaitPromise=False,
            )

    def kill_pages(self) -> None:
        """Ends every process that runs pages; Firefox starts them through a process of its own."""
        for process in Process(self._child.pid).children(recursive=True):
            with suppress(NoSuchProcess):
                if process.cmdline()[-1:] == ["tab"]:
                    process.kill()


class FirefoxVisitor(Visitor):
    def __init__(self, browser: Firefox) -> None:
        super().__init__()
        self.browser = browser
        self._context = browser.command("browser.createUserContext")["userContext"]

    def _open_tab(self) -> "FirefoxTab":
        return self._open("tab")

    def _open_window(self) -> "FirefoxTab":
        return self._open("window")

    def _open(self, kind: str) -> "FirefoxTab":
        create = partial(self.browser.command, "browsingContext.create", type=kind, userContext=self._context)
        try:
            created = create()
        except TimeoutError:
            # Seen in a long run of tests: no answer to this one command, while the browser went on answering others.
            created = create()
        return FirefoxTab(self.browser, created["context"])

    def set_offline(self, is_offline: bool) -> None:
        self.browser.command(
            "emulation.setNetworkConditions",
            networkConditions={"type": "offline"} if is_offline else None,
            userContexts=[self._context],
        )

    def close(self) -> None:
        self.browser.command("browser.removeUserContext", userContext=self._context)


class FirefoxTab(Tab):
    def __init__(self, browser: Firefox, context: str) -> None:
        self.browser = browser
        self._context = context

    def goto(self, url: str) -> None:
        self.browser.command("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, script: str, *arguments: Any, frame: bool = False) -> Any:
        answer = self.browser.command(
            "script.evaluate",
            expression=called(script, arguments),
            target={"context": self._frame() if frame else self._context},
            awaitPromise=True,
        )
        if answer["type"] == "exception":
            raise BrowserError(answer["exceptionDetails"]["text"])
        return _to_python(answer["result"])

    def _frame(self) -> str:
        [tree] = self.browser.command("browsingContext.getTree", root=self._context)["contexts"]
        if not tree["children"]:
            raise BrowserError("the page has no frame")
        context: str = tree["children"][0]["context"]
        return context

    def back(self) -> None:
        self.browser.command("browsingContext.traverseHistory", context=self._context, delta=-1)

    def close(self) -> None:
        self.browser.command("browsingContext.activate", context=self._context)
        self.browser.in_window("BrowserCommands.closeTabOrWindow({})")
        await_condition("closing a tab", self._is_closed, seconds=30, explain=str)

    def close_window(self) -> None:
        is_last = self.browser.windows() == 1
        self.browser.in_window("BrowserCommands.tryToCloseWindow({})")
        if is_last:
            self.browser.await_end()
        else:
            await_condition("closing a window", self._is_closed, seconds=30, explain=str)

    def _is_closed(self) -> bool:
        try:
            self.browser.command("browsingContext.getTree", root=self._context)
        except BrowserError:
            return True
        return False

    def crash(self) -> None:
        self.browser.kill_pages()


def _to_python(value: dict[str, Any]) -> Any:
    kind, inner = value["type"], value.get("value")
    if kind in ("array", "set"):
        return [_to_python(item) for item in inner or []]
    if kind == "object":
        return {name: _to_python(item) for name, item in inner or []}
    return inner
