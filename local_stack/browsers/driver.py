"""What a test does with a browser, whichever it is."""

import json
import time
from abc import ABC, abstractmethod
from typing import Any

_POLL_SECONDS = 0.02


class BrowserError(Exception):
    """The browser refused a command, or the page threw."""


class Tab(ABC):
    """One tab. JavaScript is an expression, or a function that is called with the arguments."""

    @abstractmethod
    def goto(self, url: str) -> None:
        """Load a page, and wait until it has loaded."""

    @abstractmethod
    def evaluate(self, script: str, *arguments: Any, frame: bool = False) -> Any:
        """What the script gives, awaited; `frame` runs it in the page's first iframe."""

    @abstractmethod
    def back(self) -> None:
        """Go back in the history. The page may come from the back/forward cache, so nothing is awaited."""

    @abstractmethod
    def close(self) -> None:
        """Close the tab as a person does: the page may say its farewell."""

    @abstractmethod
    def close_window(self) -> None:
        """Close the window that the tab is in, as a person does. With the last one the browser ends."""

    @abstractmethod
    def crash(self) -> None:
        """End the tab's process: none of the page's events fire."""

    def click(self, selector: str, *, frame: bool = False) -> None:
        self.wait_for_function(f"document.querySelector({json.dumps(selector)}) !== null", frame=frame)
        self.evaluate(f"void document.querySelector({json.dumps(selector)}).click()", frame=frame)

    def reload(self) -> None:
        address = self.evaluate("location.href")
        self.evaluate("void (window.isOldPage = true)")
        self.evaluate("void setTimeout(() => location.reload())")
        self.wait_for_function(
            "!window.isOldPage && document.readyState === 'complete' && location.href === " + json.dumps(address)
        )

    def wait_for_function(self, script: str, *, seconds: float = 30, frame: bool = False) -> None:
        """Wait until the expression is true; while the page is changing, its errors do not count."""
        deadline = time.monotonic() + seconds
        problem: object = None
        while time.monotonic() < deadline:
            try:
                if self.evaluate(script, frame=frame):
                    return
            except BrowserError as error:
                problem = error
            time.sleep(_POLL_SECONDS)
        raise TimeoutError(f"not so after {seconds} s: {script} ({problem})")


class Visitor(ABC):
    """A person with a browser profile: tabs share a storage, visitors do not."""

    can_go_offline = True

    def __init__(self) -> None:
        self.tabs: list[Tab] = []

    def new_tab(self) -> Tab:
        tab = self._open_tab()
        self.tabs.append(tab)
        return tab

    def new_window(self) -> Tab:
        """A tab alone in a window of its own."""
        tab = self._open_window()
        self.tabs.append(tab)
        return tab

    @abstractmethod
    def _open_tab(self) -> Tab: ...

    @abstractmethod
    def _open_window(self) -> Tab: ...

    @abstractmethod
    def set_offline(self, is_offline: bool) -> None:
        """Cut the network off, or put it back; the pages are told, as they are in life."""

    @abstractmethod
    def close(self) -> None: ...


class Browser(ABC):
    """A running browser."""

    engine: str

    @abstractmethod
    def new_visitor(self) -> Visitor: ...

    @abstractmethod
    def quit(self) -> None:
        """End the browser by its driver's command, and wait until it has ended."""

    def quit_by_menu(self) -> None:
        """As a person does; not every driver can."""
        raise NotImplementedError(f"the menu of {self.engine} is out of its driver's reach")

    @abstractmethod
    def terminate(self) -> None:
        """End the browser by SIGTERM, as a logout does, and wait until it has ended."""


def called(script: str, arguments: tuple[Any, ...]) -> str:
    """An expression with the script's value; a function is called."""
    passed = ", ".join(json.dumps(argument) for argument in arguments)
    return f"(value => typeof value === 'function' ? value({passed}) : value)({script}\n)"
