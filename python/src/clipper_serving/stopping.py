"""How a container is asked to end: by a caller, a signal, or the end of its standard input.

A container that a server has started leads a process group of its own, so that processes which the
model has started are found and ended with it.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import select
import signal
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import FrameType

_log = logging.getLogger(__name__)

LIFELINE_VARIABLE = "CLIPPER_LIFELINE"
LIFELINE_GRACE_SECONDS = 5.0
"""How long a model may hold up the end of its process once its parent is gone."""


class StopSignal:
    """A flag that also wakes whoever polls ``fileno()``.

    Without locks: a signal handler that sets an ``Event`` hangs for ever if the signal came while
    the main thread was inside a method of that ``Event``.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._finished = threading.Event()
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """A descriptor that is readable once ``set`` was called."""
        return self._reader.fileno()

    def set(self) -> None:
        """Ask for the end. May be called from any thread and from a signal handler."""
        self._is_set = True
        # Full, after thousands of calls, is as good: there is something to read.
        with suppress(BlockingIOError):
            self._writer.send(b"x")

    def is_set(self) -> bool:
        """Whether the end was asked for."""
        return self._is_set

    def wait(self, timeout_seconds: float) -> bool:
        """Wait for ``set``; returns whether it was called."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        poll.poll(max(0, math.ceil(timeout_seconds * 1000)))
        return self._is_set

    def finish(self) -> None:
        """Say that the container has ended."""
        self._finished.set()

    def wait_finished(self, timeout_seconds: float) -> bool:
        """Wait for ``finish``; returns whether it was called."""
        return self._finished.wait(timeout_seconds)


def stop_on_signals(stop: StopSignal) -> None:
    """Let SIGTERM and SIGINT set ``stop``; a second one ends the process at once.

    Does nothing outside the main thread, where Python allows no signal handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return

    def handler(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)


def stop_with_parent(stop: StopSignal, env: Mapping[str, str] = os.environ) -> None:
    """With ``CLIPPER_LIFELINE=stdin``, set ``stop`` when standard input ends.

    The parent holds the other end of that pipe, so it ends with the parent, however that dies.
    A process that is still busy after ``LIFELINE_GRACE_SECONDS`` is ended by force. In both cases
    its process group ends as well, as its parent would have seen to: what the model has started
    does not outlive it.
    """
    if is_supervised(env):
        _lead_group()
        threading.Thread(target=_watch, args=(stop,), name="lifeline", daemon=True).start()


def is_supervised(env: Mapping[str, str] = os.environ) -> bool:
    """Whether a server has started this process and holds its standard input."""
    return env.get(LIFELINE_VARIABLE) == "stdin"


def end_group() -> None:
    """Kill what is left of this process group, if this process leads it; not this process."""
    if os.getpgrp() != os.getpid():
        return
    for pid in _members(os.getpid()):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue  # It has ended meanwhile.


def _lead_group() -> None:
    """A group of its own, whoever started this process: ending it must hit nobody else."""
    try:
        if os.getpgrp() != os.getpid():
            os.setpgid(0, 0)
    except OSError as error:
        _log.warning("no process group of its own: %s", error)


def _members(group: int) -> list[int]:
    """The other processes of a group, from /proc; none where there is no /proc."""
    found = []
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    for pid in pids:
        try:
            if pid != group and os.getpgid(pid) == group:
                found.append(pid)
        except OSError:
            continue
    return found


def _watch(stop: StopSignal) -> None:
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        _log.warning("standard input cannot be read; taken as the end of the parent")
    _log.info("standard input ended, stopping")
    # Before the handler of multiprocessing, which waits for its children.
    atexit.register(end_group)
    stop.set()
    if not stop.wait_finished(LIFELINE_GRACE_SECONDS):
        _log.error("still busy %.0f s after the parent ended", LIFELINE_GRACE_SECONDS)
        end_group()
        os._exit(1)
