"""A log of failures that a model which fails on everything cannot flood."""

from __future__ import annotations

import logging
import time

LOG_INTERVAL_SECONDS = 1.0
"""Failures are logged at most this often, with the last one's traceback."""

INPUTS_FAILED = "%(count)d input(s) failed"


class FailureLog:
    """Logs failures sparingly; ``message`` may name their ``%(count)d`` since the last line."""

    def __init__(self, log: logging.Logger, message: str) -> None:
        self._log = log
        self._message = message
        self._unreported = 0
        self._next_report = 0.0

    def add(self, count: int, error: Exception | None) -> None:
        self._unreported += count
        now = time.monotonic()
        if now >= self._next_report:
            self._log.warning(self._message, {"count": self._unreported}, exc_info=error)
            self._unreported = 0
            self._next_report = now + LOG_INTERVAL_SECONDS
