"""The network between a sender and the gateway, failing on demand: it refuses, drops, delays and cuts short."""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from socket import create_connection
from threading import Event, Lock
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from local_stack.background_server import BackgroundServer, Handler
from local_stack.processes import await_condition

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
    is_cut: bool = False
    """The connection breaks in the middle of the body."""


DEAD_CONNECTION = Answer(
    400,
    '{"code":"","details":null,"hint":null,"message":""}',
    MappingProxyType({"content-type": "application/json; charset=utf-8"}),
)
"""PostgREST's answer to a request that takes a pooled connection whose server has died."""

Fault = Callable[[Seen], Answer | None]
"""What happens to a request; without an answer the connection breaks without a word."""


class UnreliableProxy(BackgroundServer):
    """Passes requests on to the gateway and notes them.

    `fault`, `instead` and `losing_answers` make it fail for a while; `next_faults` says what becomes of the next
    requests, one each. `pass_on`, `lose_answer`, `cut_answer`, `cut_request`, `after(…)` and `every(…)` are faults to
    choose from. For a gateway that says nothing for `patience` seconds it answers 504, for one that breaks off 502.
    """

    def __init__(self, upstream: str, *, patience: float = 30) -> None:
        self.upstream = urlsplit(upstream)
        self.patience = patience
        self.seen: list[Seen] = []
        self.most_bytes_in_flight = 0
        self._bytes_in_flight = 0
        self._lock = Lock()
        self._fault: Fault | None = None
        self.next_faults: list[Fault] = []
        super().__init__(0, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Quiet: a browser that closes in mid-request is what the proxy is for."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def instead(self, answer: Answer | None) -> Iterator[None]:
        """Answers this, and passes nothing on; `None` breaks the connection without a word."""
        with self.fault(lambda _: answer):
            yield

    @contextmanager
    def losing_answers(self) -> Iterator[None]:
        """The gateway gets every request, the sender never hears of it."""
        with self.fault(self.lose_answer):
            yield

    @contextmanager
    def fault(self, fault: Fault) -> Iterator[None]:
        self._fault = fault
        try:
            yield
        finally:
            self._fault = None

    def await_requests(self, count: int, *, seconds: float = 60) -> None:
        await_condition(
            f"{count} requests",
            lambda: len(self.seen) >= count,
            seconds=seconds,
            explain=lambda: f"{len(self.seen)} came",
        )

    def await_quiet(self, *, seconds: float = 60) -> None:
        """Wait until nothing is under way to the gateway."""
        await_condition("what is under way", lambda: not self._bytes_in_flight, seconds=seconds, explain=str)

    def handle(self, request: Seen) -> Answer | None:
        with self._lock:
            self.seen.append(request)
            self._bytes_in_flight += len(request.body)
            self.most_bytes_in_flight = max(self.most_bytes_in_flight, self._bytes_in_flight)
            fault = self.next_faults.pop(0) if self.next_faults else self._fault or self.pass_on
        try:
            return fault(request)
        finally:
            with self._lock:
                self._bytes_in_flight -= len(request.body)

    def pass_on(self, request: Seen) -> Answer:
        connection = HTTPConnection(self.upstream.hostname or "", self.upstream.port, timeout=self.patience)
        try:
            headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
            connection.request(request.method, request.path, request.body or None, headers)
            response = connection.getresponse()
            body = response.read().decode()
            answered = ((name.lower(), value) for name, value in response.getheaders())
            kept = {name: value for name, value in answered if name not in _HOP_BY_HOP}
            return Answer(response.status, body, kept)
        # Without a word a browser would send the same again by itself, and the age that it told would be out of date.
        except TimeoutError:
            return Answer(504)
        except (OSError, HTTPException):
            return Answer(502)
        finally:
            connection.close()

    def lose_answer(self, request: Seen) -> None:
        """The gateway has it, the sender never hears of it."""
        self.pass_on(request)

    def cut_answer(self, request: Seen) -> Answer:
        """The gateway has it, the sender sees half of the answer."""
        return self.pass_on(request)._replace(is_cut=True)

    def cut_request(self, request: Seen) -> None:
        """The gateway sees the head and half of the body, and then the end."""
        head = [f"{request.method} {request.path} HTTP/1.1", f"host: {self.upstream.netloc}"]
        head += [f"{name}: {value}" for name, value in request.headers.items() if name not in _HOP_BY_HOP]
        head.append(f"content-length: {len(request.body)}")
        with create_connection((self.upstream.hostname or "", self.upstream.port or 80), timeout=30) as gateway:
            gateway.sendall("\r\n".join([*head, "", ""]).encode("latin-1"))
            gateway.sendall(request.body[: len(request.body) // 2])

    def every(self, count: int, fault: Fault) -> Fault:
        """One request in `count` meets the fault, as in `every(3, lambda _: DEAD_CONNECTION)`; the rest passes."""
        turns = itertools.count(1)

        def sometimes(request: Seen) -> Answer | None:
            return fault(request) if next(turns) % count == 0 else self.pass_on(request)

        return sometimes

    def after(self, seconds: float) -> Fault:
        """Passed on, but late."""

        def delay(request: Seen) -> Answer:
            time.sleep(seconds)
            return self.pass_on(request)

        return delay


def answering(status: int, **headers: str) -> Fault:
    """Answers in the gateway's stead; `_` in a header's name stands for `-`."""
    return lambda _: Answer(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


class Hold:
    """Keeps what comes after the first few requests waiting, so that a test can act in the middle."""

    def __init__(self, proxy: UnreliableProxy, *, after: int) -> None:
        self._proxy = proxy
        self._after = after
        self.holding = Event()
        self.released = Event()

    def __call__(self, request: Seen) -> Answer | None:
        if len(self._proxy.seen) > self._after:
            self.holding.set()
            self.released.wait(60)
        return self._proxy.pass_on(request)


class _Handler(Handler):
    server: UnreliableProxy

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.handle(Seen(self.command, self.path, headers, body))
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
        if answer.is_cut:
            content = content[: len(content) // 2]
            self.close_connection = True
        self.wfile.write(content)

    do_GET = do_POST = do_OPTIONS = _handle
