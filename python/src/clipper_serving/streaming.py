"""Answers in pieces: the generators that a container runs at the same time.

A function that streams is called with one input and yields the pieces of its answer. Generators
are stepped in turn on the thread of the connection, each only while its caller has room for another
piece; asynchronous ones run together on an event loop of their own. A caller who goes closes its
generator.
"""

from __future__ import annotations

import inspect
import json
import logging
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Union

from .errors import ClipperError
from .failures import FailureLog
from .outputs import error_bytes, error_text, to_text
from .traces import NO_TRACES, Trace, context_of

if TYPE_CHECKING:
    import asyncio

_log = logging.getLogger(__name__)

StreamFn = Callable[[Any], Union[Iterator[Any], AsyncIterator[Any]]]
"""Takes one input; yields the pieces of its answer."""

DEFAULT_STREAMS = 16
"""Generators at the same time where nobody has said how many."""

STREAMS_MAX = 4096

TURN_SECONDS = 0.005
"""Generators are stepped for so long before the server is listened to again."""


class NotAStream(ClipperError):
    """A function that is to stream did not return a generator."""


def streams(count: int = DEFAULT_STREAMS) -> Callable[[StreamFn], StreamFn]:
    """Let a function stream its answers, ``count`` at the same time.

    It is called with one input and yields pieces; whether a server asks it to stream or not.
    """

    def mark(fn: StreamFn) -> StreamFn:
        fn.streams = count  # type: ignore[attr-defined]
        return fn

    return mark


def streams_by_itself(fn: Any) -> bool:
    """Whether a function can only mean to stream: an asynchronous generator is nothing else."""
    return inspect.isasyncgenfunction(fn) or inspect.isasyncgenfunction(
        getattr(fn, "__call__", None)  # noqa: B004
    )


def piece_text(piece: Any) -> str:
    """A piece as JSON: of a text not a space is lost."""
    if isinstance(piece, str):
        return json.dumps(piece, ensure_ascii=False)
    if isinstance(piece, (bytes, bytearray, memoryview)):
        return json.dumps(to_text(piece), ensure_ascii=False)
    return to_text(piece)


def join(pieces: list[Any]) -> str:
    """The whole answer for somebody who did not ask for pieces.

    Texts are put together to one; if a piece is no text, the answer is a JSON array of them all.
    """
    texts = (str, bytes, bytearray, memoryview)
    if all(isinstance(piece, texts) for piece in pieces):
        return "".join(to_text(piece) for piece in pieces)
    return "[" + ",".join(piece_text(piece) for piece in pieces) + "]"


def joined(fn: StreamFn) -> Callable[[list[Any]], list[str]]:
    """``fn`` as a predict function, for a server that knows no pieces."""

    async def all_of(pieces: AsyncIterator[Any]) -> list[Any]:
        return [piece async for piece in pieces]

    def predict(inputs: list[Any]) -> list[str]:
        answers = []
        for one in inputs:
            pieces = _started(fn, one)
            if isinstance(pieces, AsyncIterator):
                # Only now, here and below: it costs memory.
                import asyncio

                answers.append(join(asyncio.run(all_of(pieces))))
            else:
                answers.append(join(list(pieces)))
        return answers

    return predict


def _started(fn: StreamFn, one: Any) -> Any:
    pieces = fn(one)
    if isinstance(pieces, (Iterator, AsyncIterator)):
        return pieces
    if inspect.iscoroutine(pieces):
        pieces.close()
    raise NotAStream(
        f"a function that streams yields the pieces of its answer; it returned a "
        f"{type(pieces).__name__}"
    )


@dataclass
class Batch:
    """A batch that is answered whole: its outputs by position, as they come."""

    message_id: int
    count: int
    texts: dict[int, str] = field(default_factory=dict)
    failed: dict[int, Exception] = field(default_factory=dict)

    def is_complete(self) -> bool:
        """Whether every input has its output."""
        return len(self.texts) == self.count


@dataclass
class Answer:
    """One generator under way."""

    message_id: int
    position: int = 0
    batch: Batch | None = None
    """The batch that it is part of, if it is not to come in pieces."""
    credit: int = 0
    piece_max: int = 0
    pieces: list[Any] = field(default_factory=list)
    generator: Any = None
    context: Context | None = None
    """In which it runs, if its input belongs to a trace."""
    room: asyncio.Semaphore | None = None
    task: asyncio.Task[None] | None = None
    is_on_loop: bool = False
    is_over: bool = False

    def run(self, fn: Callable[..., Any], *arguments: Any) -> Any:
        """Call something of it where ``current_trace`` is that of its input."""
        if self.context is None:
            return fn(*arguments)
        return self.context.run(fn, *arguments)


