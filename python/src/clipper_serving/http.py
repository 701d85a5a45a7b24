"""HTTP/1.1 with kept connections, shared by ``Client`` and ``Admin``."""

from __future__ import annotations

import http.client
import os
import re
import select
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from .errors import PredictionTimeout, ServerUnavailable

MAX_IDLE_CONNECTIONS = 16
MAX_BODY_BYTES = 256 * 1024 * 1024
_READ_BYTES = 64 * 1024

LENGTH_HEADER = "Inference-Header-Content-Length"
"""How many bytes of a body of the Open Inference Protocol are JSON."""


@dataclass(frozen=True)
class Answer:
    """Status, body and the advice of a ``Retry-After`` header in seconds."""

    status: int
    body: bytes
    retry_after: float | None
    json_bytes: int | None = None
    """Of an inference with a binary part: how much of the body is JSON."""

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")


class HttpPool:
    """Connections to one server, at most one request on each at a time. Thread-safe.

    ``url`` is the address of a frontend, ``http://host:port``; behind a proxy it may be
    ``https://host`` and have a path, which is put before every path asked for. Certificates are
    checked, with ``tls`` or by those that the system trusts. ``key`` is sent with every request;
    without one, what the variable ``CLIPPER_KEY`` says. Raises ``ValueError`` for any other.
    """

    def __init__(
        self,
        url: str,
        max_idle: int = MAX_IDLE_CONNECTIONS,
        tls: ssl.SSLContext | None = None,
        key: str | None = None,
    ) -> None:
        parts = _parts_of(url)
        self._authorization = _authorization(os.environ.get("CLIPPER_KEY") if key is None else key)
        self.url = url.rstrip("/")
        self.address = parts.netloc.rpartition("@")[2]
        self._prefix = parts.path.rstrip("/")
        self._host, self._port = str(parts.hostname), parts.port
        self._tls = tls
        if parts.scheme == "https" and tls is None:
            self._tls = ssl.create_default_context()
        self._is_https = parts.scheme == "https"
        self._max_idle = max_idle
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None,
        timeout_seconds: float,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request and read its answer.

        ``timeout_seconds`` bounds each wait for the network. Nothing is ever sent twice.
        Raises ``PredictionTimeout`` or ``ServerUnavailable``.
        """
        connection = self._take(timeout_seconds)
        try:
            if headers is None:
                headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(
                method, self._prefix + path, body, {**headers, **self._authorization}
            )
            response = connection.getresponse()
            content = _read_body(response)
        except (socket.timeout, TimeoutError) as error:
            connection.close()
            raise PredictionTimeout(
                f"no answer from {self.url} within {timeout_seconds:g} s"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ServerUnavailable(f"no answer from {self.url}: {self._why(error)}") from error
        except BaseException:
            connection.close()
            raise
        self._give_back(connection, response.will_close)
        return Answer(
            response.status,
            content,
            _seconds(response.getheader("Retry-After")),
            _length(response.getheader(LENGTH_HEADER)),
        )

    def close(self) -> None:
        """Close the idle connections; the pool stays usable."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self, timeout_seconds: float) -> http.client.HTTPConnection:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._connect(timeout_seconds)
            if _is_open(connection):
                connection.sock.settimeout(timeout_seconds)
                return connection
            connection.close()

    def _connect(self, timeout_seconds: float) -> http.client.HTTPConnection:
        if self._is_https:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout_seconds, context=self._tls
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout_seconds)

    def _why(self, error: Exception) -> str:
        """What went wrong, and where a newcomer looks for it."""
        what = str(error) or type(error).__name__
        if isinstance(error, ConnectionRefusedError):
            return f"{what}; is the server running, and is this its address?"
        if isinstance(error, ssl.SSLCertVerificationError):
            return what
        if isinstance(error, ssl.SSLError):
            return f"{what}; has this port a certificate (tls.cert)? If not, its address is http://"
        if isinstance(error, http.client.BadStatusLine) and not isinstance(
            error, http.client.RemoteDisconnected
        ):
            return (
                "what answers there is no HTTP; queries go to port 1337, management to 1338, and "
                "only containers to 7000"
            )
        return what

    def _give_back(self, connection: http.client.HTTPConnection, closing: bool) -> None:
        with self._lock:
            if not closing and len(self._idle) < self._max_idle:
                self._idle.append(connection)
                return
        connection.close()


def _parts_of(url: str) -> SplitResult:
    """The parts of a base address. Raises ``ValueError`` for what is none."""
    # A password is nothing for a log.
    shown = re.sub(r"(^|://).*@", r"\1***@", url)
    form = f"{shown!r} is not of the form http://host:port, with a path where a proxy has one"
    if not re.match(r"https?://", url, re.IGNORECASE):
        raise ValueError(f"{form}: http:// is missing" if "://" not in url else form)
    parts = urlsplit(url)
    try:
        is_whole = parts.hostname and parts.port != 0
    except ValueError as error:
        raise ValueError(f"{form}: {error}") from None
    if not is_whole or parts.query or parts.fragment:
        raise ValueError(form)
    if parts.username is not None:
        raise ValueError(f"{shown!r}: user and password in an address are not sent")
    return parts


def _authorization(key: str | None) -> dict[str, str]:
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("a key is one word of printable ASCII")
    return {"Authorization": f"Bearer {key}"}


def _read_body(response: http.client.HTTPResponse) -> bytes:
    """The whole body. Raises ``HTTPException`` when it exceeds ``MAX_BODY_BYTES``."""
    body = bytearray()
    while chunk := response.read(_READ_BYTES):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise http.client.HTTPException(f"the answer exceeds {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _is_open(connection: http.client.HTTPConnection) -> bool:
    """Whether an idle connection can be used: one with something to read was closed."""
    if connection.sock is None:
        return False
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return not poll.poll(0)


def _length(header: str | None) -> int | None:
    return int(header) if header is not None and header.isdigit() else None


def _seconds(header: str | None) -> float | None:
    try:
        return float(header) if header is not None else None
    except ValueError:
        return None
