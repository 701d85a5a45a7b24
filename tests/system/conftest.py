"""Shared by the tests that need the binary: it has to be built."""

from __future__ import annotations

from every_type import every_type as every_type  # a fixture
from harness import BINARY


def pytest_configure() -> None:
    assert BINARY.exists(), f"{BINARY} is missing: cargo build"
