"""An identity provider that publishes its keys over HTTP, and can be down, slow or broken."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from devstack.ports import LOOPBACK, free_port


class IdentityProvider:
    """A key set behind a URL. It is down until `start`."""

    def __init__(self, document: bytes) -> None:
        self.document = document
        self.requests = 0
        self.answering = threading.Event()
        """While it is not set, an answer begins and does not end: now and then a byte keeps the connection busy."""
        self.answering.set()
        self._port = free_port()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where the key set is."""
        return f"http://{LOOPBACK}:{self._port}/jwks.json"

    def start(self) -> None:
        """Listens."""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.requests += 1
                self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Patience: ")
                while not provider.answering.wait(0.2):
                    self.wfile.write(b".")
                self.wfile.write(b"\r\n\r\n" + provider.document)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                del format, args

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """A client that hung up does not matter."""

        self._server = Server((LOOPBACK, self._port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        """Answers what waits, and goes away."""
        self.answering.set()
        if self._server and self._thread:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
        self._server = self._thread = None