class Outgoing:
    """Where generators' pieces and ends go: the connection."""

    def piece(self, message_id: int, text: bytes) -> None:
        """Send a piece."""
        raise NotImplementedError

    def end(self, message_id: int, error: Exception | None) -> None:
        """Send the end of an answer in pieces."""
        raise NotImplementedError

    def whole(self, batch: Batch) -> None:
        """Send the answer to a batch."""
        raise NotImplementedError


class Generators:
    """The generators of one connection. All methods are called on its thread."""

    def __init__(self, fn: StreamFn, out: Outgoing) -> None:
        self._fn = fn
        self._out = out
        self._opened: dict[int, tuple[int, int]] = {}
        self._answers: dict[int, list[Answer]] = {}
        self._turns: deque[Answer] = deque()
        self._loop: _Loop | None = None
        self._failures = FailureLog(_log, "a generator failed")

    def fileno(self) -> socket.socket | None:
        """What is readable when an asynchronous generator has something to say."""
        return self._loop.reader if self._loop else None

    def open(self, message_id: int, credit: int, piece_max: int) -> None:
        """The batch with this id, which follows, is to be answered in pieces."""
        self._opened[message_id] = (credit, piece_max)

    def start(
        self,
        message_id: int,
        inputs: list[Any],
        traces: Mapping[int, Trace] = NO_TRACES,
    ) -> None:
        """Begin with a batch of decoded inputs, or the errors of those that are none.

        ``traces``: those that inputs belong to, by position.
        """
        credit, piece_max = self._opened.pop(message_id, (0, 0))
        is_stream = piece_max > 0 and len(inputs) == 1
        batch = None if is_stream else Batch(message_id, len(inputs))
        answers = [
            Answer(
                message_id,
                position,
                batch,
                credit,
                piece_max,
                context=context_of(traces.get(position)),
            )
            for position in range(len(inputs))
        ]
        self._answers[message_id] = answers
        for answer, one in zip(answers, inputs):
            try:
                if isinstance(one, Exception):
                    raise one
                answer.generator = answer.run(_started, self._fn, one)
            except Exception as error:
                self._end(answer, error)
                continue
            if isinstance(answer.generator, AsyncIterator):
                self._loop = self._loop or _Loop()
                self._loop.start(answer)
            else:
                self._turns.append(answer)
        if not inputs:
            self._answers.pop(message_id)
            self._out.whole(Batch(message_id, 0))

    def credit(self, message_id: int, pieces: int) -> None:
        """A caller has room for more pieces."""
        for answer in self._answers.get(message_id, ()):
            answer.credit += pieces
            if answer.is_on_loop and self._loop:
                self._loop.release(answer, pieces)

    def cancel(self, message_id: int) -> None:
        """Nobody wants the rest: close the generators."""
        self._opened.pop(message_id, None)
        for answer in list(self._answers.get(message_id, ())):
            if answer.is_on_loop and self._loop:
                self._loop.cancel(answer)
                continue
            self._close(answer)
            self._end(answer, None if answer.batch is None else Cancelled("nobody waits for it"))

    def is_busy(self) -> bool:
        """Whether a generator can be stepped now."""
        return any(self._may_step(answer) for answer in self._turns)

    def is_empty(self) -> bool:
        """Whether nothing is under way."""
        return not self._answers

    def step(self) -> None:
        """Step the generators in turn, for a while."""
        if self._loop:
            self._loop.hear(self._took, self._end)
        until = time.monotonic() + TURN_SECONDS
        blocked = 0
        while self._turns and blocked < len(self._turns):
            answer = self._turns.popleft()
            if answer.is_over:
                continue
            self._turns.append(answer)
            if not self._may_step(answer):
                blocked += 1
                continue
            blocked = 0
            try:
                piece = answer.run(next, answer.generator)
            except StopIteration:
                self._end(answer, None)
            except Exception as error:
                self._end(answer, error)
            else:
                self._took(answer, piece)
            if time.monotonic() >= until:
                return

    def close(self) -> None:
        """Close all generators: the connection has ended."""
        for answers in list(self._answers.values()):
            for answer in answers:
                self._close(answer)
                answer.is_over = True
        self._answers.clear()
        self._turns.clear()
        if self._loop:
            self._loop.close()
            self._loop = None

    def _may_step(self, answer: Answer) -> bool:
        return not answer.is_over and (answer.batch is not None or answer.credit > 0)

    def _took(self, answer: Answer, piece: Any) -> None:
        if answer.is_over:
            return
        if answer.batch is not None:
            answer.pieces.append(piece)
            return
        try:
            text = piece_text(piece).encode("utf-8")
            if len(text) > answer.piece_max:
                raise ValueError(
                    f"a piece of {len(text)} bytes; the server takes {answer.piece_max} "
                    "(serving.stream_piece_max_bytes)"
                )
        except Exception as error:
            self._close(answer)
            self._end(answer, error)
            return
        answer.credit -= 1
        self._out.piece(answer.message_id, text)

    def _close(self, answer: Answer) -> None:
        if answer.is_on_loop and self._loop:
            self._loop.cancel(answer)
            return
        close = getattr(answer.generator, "close", None)
        if close is None:
            return
        try:
            close()
        except Exception:
            _log.warning("a generator failed when it was closed", exc_info=True)

    def _end(self, answer: Answer, error: Exception | None) -> None:
        if answer.is_over:
            return
        answer.is_over = True
        batch = answer.batch
        if error is not None and not isinstance(error, Cancelled):
            self._failures.add(1, error)
        if batch is None:
            self._answers.pop(answer.message_id, None)
            self._out.end(answer.message_id, error)
            return
        if error is None:
            try:
                batch.texts[answer.position] = join(answer.pieces)
            except Exception as broken:
                error = broken
        if error is not None:
            batch.failed[answer.position] = error
            batch.texts[answer.position] = error_text(error)
        if batch.is_complete():
            self._answers.pop(answer.message_id, None)
            self._out.whole(batch)


