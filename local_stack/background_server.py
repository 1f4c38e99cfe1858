"""An HTTP server inside the program that needs it."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class BackgroundServer(ThreadingHTTPServer):
    """Serves in a thread of its own until `stop`, or until its `with` block ends."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self._thread = Thread(target=self.serve_forever, args=(0.05,), name=type(self).__name__, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Handler(BaseHTTPRequestHandler):
    """Answers each request in one segment, and writes nothing to the terminal."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""
