"""Fixtures: the fake servers, and containers that serve from a thread."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import DEADLINE_SECONDS, FakeHttp, FakeServer

from clipper_serving import StopSignal, serve


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.close()


@pytest.fixture
def http() -> Iterator[FakeHttp]:
    fake = FakeHttp()
    yield fake
    fake.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 and its key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    extra = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *extra], check=True, capture_output=True)
    return cert, key


@pytest.fixture
def zmtp_port() -> Iterator[int]:
    """A port that answers everything as libzmq does: with its greeting, then with the end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(64 * 1024)
                    connection.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x01NULL".ljust(54, b"\0"))
                    connection.shutdown(socket.SHUT_WR)
                    # What was not read would make the end a reset, and the greeting be lost.
                    while connection.recv(64 * 1024):
                        pass

        threading.Thread(target=greet, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def start(server: FakeServer) -> Iterator[Callable[..., StopSignal]]:
    """``start(fn, **arguments of serve)`` serves ``fn`` to ``server`` until the test ends."""
    running: list[tuple[StopSignal, threading.Thread]] = []

    def start_one(fn: Callable[[Any], Any], **arguments: Any) -> StopSignal:
        stop = StopSignal()
        settings = {
            "name": "m",
            "version": "1",
            "input_type": "doubles",
            "host": "127.0.0.1",
            "port": server.port,
            "metrics_port": 0,
            **arguments,
        }
        thread = threading.Thread(target=serve, args=(fn,), kwargs={**settings, "stop": stop})
        thread.start()
        running.append((stop, thread))
        return stop

    yield start_one
    for stop, _ in running:
        stop.set()
    for _, thread in running:
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive(), "the container did not end"
