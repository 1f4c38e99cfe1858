"""A visitor's network, cut off and put back."""

from contextlib import ExitStack

from local_stack.browsers.driver import BrowserError, Visitor
from local_stack.unreliable_proxy import UnreliableProxy


class Connection:
    """Cut by the browser itself, or, where its driver cannot, by the proxy that its events go through."""

    def __init__(self, visitor: Visitor, proxy: UnreliableProxy) -> None:
        self._visitor = visitor
        self._proxy = proxy
        self._fault = ExitStack()

    def cut(self) -> None:
        if self._visitor.can_go_offline:
            self._visitor.set_offline(True)
        else:
            self._fault.enter_context(self._proxy.instead(None))

    def restore(self) -> None:
        """The pages are told, as a browser tells them."""
        if self._visitor.can_go_offline:
            self._visitor.set_offline(False)
            return
        self._fault.close()
        for tab in self._visitor.tabs:
            try:
                tab.evaluate("void dispatchEvent(new Event('online'))")
            except BrowserError:  # closed, or crashed
                continue
