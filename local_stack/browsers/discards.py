"""Chromium's own page of tabs that it freezes and discards to save memory: the one way to have it do so on demand."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import BrowserContext
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from local_stack.processes import await_condition

_CLICK = """((address, action) => {
    const all = (root) =>
        [...root.querySelectorAll("*")].flatMap((e) => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])]);
    const row = all(document).find((e) => e.matches("tr") && e.textContent.includes(address));
    [...row.querySelectorAll("div")].find((e) => e.textContent.trim() === `[${action}]`).click();
})"""
_ROW_SAYS = """((address, state) => {
    const all = (root) =>
        [...root.querySelectorAll("*")].flatMap((e) => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])]);
    return all(document).some((e) => e.matches("tr") && [address, state].every((text) => e.textContent.includes(text)));
})"""


def open_discards_page(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("chrome://chrome-urls/")
    page.get_by_role("button", name="Enable internal debugging pages").click()
    page.goto("chrome://discards/")
    page.locator("discards-tab tr").nth(1).wait_for()


class DiscardsPage:
    """Does to the tab with an address what a click there does. A tab that playwright drives is spared."""

    def __init__(self, socket: Connection) -> None:
        self._socket = socket
        self._last_id = 0
        pages = self._command("Target.getTargets")["targetInfos"]
        [page] = [page for page in pages if page["url"] == "chrome://discards/"]
        attached = self._command("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]

    def freeze(self, address: str) -> None:
        self._click(address, "Freeze", "frozen")

    def discard(self, address: str) -> None:
        self._click(address, "Urgent Discard", "discarded (urgent)")

    def show(self, address: str) -> None:
        """Bring the tab to the front, which thaws it."""
        [page] = [page for page in self._command("Target.getTargets")["targetInfos"] if address in page["url"]]
        self._command("Target.activateTarget", targetId=page["targetId"])

    def _click(self, address: str, action: str, state: str) -> None:
        self._evaluate(_CLICK, address, action)
        await_condition(action, lambda: bool(self._evaluate(_ROW_SAYS, address, state)), seconds=30, explain=str)

    def _evaluate(self, script: str, *arguments: str) -> Any:
        expression = f"{script}({', '.join(map(json.dumps, arguments))})"
        answer = self._command("Runtime.evaluate", expression=expression, returnByValue=True, session=self._session)
        return answer["result"].get("value")

    def _command(self, method: str, *, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._last_id += 1
        command = {"id": self._last_id, "method": method, "params": params}
        self._socket.send(json.dumps(command | ({"sessionId": session} if session else {})))
        while (message := json.loads(self._socket.recv(timeout=30))).get("id") != self._last_id:
            pass
        result: dict[str, Any] = message["result"]
        return result


@contextmanager
def discards_page(address: str) -> Iterator[DiscardsPage]:
    """`address` is the browser's own socket."""
    with connect(address, max_size=None) as socket:
        yield DiscardsPage(socket)
