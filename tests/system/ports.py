"""Ports for servers that are told theirs, or come back to it: see ``tests/support/ports.rs``."""

from __future__ import annotations

import random
import socket

PORTS = range(20_000, 32_000)

_held: list[socket.socket] = []


def free_port() -> int:
    """One that nobody listens on, and that no other test gets while this process lives."""
    while True:
        port = random.choice(PORTS)
        claim = socket.socket(type=socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            claim.close()
            continue
        _held.append(claim)
        return port
