"""Generators by themselves, and over the wire to a server that takes pieces or does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from clipper_serving import protocol, streams
from clipper_serving.errors import ConfigurationError, ProtocolError
from clipper_serving.serving import Settings, container
from clipper_serving.streaming import (
    DEFAULT_STREAMS,
    Batch,
    Generators,
    Outgoing,
    join,
    joined,
    piece_text,
)

PATIENCE_SECONDS = 30.0


class Sent(Outgoing):
    """Keeps what generators send."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []
        self.ends: list[tuple[int, Exception | None]] = []
        self.batches: list[Batch] = []

    def piece(self, message_id: int, text: bytes) -> None:
        self.pieces.append((message_id, text))

    def end(self, message_id: int, error: Exception | None) -> None:
        self.ends.append((message_id, error))

    def whole(self, batch: Batch) -> None:
        self.batches.append(batch)


def count(to: int) -> Iterator[str]:
    """Texts that begin with a space."""
    for number in range(to):
        yield f" {number}"


async def count_later(to: int) -> AsyncIterator[int]:
    """Numbers, each a little later."""
    for number in range(to):
        await asyncio.sleep(0)
        yield number


def until(generators: Generators, done: Any) -> None:
    """Step until ``done`` says so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline
        generators.step()
        time.sleep(0.001)


def opened(fn: Any, one: Any, credit: int = 100, piece_max: int = 1000) -> tuple[Generators, Sent]:
    """A stream of ``fn`` over ``one`` with the id 7."""
    sent = Sent()
    generators = Generators(fn, sent)
    generators.open(7, credit, piece_max)
    generators.start(7, [one])
    return generators, sent


def test_a_generator_goes_only_as_far_as_its_caller_has_room() -> None:
    generators, sent = opened(count, 3, credit=2)
    generators.step()
    generators.step()
    assert sent.pieces == [(7, b'" 0"'), (7, b'" 1"')]
    assert not generators.is_busy() and not sent.ends
    generators.credit(7, 2)
    generators.step()
    assert sent.pieces[2:] == [(7, b'" 2"')] and sent.ends == [(7, None)]
    assert generators.is_empty()


def test_an_asynchronous_one_too() -> None:
    generators, sent = opened(count_later, 3, credit=2)
    until(generators, lambda: len(sent.pieces) == 2)
    generators.credit(7, 2)
    until(generators, lambda: sent.ends)
    assert sent.pieces == [(7, b"0"), (7, b"1"), (7, b"2")] and sent.ends == [(7, None)]
    generators.close()


def test_several_take_turns() -> None:
    sent = Sent()
    generators = Generators(count, sent)
    for message_id in (1, 2):
        generators.open(message_id, 100, 100)
        generators.start(message_id, [3])
    until(generators, generators.is_empty)
    assert [message_id for message_id, _ in sent.pieces] == [1, 2, 1, 2, 1, 2]


@pytest.mark.parametrize("is_async", [False, True])
def test_who_is_cancelled_is_closed_and_says_its_end_once(is_async: bool) -> None:
    closed: list[bool] = []

    def endless(_: Any) -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    async def waits(_: Any) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(3600)
        finally:
            closed.append(True)

    generators, sent = opened(waits if is_async else endless, None, credit=5)
    until(generators, lambda: sent.pieces)
    generators.cancel(7)
    until(generators, lambda: sent.ends)
    generators.cancel(7)
    generators.credit(7, 5)
    generators.step()
    assert sent.ends == [(7, None)] and closed == [True] and generators.is_empty()
    generators.close()


def test_one_that_is_cancelled_before_its_first_step_ends() -> None:
    generators, sent = opened(count_later, 3)
    generators.cancel(7)
    until(generators, lambda: sent.ends)
    assert sent.ends == [(7, None)]
    generators.close()


def test_errors_end_the_answer() -> None:
    def fails(one: int) -> Iterator[int]:
        yield one
        raise ValueError("worn out")

    generators, sent = opened(fails, 1)
    until(generators, lambda: sent.ends)
    assert sent.pieces == [(7, b"1")] and str(sent.ends[0][1]) == "worn out"
    generators, sent = opened(lambda _: 7, 1)
    assert "int" in str(sent.ends[0][1])
    generators, sent = opened(lambda _: iter(["x" * 99]), 1, piece_max=100)
    generators.step()
    assert "serving.stream_piece_max_bytes" in str(sent.ends[0][1]) and not sent.pieces
    generators, sent = opened(count, ValueError("no input"))
    assert str(sent.ends[0][1]) == "no input"


def test_a_batch_is_answered_whole() -> None:
    for fn, texts in ((count, [" 0 1", ""]), (count_later, ["[0,1]", ""])):
        sent = Sent()
        generators = Generators(fn, sent)
        generators.start(1, [2, 0, ValueError("no input")])
        until(generators, lambda sent=sent: sent.batches)
        (batch,) = sent.batches
        assert [batch.texts[0], batch.texts[1]] == texts
        assert list(batch.failed) == [2] and "no input" in batch.texts[2]
        generators.close()


def test_pieces_are_json_and_whole_answers_are_texts_where_all_pieces_are() -> None:
    assert [piece_text(one) for one in (" a", b"b", 1, {"c": "ü"}, "7")] == [
        '" a"',
        '"b"',
        "1",
        '{"c": "\\u00fc"}',
        '"7"',
    ]
    assert join(["a", b" b"]) == "a b"
    assert join(["a", 1, None]) == '["a",1,null]'
    assert join([]) == ""
    assert joined(count)([2, 1]) == [" 0 1", " 0"]
    assert joined(count_later)([2]) == ["[0,1]"]


def test_how_many_run_is_said_or_seen() -> None:
    def found(fn: Any, env: dict[str, str] | None = None, said: int | None = None) -> int:
        return Settings(streams=said).generators(env or {}, fn)

    assert found(count) == 0, "a generator of outputs, one for each input, as ever"
    assert found(count_later) == DEFAULT_STREAMS
    assert found(streams(3)(lambda x: count(x))) == 3
    assert found(container(streams=5)(count)) == 5
    assert found(container()(count_later)) == DEFAULT_STREAMS
    assert found(count, {"CLIPPER_STREAMS": "4"}) == 4
    assert found(count_later, said=0) == 0
    for wrong in ({"CLIPPER_STREAMS": "x"}, {"CLIPPER_STREAMS": "5000"}):
        with pytest.raises(ConfigurationError):
            found(count, wrong)


def test_the_frames_of_streams() -> None:
    assert protocol.lanes(4) == [b"", b"\4\0\0\0", b"\4\0\0\0"]
    assert protocol.piece(7, b"x") == [b"", b"\5\0\0\0", b"\7\0\0\0", b"x"]
    assert protocol.end(7) == [b"", b"\6\0\0\0", b"\7\0\0\0"]
    assert protocol.end(7, b"no")[3:] == [b"no"]
    head = [b"", b"\3\0\0\0", b"\2\0\0\0"]
    read = protocol.decode_server_message
    opening = [*head, b"\4\0\0\0", b"\7\0\0\0", b"\x10\0\0\0\0\0\1\0"]
    assert read(opening) == protocol.Open(7, 16, 65536)
    assert read([*head, b"\5\0\0\0", b"\7\0\0\0", b"\3\0\0\0"]) == protocol.Credit(7, 3)
    assert read([*head, b"\6\0\0\0", b"\7\0\0\0"]) == protocol.Cancel(7)
    for broken in (opening[:5], [*opening, b""], [*opening[:5], b"\3\0\0\0"]):
        with pytest.raises(ProtocolError):
            read(broken)
