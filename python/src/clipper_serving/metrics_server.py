"""The HTTP endpoint of a container: ``/metrics``, ``/livez`` and ``/readyz``."""

from __future__ import annotations

import errno
import logging
import socketserver
import threading
from types import TracebackType
from typing import Callable

from .metrics import CONTENT_TYPE, Registry

_log = logging.getLogger(__name__)

READ_TIMEOUT_SECONDS = 10.0
"""How long one scrape connection may stay silent."""

LINE_MAX_BYTES = 8 * 1024
HEADERS_MAX = 100
"""Lines of a request's head; a longer one is not answered."""

_STOP_CHECK_SECONDS = 0.2


class MetricsServer:
    """Serves one registry from a thread of its own.

    Binds ``host``:``port``; without a port a free one, and when it is taken a free one that is
    logged, so that several replicas live on one machine. Raises ``OSError`` when nothing can be
    bound.
    """

    def __init__(
        self, registry: Registry, host: str, port: int | None, ready: Callable[[], bool]
    ) -> None:
        handler = _handler(registry, ready)
        try:
            self._server = _Server((host, port or 0), handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            self._server = _Server((host, 0), handler)
            _log.warning("metrics port %s is taken, using %d", port, self.port)
        _log.info("metrics on http://%s:%d/metrics", host, self.port)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            args=(_STOP_CHECK_SECONDS,),
            name="metrics",
            daemon=True,
        )

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        """``IP:PORT`` of what is bound."""
        return f"{self._server.server_address[0]!s}:{self.port}"

    def __enter__(self) -> MetricsServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        _log.debug("a scrape from %s broke off", client_address, exc_info=True)


def _handler(
    registry: Registry, ready: Callable[[], bool]
) -> type[socketserver.StreamRequestHandler]:
    """One request a connection; ``http.server`` would bring email, TLS and MIME types."""

    class Handler(socketserver.StreamRequestHandler):
        timeout = READ_TIMEOUT_SECONDS

        def handle(self) -> None:
            request = self.rfile.readline(LINE_MAX_BYTES).split()
            for _ in range(HEADERS_MAX):
                if self.rfile.readline(LINE_MAX_BYTES) in (b"\r\n", b"\n", b""):
                    break
            else:
                return
            if len(request) != 3 or not request[2].startswith(b"HTTP/1."):
                return
            method, path = request[0], request[1].partition(b"?")[0].decode("utf-8", "replace")
            self._answer(method, *self._page(method, path))

        def _answer(self, method: bytes, status: str, kind: str, text: str) -> None:
            body = text.encode("utf-8")
            head = (
                f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            self.wfile.write(head.encode("ascii") + (b"" if method == b"HEAD" else body))

        def _page(self, method: bytes, path: str) -> tuple[str, str, str]:
            plain = "text/plain; charset=utf-8"
            if method not in (b"GET", b"HEAD"):
                return "405 Method Not Allowed", plain, "the method is GET\n"
            if path == "/metrics":
                return "200 OK", CONTENT_TYPE, registry.expose()
            if path == "/livez":
                return "200 OK", plain, "alive\n"
            if path == "/readyz" and ready():
                return "200 OK", plain, "ready\n"
            if path == "/readyz":
                return "503 Service Unavailable", plain, "not connected\n"
            return "404 Not Found", plain, "the paths are /metrics, /livez and /readyz\n"

    return Handler
