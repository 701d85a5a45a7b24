"""A server of Clipper's model RPC and an HTTP server, both scripted by the tests."""

from __future__ import annotations

import contextlib
import json
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from ports import free_port

DEADLINE_SECONDS = 20.0
"""How long a test waits for what it expects; far beyond what it takes."""

WIRE_DTYPES = {0: None, 1: "<i4", 2: "<f4", 3: "<f8", 4: None}


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


def table_of(page: Path, heading: str) -> list[tuple[str, str]]:
    """The rows of the page's table whose first column is called so; both columns as plain text."""
    lines = page.read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {heading} |")) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        first, second = (cell.strip() for cell in line.strip("| ").split(" | "))
        rows.append((first.strip("`"), second.strip("`")))
    return rows


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll ``condition`` until it holds; fails the test after ``DEADLINE_SECONDS``."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


@dataclass(frozen=True)
class Registration:
    identity: bytes
    name: str
    version: str
    input_type: str
    rpc_version: int
    extensions: int


class FakeServer:
    """The server side, frame by frame, on a port of its own."""

    def __init__(self, port: int | None = None) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._bind(free_port() if port is None else port)
        self._next_id = 0

    def close(self, linger: bool = False) -> None:
        """``linger``: what was sent goes out first."""
        if linger:
            self._socket.setsockopt(zmq.LINGER, int(DEADLINE_SECONDS * 1000))
        self._socket.close()
        self._context.term()

    def recv(self) -> tuple[bytes, list[bytes]]:
        assert self._socket.poll(int(DEADLINE_SECONDS * 1000)), "the container sent nothing"
        identity, *frames = self._socket.recv_multipart()
        assert frames[0] == b""
        return identity, frames[1:]

    def is_quiet(self, seconds: float) -> bool:
        return not self._socket.poll(int(seconds * 1000))

    def send(self, identity: bytes, *frames: bytes) -> None:
        self._socket.send_multipart([identity, b"", *frames])

    def expect_heartbeat(self) -> bytes:
        identity, frames = self.recv()
        assert frames == [u32(2)]
        return identity

    def ask_metadata(self, identity: bytes) -> None:
        self.send(identity, u32(3), u32(2), u32(1))

    def keep_alive(self, identity: bytes) -> None:
        self.send(identity, u32(3), u32(2), u32(0))

    def expect_registration(self) -> Registration:
        identity, frames = self.recv()
        kind, name, version, input_type, rpc_version = frames
        assert kind == u32(0)
        return Registration(
            identity,
            name.decode(),
            version.decode(),
            input_type.decode(),
            *struct.unpack("<II", rpc_version),
        )

    def handshake(self) -> Registration:
        self.ask_metadata(self.expect_heartbeat())
        return self.expect_registration()

    def send_batch(self, identity: bytes, input_type: int, inputs: Sequence[Any]) -> int:
        dtype = WIRE_DTYPES[input_type]
        frames = [
            np.asarray(value, dtype=dtype).tobytes() if dtype else bytes(value) for value in inputs
        ]
        return self.send_frames(identity, input_type, frames)

    def send_frames(self, identity: bytes, input_type: int, frames: Sequence[bytes]) -> int:
        self._next_id += 1
        header = u64(input_type, len(frames), *map(len, frames))
        request = [u32(3), u32(1), u32(self._next_id), u32(0), u64(len(header)), header]
        self.send(identity, *request, *frames)
        return self._next_id

    def send_joined(self, identity: bytes, input_type: int, frames: Sequence[bytes]) -> int:
        """A batch whose inputs are in one frame."""
        self._next_id += 1
        header = u64(input_type, len(frames), *map(len, frames))
        request = [u32(3), u32(1), u32(self._next_id), u32(0), u64(len(header)), header]
        self.send(identity, *request, b"".join(frames))
        return self._next_id

    def accept_extensions(self, identity: bytes, accepted: int, error_max_bytes: int) -> None:
        self.send(identity, u32(3), u32(2), u32(2), u32(accepted), u32(error_max_bytes))

    def tell(self, identity: bytes, level: int, text: str) -> None:
        self.send(identity, u32(3), u32(2), u32(3), u32(level), text.encode())

    def expect_answer(self, message_id: int) -> list[str]:
        """The outputs of one answer without errors; heartbeats on the way are passed over."""
        outputs, errors = self.expect_outputs_and_errors(message_id)
        assert not errors
        return [outputs[position] for position in range(len(outputs))]

    def expect_outputs_and_errors(self, message_id: int) -> tuple[dict[int, str], dict[int, str]]:
        """The outputs and the errors of one answer, by position."""
        while True:
            _, frames = self.recv()
            if frames != [u32(2)]:
                break
        kind, answered, header_bytes, header, *outputs = frames
        assert (kind, answered) == (u32(1), u32(message_id))
        assert header_bytes == u64(len(header))
        count, *lengths = struct.unpack(f"<{len(header) // 8}Q", header)
        assert count == len(outputs)
        assert [length & ~(1 << 63) for length in lengths] == [len(output) for output in outputs]
        found: tuple[dict[int, str], dict[int, str]] = ({}, {})
        for position, (length, output) in enumerate(zip(lengths, outputs)):
            found[length >> 63][position] = output.decode()
        return found

    def predict(self, identity: bytes, input_type: int, inputs: Sequence[Any]) -> list[str]:
        return self.expect_answer(self.send_batch(identity, input_type, inputs))

    def _bind(self, port: int) -> None:
        self.port = port

        def bound() -> bool:
            try:
                self._socket.bind(f"tcp://127.0.0.1:{port}")
            except zmq.ZMQError:
                return False
            return True

        wait_until(bound, f"port {port}")


@dataclass(frozen=True)
class Exchange:
    method: str
    path: str
    body: Any
    connection: int


class FakeHttp:
    """Answers each request with the next scripted answer and notes what was asked."""

    def __init__(self) -> None:
        self.seen: list[Exchange] = []
        self.authorizations: list[str | None] = []
        self._answers: deque[tuple[int, str, dict[str, str]] | None] = deque()
        self._release = threading.Event()
        self._scheme = "http"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def speak_tls(self, certificate: Path, key: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        # The handshake is the handler's, or a client that breaks it off would end the server.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._scheme = "https"

    def answer(self, body: Any, status: int = 200, **headers: str) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self._answers.append((status, text, headers))

    def hang_up(self) -> None:
        """Close the next request's connection without a byte."""
        self._answers.append(None)

    def close(self) -> None:
        self._release.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(fake) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self._handle(None)

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                self._handle(json.loads(self.rfile.read(length)))

            def _handle(self, body: Any) -> None:
                port = int(self.client_address[1])
                fake.seen.append(Exchange(self.command, self.path, body, port))
                fake.authorizations.append(self.headers["Authorization"])
                if not fake._answers:
                    fake._release.wait(DEADLINE_SECONDS)
                    return
                answer = fake._answers.popleft()
                if answer is None:
                    self.close_connection = True
                    return
                status, text, headers = answer
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text.encode())))
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(text.encode())

            def handle(self) -> None:
                # A client may break it off, as some tests want.
                with contextlib.suppress(OSError):
                    super().handle()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
