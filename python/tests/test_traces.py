"""Which trace an input belongs to, as the server says it and as the model asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from fakes import FakeServer, u32
from test_streaming import Sent, until

from clipper_serving import ProtocolError, Trace, current_trace, current_traces, protocol
from clipper_serving.input_types import InputType
from clipper_serving.predictor import Predictor
from clipper_serving.streaming import Generators
from clipper_serving.tensors import Signature, TensorGroup, TensorPredictor

Start = Callable[..., None]

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def trace(number: int) -> Trace:
    return Trace(f"00-{number:032x}-{number:016x}-01")


def tell(server: FakeServer, identity: bytes, message_id: int, text: str) -> None:
    server.send(identity, u32(3), u32(2), u32(7), u32(message_id), text.encode())


def test_a_trace_is_its_headers() -> None:
    known = Trace(PARENT, "a=1")
    assert known.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert known.span_id == "00f067aa0ba902b7"
    assert known.is_sampled and not Trace(PARENT.replace("-01", "-02")).is_sampled
    assert known.headers() == {"traceparent": PARENT, "tracestate": "a=1"}
    assert Trace(PARENT).headers() == {"traceparent": PARENT}


def test_the_model_knows_the_trace_of_each_input(server: FakeServer, start: Start) -> None:
    def predict(xs: Any) -> Any:
        traces = current_traces() or [None] * len(xs)
        return [it.traceparent + it.tracestate if it else "none" for it in traces]

    start(predict)
    replica = server.handshake()
    assert replica.extensions & protocol.TRACES
    sent = server.send_batch(replica.identity, 3, [[1]])
    assert server.expect_answer(sent) == ["none"]
    tell(server, replica.identity, sent + 1, f"1 {PARENT} a=b c\n")
    sent = server.send_batch(replica.identity, 3, [[1], [2]])
    assert server.expect_answer(sent) == ["none", PARENT + "a=b c"]


def test_traces_of_another_batch_are_of_no_other(server: FakeServer, start: Start) -> None:
    start(lambda xs: [len(current_traces()) for _ in xs])
    replica = server.handshake()
    tell(server, replica.identity, 77, f"0 {PARENT}\n")
    assert server.predict(replica.identity, 3, [[1]]) == ["0"]


@pytest.mark.parametrize("text", ["x 00\n", "1\n", "\n"])
def test_broken_traces_are_a_broken_message(text: str) -> None:
    with pytest.raises(ProtocolError):
        protocol.decode_server_message([b"", u32(3), u32(2), u32(7), u32(1), text.encode()])


def test_halves_of_a_batch_know_their_own_traces() -> None:
    seen: list[list[Trace | None]] = []

    def predict(xs: Any) -> Any:
        seen.append(current_traces())
        if "bad" in xs:
            raise ValueError("bad")
        return xs

    predictor = Predictor(predict, InputType.STRINGS)
    batch = predictor.decode(InputType.STRINGS, [b"a", b"\xff", b"bad", b"b"])
    predictor.run(batch, {0: trace(1), 2: trace(3), 3: trace(4)})
    # The second is no text, so that it does not reach the model.
    assert seen[0] == [trace(1), trace(3), trace(4)]
    assert seen[1:] == [[trace(1)], [trace(3), trace(4)], [trace(3)], [trace(4)]]
    assert current_traces() == [] and current_trace() is None


def test_rows_of_tensors_know_theirs() -> None:
    import numpy as np

    seen: list[list[Trace | None]] = []

    def predict(arrays: Any) -> Any:
        seen.append(current_traces())
        return arrays["x"]

    spec = {"x": ("float32", [-1, -1])}
    predictor = TensorPredictor(predict, Signature.of(spec, {"y": ("float32", [-1, -1])}))
    group = [TensorGroup(rows, [np.zeros((rows, rows), np.float32)]) for rows in (2, 1)]
    predictor.run(group, {1: trace(1), 2: trace(2)})
    assert seen == [[None, trace(1)], [trace(2)]]


def test_generators_know_theirs_while_others_run() -> None:
    def stream(one: str) -> Iterator[str]:
        for _ in range(3):
            found = current_trace()
            yield f"{one} {found.span_id if found else None}"

    async def later(one: str) -> AsyncIterator[str]:
        for piece in stream(one):
            await asyncio.sleep(0)
            yield piece

    for fn in (stream, later):
        out = Sent()
        generators = Generators(fn, out)
        for number in (1, 2, 3):
            generators.open(number, 10, 100)
            traces = {0: trace(number)} if number < 3 else {}
            generators.start(number, [str(number)], traces)
        until(generators, lambda out=out: len(out.ends) == 3)
        told = {(at, piece.decode().strip('"')) for at, piece in out.pieces}
        assert told == {
            (1, f"1 {1:016x}"),
            (2, f"2 {2:016x}"),
            (3, "3 None"),
        }
        generators.close()
    assert current_trace() is None
