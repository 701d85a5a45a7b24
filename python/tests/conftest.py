"""Fixtures: the fake servers, and containers that serve from a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
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
