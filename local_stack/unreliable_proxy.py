"""The network between a browser and the gateway, failing on demand."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

# They belong to one connection, not to the message.
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


class Seen(NamedTuple):
    """A request that reached the proxy."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def events(self) -> list[dict[str, Any]]:
        """The events of a form."""
        events: list[dict[str, Any]] = json.loads(parse_qs(self.body.decode())["events"][0])
        return events


class Answer(NamedTuple):
    """What the proxy says in the gateway's stead."""

    status: int
    body: str = "{}"
    headers: Mapping[str, str] = MappingProxyType({})


class UnreliableProxy:
    """Passes requests on to the gateway and notes them; `instead` and `cut` make it fail for a while."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.seen: list[Seen] = []
        self.most_bytes_in_flight = 0
        self._bytes_in_flight = 0
        self._lock = Lock()
        self._fault: Callable[[Seen], Answer | None] | None = None
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), name="proxy", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def instead(self, answer: Answer | None) -> Iterator[None]:
        """Answers this, and passes nothing on; `None` breaks the connection without a word."""
        with self.fault(lambda _: answer):
            yield

    @contextmanager
    def losing_answers(self) -> Iterator[None]:
        """The gateway gets every request, the browser never hears of it."""

        def lose(request: Seen) -> None:
            self.pass_on(request)

        with self.fault(lose):
            yield

    @contextmanager
    def fault(self, fault: Callable[[Seen], Answer | None]) -> Iterator[None]:
        self._fault = fault
        try:
            yield
        finally:
            self._fault = None

    def await_requests(self, count: int, *, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while len(self.seen) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.seen)} requests of {count} after {seconds} s")
            time.sleep(0.01)

    def handle(self, request: Seen) -> Answer | None:
        with self._lock:
            self.seen.append(request)
            self._bytes_in_flight += len(request.body)
            self.most_bytes_in_flight = max(self.most_bytes_in_flight, self._bytes_in_flight)
            fault = self._fault
        try:
            return fault(request) if fault else self.pass_on(request)
        finally:
            with self._lock:
                self._bytes_in_flight -= len(request.body)

    def pass_on(self, request: Seen) -> Answer:
        connection = HTTPConnection(self.upstream.hostname or "", self.upstream.port, timeout=30)
        try:
            headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
            connection.request(request.method, request.path, request.body or None, headers)
            response = connection.getresponse()
            body = response.read().decode()
            answered = ((name.lower(), value) for name, value in response.getheaders())
            kept = {name: value for name, value in answered if name not in _HOP_BY_HOP}
            return Answer(response.status, body, kept)
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    proxy: UnreliableProxy
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Quiet: a browser that closes in mid-request is what the proxy is for."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one segment an answer
    disable_nagle_algorithm = True

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.proxy.handle(Seen(self.command, self.path, headers, body))
        if answer is None:
            self.close_connection = True
            return
        content = answer.body.encode()
        # Without the Date and Server lines that `send_response` would add: the gateway's own are passed on.
        self.send_response_only(answer.status)
        for name, value in {"access-control-allow-origin": "*", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_OPTIONS = _handle

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: `seen` is the log."""