class Cancelled(ClipperError):
    """Nobody waits for the answer any more."""


class _Loop:
    """A thread with an event loop, on which asynchronous generators run together."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        import asyncio

        self._asyncio = asyncio
        self._said: queue.SimpleQueue[tuple[Answer, bool, Any]] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="generators", daemon=True)
        self._thread.start()

    def start(self, answer: Answer) -> None:
        answer.is_on_loop = True
        context = answer.context
        self._loop.call_soon_threadsafe(self._begin, answer, answer.credit, context=context)

    def _begin(self, answer: Answer, credit: int) -> None:
        # On this thread, because it may belong to the loop of the thread that makes it.
        answer.room = self._asyncio.Semaphore(credit)
        answer.task = self._loop.create_task(self._drive(answer))
        # One that is cancelled before its first step says nothing itself.
        answer.task.add_done_callback(lambda _: self._say(answer, True, None))

    def release(self, answer: Answer, pieces: int) -> None:
        def more() -> None:
            if answer.room is not None:
                for _ in range(pieces):
                    answer.room.release()

        self._loop.call_soon_threadsafe(more)

    def cancel(self, answer: Answer) -> None:
        def stop() -> None:
            if answer.task is not None:
                answer.task.cancel()

        self._loop.call_soon_threadsafe(stop)

    def hear(
        self,
        took: Callable[[Answer, Any], None],
        ended: Callable[[Answer, Exception | None], None],
    ) -> None:
        with suppress(BlockingIOError):
            while self.reader.recv(4096):
                pass
        while True:
            try:
                answer, is_end, what = self._said.get_nowait()
            except queue.Empty:
                return
            if is_end:
                ended(answer, what)
            else:
                took(answer, what)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1.0)
        self.reader.close()
        self._writer.close()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
            tasks = self._asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self._loop.run_until_complete(self._asyncio.wait(tasks, timeout=1.0))
        finally:
            self._loop.close()

    async def _drive(self, answer: Answer) -> None:
        room = answer.room
        assert room is not None
        error: Exception | None = None
        try:
            while True:
                if answer.batch is None:
                    await room.acquire()
                try:
                    piece = await answer.generator.__anext__()
                except StopAsyncIteration:
                    break
                self._say(answer, False, piece)
        except self._asyncio.CancelledError:
            error = None if answer.batch is None else Cancelled("nobody waits for it")
        except Exception as failed:
            error = failed
        finally:
            close = getattr(answer.generator, "aclose", None)
            if close is not None:
                with suppress(Exception, self._asyncio.CancelledError):
                    await close()
            self._say(answer, True, error)

    def _say(self, answer: Answer, is_end: bool, what: Any) -> None:
        self._said.put((answer, is_end, what))
        # Full is as good: there is something to read.
        with suppress(OSError):
            self._writer.send(b"x")


def error_of(error: Exception, max_bytes: int | None) -> bytes | None:
    """The text of an error with which an answer in pieces ends, if the server takes errors."""
    return error_bytes(error, max_bytes) if max_bytes else None
