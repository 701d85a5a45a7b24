"""The HTTP endpoint of a container: ``/metrics``, ``/livez`` and ``/readyz``."""

from __future__ import annotations

import errno
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Callable

from .metrics import CONTENT_TYPE, Registry

_log = logging.getLogger(__name__)

READ_TIMEOUT_SECONDS = 10.0
"""How long one scrape connection may stay silent."""

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


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


def _handler(registry: Registry, ready: Callable[[], bool]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = READ_TIMEOUT_SECONDS

        def do_GET(self) -> None:
            status, kind, text = self._answer(self.path.split("?", 1)[0])
            body = text.encode("utf-8")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _answer(self, path: str) -> tuple[int, str, str]:
            plain = "text/plain; charset=utf-8"
            if path == "/metrics":
                return 200, CONTENT_TYPE, registry.expose()
            if path == "/livez":
                return 200, plain, "alive\n"
            if path == "/readyz":
                return (200, plain, "ready\n") if ready() else (503, plain, "not connected\n")
            return 404, plain, "the paths are /metrics, /livez and /readyz\n"

        def log_message(self, format: str, *args: Any) -> None:
            _log.debug(format, *args)

    return Handler
