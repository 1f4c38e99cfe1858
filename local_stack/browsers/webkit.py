"""WebKitGTK's own small browser, driven by WebDriver over HTTP; it has no headless mode, so it gets a screen."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from psutil import NoSuchProcess, Process

from local_stack.browsers.driver import Browser, BrowserError, Tab, Visitor, called
from local_stack.browsers.screen import open_screen
from local_stack.places import bare_environment
from local_stack.processes import Child, await_condition

_MINI_BROWSERS = ("/usr/lib/*/webkit2gtk-4.1/MiniBrowser", "/usr/lib*/webkit2gtk-4.1/MiniBrowser")


def mini_browser() -> Path | None:
    return next((path for pattern in _MINI_BROWSERS for path in Path("/").glob(pattern.lstrip("/"))), None)


def missing_programs() -> list[str]:
    missing = [name for name in ("WebKitWebDriver", "Xvfb") if shutil.which(name) is None]
    return missing if mini_browser() else [*missing, "MiniBrowser"]


@contextmanager
def launch_webkit() -> Iterator["WebKit"]:
    if missing := missing_programs():
        raise BrowserError(f"WebKit is not installed: {', '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="widget-webkit-", ignore_cleanup_errors=True) as folder:
        browser = WebKit(Path(folder))
        try:
            yield browser
        finally:
            browser.stop()


class WebKit(Browser):
    """Each visitor is a browser of their own: what automation opens keeps nothing, and shares nothing."""

    engine = "webkit"

    def __init__(self, home: Path) -> None:
        self.home = home
        self._opened = ExitStack()
        self._visitors: list[WebKitVisitor] = []
        self.display = self._opened.enter_context(open_screen(home))

    def new_visitor(self) -> "WebKitVisitor":
        visitor = WebKitVisitor(self)
        self._visitors.append(visitor)
        return visitor

    def quit(self) -> None:
        for visitor in self._visitors:
            visitor.close()
        self._visitors.clear()

    def terminate(self) -> None:
        for visitor in self._visitors:
            visitor.terminate()

    def stop(self) -> None:
        self.quit()
        self._opened.close()


class WebKitVisitor(Visitor):
    can_go_offline = False

    def __init__(self, browser: WebKit) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(dir=browser.home))
        port = _free_port()
        self._driver = Child(
            "WebKitWebDriver",
            [str(shutil.which("WebKitWebDriver")), f"--port={port}"],
            log=self.home / "driver.log",
            environment=bare_environment(HOME=str(self.home), DISPLAY=browser.display, LIBGL_ALWAYS_SOFTWARE="1"),
        )
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
        await_condition("starting WebKitWebDriver", self._is_ready, seconds=30, explain=self._driver.output)
        options = {"binary": str(mini_browser()), "args": ["--automation"]}
        capabilities = {"webkitgtk:browserOptions": options, "unhandledPromptBehavior": "accept"}
        self._session = self._request("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})["sessionId"]
        self._is_fresh = True
        self._current = ""

    def _is_ready(self) -> bool:
        with suppress(httpx.TransportError):
            return bool(self._http.get("/status").json()["value"]["ready"])
        return False

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self._http.request(method, path, json=body if method == "POST" else None).json()["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise BrowserError(f"{path.rpartition('/')[2]}: {answer['error']}: {answer.get('message', '')[:500]}")
        return answer

    def command(self, method: str, path: str, **body: Any) -> Any:
        return self._request(method, f"/session/{self._session}/{path}", body)

    def switch_to(self, handle: str) -> None:
        if self._current != handle:
            self.command("POST", "window", handle=handle)
            self._current = handle

    def _open_tab(self) -> "WebKitTab":
        return self._open("tab")

    def _open_window(self) -> "WebKitTab":
        return self._open("window")

    def _open(self, kind: str) -> "WebKitTab":
        if self._is_fresh:
            self._is_fresh = False
            return WebKitTab(self, self.command("GET", "window"))
        return WebKitTab(self, self.command("POST", "window/new", type=kind)["handle"])

    def close_window(self, handle: str) -> None:
        self.switch_to(handle)
        left: list[str] = self.command("DELETE", "window")
        self._current = ""
        if left:
            self.switch_to(left[0])

    def close_tab(self, handle: str) -> None:
        self.switch_to(handle)
        handles: list[str] = self.command("GET", "window/handles")
        if len(handles) == 1:
            # With its last window the browser would end, and the visitor has more to do.
            self._current = self.command("POST", "window/new", type="tab")["handle"]
            self.switch_to(handle)
        left: list[str] = self.command("DELETE", "window")
        self._current = ""
        self.switch_to(left[0])

    def set_offline(self, is_offline: bool) -> None:
        raise NotImplementedError("WebKit's driver cannot cut the network off: let the proxy fail instead")

    def kill_pages(self) -> None:
        for process in self._processes("WebKitWebProcess"):
            process.kill()

    def terminate(self) -> None:
        for process in self._processes("MiniBrowser"):
            process.terminate()
        await_condition("ending WebKit", lambda: not self._processes("MiniBrowser"), seconds=30, explain=str)

    def _processes(self, program: str) -> list[Process]:
        found = []
        for process in Process(self._driver.pid).children(recursive=True):
            with suppress(NoSuchProcess):
                if any(program in part for part in process.cmdline()):
                    found.append(process)
        return found

    def close(self) -> None:
        if self._http.is_closed:
            return
        with suppress(BrowserError, httpx.TransportError):
            self._request("DELETE", f"/session/{self._session}")
        self._http.close()
        self._driver.stop()


class WebKitTab(Tab):
    def __init__(self, visitor: WebKitVisitor, handle: str) -> None:
        self._visitor = visitor
        self._handle = handle

    def _command(self, method: str, path: str, **body: Any) -> Any:
        self._visitor.switch_to(self._handle)
        return self._visitor.command(method, path, **body)

    def goto(self, url: str) -> None:
        self._command("POST", "url", url=url)

    def evaluate(self, script: str, *arguments: Any, frame: bool = False) -> Any:
        if frame:
            self._command("POST", "frame", id=0)
        try:
            answer = self._command(
                "POST",
                "execute/async",
                script=f"""const done = arguments[arguments.length - 1];
                    (async () => {called(script, arguments)})().then(
                      (value) => done([value]), (error) => done(String(error)));""",
                args=[],
            )
        finally:
            if frame:
                self._command("POST", "frame", id=None)
        if isinstance(answer, str):
            raise BrowserError(answer)
        return answer[0]

    def back(self) -> None:
        self.evaluate("void setTimeout(() => history.back())")

    def close(self) -> None:
        self._visitor.close_tab(self._handle)

    def close_window(self) -> None:
        self._visitor.close_window(self._handle)

    def crash(self) -> None:
        self._visitor.kill_pages()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
