"""The wire form of tensors against a container that is only a socket, and what liars get."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from harness import Server, get, post, server, until

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "BYTES", "shape": [-1]}],
}
CONFIG = """
[[application]]
name = "m"
input_type = "tensors"
default_output = "null"
latency_slo_micros = 10000000
model = "m"

[[model]]
name = "m"
version = "1"
input_type = "tensors"
cache = false
"""


def u32(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def words(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


class Raw:
    """A container that answers every batch with what ``answer`` makes of its items."""

    def __init__(self, port: int, answer: Any, new: list[bytes]) -> None:
        self.batches: list[list[bytes]] = []
        self.told: list[list[bytes]] = []
        self._answer, self._new = answer, new
        self._port, self._end = port, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        socket = zmq.Context.instance().socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"tcp://127.0.0.1:{self._port}")
        socket.send_multipart([b"", u32(2)])
        while not self._end.is_set():
            if not socket.poll(20):
                continue
            frames = socket.recv_multipart()
            if frames[2] == u32(2):
                self.told.append(frames)
                if frames[3] == u32(1):
                    socket.send_multipart(self._new)
                continue
            self.batches.append(frames)
            items = self._answer(frames[7:])
            header = words(len(items), *(len(item) for item in items))
            head = [b"", u32(1), frames[3], words(len(header)), header]
            socket.send_multipart([*head, *items])
        socket.close()


def new_container(
    signature: Any = SIGNATURE, extensions: int = 15, kind: bytes = b"5"
) -> list[bytes]:
    text = signature if isinstance(signature, bytes) else json.dumps(signature).encode()
    return [b"", u32(0), b"m", b"1", kind, u32(3, extensions), text]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("wire"), CONFIG) as one:
        yield one


@pytest.fixture()
def containers() -> Iterator[list[Raw]]:
    started: list[Raw] = []
    yield started
    for raw in started:
        raw.stop()


def ended(one: Server, reason: str) -> float:
    page = get(f"{one.metrics}/metrics")
    lines = [line for line in page.splitlines() if line.startswith("clipper_rpc_ended_total")]
    return sum(float(line.split()[-1]) for line in lines if f'"{reason}"' in line)


def good(items: list[bytes]) -> list[bytes]:
    rows = struct.unpack_from("<Q", items[0], 8)[0]
    texts = [str(n).encode() for n in range(rows)]
    data = b"".join(u32(len(text)) + text for text in texts)
    return [words(1, rows, 1, 13, 1, rows), data]


def served(one: Server) -> bool:
    try:
        return bool(get(f"{one.query}/v2/models/m/ready"))
    except OSError:
        return False


def gone(one: Server) -> bool:
    return not served(one)


def test_byte_by_byte(one: Server, containers: list[Raw]) -> None:
    raw = Raw(one.rpc_port, good, new_container())
    containers.append(raw)
    until("it is served", lambda: served(one))
    extensions = [frames for frames in raw.told if frames[3] == u32(2)]
    assert extensions and extensions[0][4] == u32(15)
    answer = post(f"{one.query}/m/predict", {"input": {"x": [1, 2]}})
    assert answer["output"] == {"y": "0"}, answer
    frames = raw.batches[-1]
    data = struct.pack("<2f", 1, 2)
    description = words(1, 1, 1, 10, 2, 1, 2)
    assert frames[:3] == [b"", u32(3), u32(1)] and frames[4] == u32(0)
    assert frames[5:] == [
        words(32),
        words(5, 2, len(description), len(data)),
        description,
        data,
    ]
    batch = {"input_batch": [{"x": [n, n]} for n in range(20)]}
    outputs = post(f"{one.query}/m/predict", batch)["batch_predictions"]
    assert all(not one["default"] for one in outputs)


LIES = {
    "no description": [],
    "a description that ends early": [words(1, 1, 1, 13)],
    "another number of rows": [words(1, 2, 1, 13, 1, 2), u32(1) + b"a" + u32(1) + b"b"],
    "2^63 rows": [words(1, 1 << 63, 1, 13, 1, 1 << 63), u32(1) + b"a"],
    "2^64 - 1 groups": [words((1 << 64) - 1, 1, 1, 13, 1, 1), u32(1) + b"a"],
    "another datatype": [words(1, 1, 1, 10, 1, 1), b"\0\0\0\0"],
    "an unknown datatype": [words(1, 1, 1, 99, 1, 1), u32(1) + b"a"],
    "another rank": [words(1, 1, 1, 13, 2, 1, 1), u32(1) + b"a"],
    "2^60 dimensions": [words(1, 1, 1, 13, 1 << 60, 1), u32(1) + b"a"],
    "a text that lies about its length": [words(1, 1, 1, 13, 1, 1), u32(0xFFFFFFFF) + b"a"],
    "one text too many": [words(1, 1, 1, 13, 1, 1), (u32(1) + b"a") * 2],
    "two tensors": [words(1, 1, 2, 13, 1, 1, 13, 1, 1), u32(1) + b"a", u32(1) + b"a"],
    "a part too many": [words(1, 1, 1, 13, 1, 1), u32(1) + b"a", b"more"],
    "an empty error": [words(1, 1, 0), b""],
    "an error that is not UTF-8": [words(1, 1, 0), b"\xff"],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_container_that_lies_is_dropped(
    one: Server, containers: list[Raw], lie: str
) -> None:
    until("the last one is gone", lambda: gone(one))
    before = ended(one, "protocol")
    containers.append(Raw(one.rpc_port, lambda items: LIES[lie], new_container()))
    until("it is served", lambda: served(one))
    answer = post(f"{one.query}/m/predict", {"input": {"x": [1, 2]}})
    assert answer["default"] is True, answer
    assert until("it is dropped", lambda: ended(one, "protocol") > before)


def test_errors_of_rows(one: Server, containers: list[Raw]) -> None:
    def second_fails(items: list[bytes]) -> list[bytes]:
        rows = struct.unpack_from("<Q", items[0], 8)[0]
        parts = [words(rows, *sum(((1, 0) for _ in range(rows)), ()))]
        return [*parts, *(f"row {n} of {rows}".encode() for n in range(rows))]

    until("the last one is gone", lambda: gone(one))
    containers.append(Raw(one.rpc_port, second_fails, new_container()))
    until("it is served", lambda: served(one))
    batch = {"input_batch": [{"x": [n, n]} for n in range(3)]}
    outputs = post(f"{one.query}/m/predict", batch)["batch_predictions"]
    assert all("row " in one["default_explanation"] for one in outputs), outputs


@pytest.mark.parametrize(
    "new",
    [
        new_container(extensions=7),
        new_container()[:6],
        new_container(b"{}"),
        new_container(b"\xff"),
        new_container(b"[" * 30_000),
        new_container({**SIGNATURE, "more": 1}),
        new_container({**SIGNATURE, "inputs": []}),
        new_container({**SIGNATURE, "inputs": SIGNATURE["inputs"] * 2}),
    ],
)
def test_a_signature_that_is_none_is_refused(
    one: Server, containers: list[Raw], new: list[bytes]
) -> None:
    until("the last one is gone", lambda: gone(one))
    before = ended(one, "input_type") + ended(one, "protocol")
    containers.append(Raw(one.rpc_port, good, new))
    until("it is refused", lambda: ended(one, "input_type") + ended(one, "protocol") > before)
    assert gone(one)


def test_the_first_ones_tensors_are_those_of_all(
    one: Server, containers: list[Raw], tmp_path: Path
) -> None:
    until("the last one is gone", lambda: gone(one))
    containers.append(Raw(one.rpc_port, good, new_container()))
    until("it is served", lambda: served(one))
    other = {**SIGNATURE, "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 2]}]}
    before = ended(one, "input_type")
    second = Raw(one.rpc_port, good, new_container(other))
    containers.append(second)
    until("it is refused", lambda: ended(one, "input_type") > before)
    assert post(f"{one.query}/m/predict", {"input": {"x": [1, 2]}})["default"] is False
    for raw in containers:
        raw.stop()
    until("both are gone", lambda: gone(one))
    containers.append(Raw(one.rpc_port, good, new_container(other)))
    until("the other is served", lambda: served(one))
    page = json.loads(get(f"{one.query}/v2/models/m"))
    assert page["inputs"][0]["datatype"] == "FP64"
