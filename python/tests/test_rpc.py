"""The container against a server that speaks the protocol frame by frame."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakes import DEADLINE_SECONDS, FakeHttp, FakeServer, u32, u64, wait_until

from clipper_serving import ProtocolError, StopSignal, protocol, rpc
from clipper_serving.rpc import Timing

Start = Callable[..., StopSignal]

EAGER = Timing(retry_min=0.01, retry_max=0.05)
IMPATIENT = Timing(idle_heartbeat=0.05, silence=1.0, retry_min=0.01)


def echo_types(inputs: Any) -> list[Any]:
    return [
        [type(value).__name__, str(getattr(value, "dtype", "")), len(value)] for value in inputs
    ]


def test_a_connection_says_where_the_metrics_are(server: FakeServer, start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        start(lambda xs: [0] * len(xs), metrics_port=taken.getsockname()[1])
        identity = server.handshake().identity
    found = re.fullmatch(rb"clipper-metrics=127\.0\.0\.1:(\d+);[0-9a-f]{32}", identity)
    assert found, identity
    page = urllib.request.urlopen(f"http://127.0.0.1:{int(found[1])}/metrics", timeout=10).read()
    assert b"clipper_mc_pred_total" in page


def test_a_connection_says_that_there_are_no_metrics(server: FakeServer, start: Start) -> None:
    start(lambda xs: [0] * len(xs), metrics_port=0)
    first = server.handshake().identity
    assert first.startswith(b"clipper-metrics=off;")
    start(lambda xs: [0] * len(xs), metrics_port=0)
    second = server.handshake().identity
    assert second.startswith(b"clipper-metrics=off;") and first != second


@pytest.mark.parametrize(
    ("input_type", "number", "inputs", "expected"),
    [
        ("bytes", 0, [b"\x00\xff", b"abc"], [["bytes", "", 2], ["bytes", "", 3]]),
        ("integers", 1, [[1, -2], [3, 4]], [["ndarray", "int32", 2]] * 2),
        ("floats", 2, [[1.5], [2.5]], [["ndarray", "float32", 1]] * 2),
        ("doubles", 3, [[1.5, 2, 3], [4]], [["ndarray", "float64", 3], ["ndarray", "float64", 1]]),
        ("strings", 4, ["é".encode(), b"ab"], [["str", "", 1], ["str", "", 2]]),
    ],
)
def test_each_input_type_reaches_the_function(
    server: FakeServer,
    start: Start,
    input_type: str,
    number: int,
    inputs: list[Any],
    expected: list[Any],
) -> None:
    start(echo_types, name="name", version=7, input_type=input_type)
    replica = server.handshake()
    assert (replica.name, replica.version, replica.rpc_version) == ("name", "7", 3)
    assert replica.input_type == str(number)
    answers = server.predict(replica.identity, number, inputs)
    assert [json.loads(answer) for answer in answers] == expected


def test_values_arrive_exactly(server: FakeServer, start: Start) -> None:
    start(lambda xs: [x.tolist() for x in xs])
    replica = server.handshake()
    values = [[0.1, -1e300, 5e-324], [1.0, 2.0, 3.0]]
    assert [json.loads(a) for a in server.predict(replica.identity, 3, values)] == values


def test_stacked_functions_get_one_matrix_for_each_length(server: FakeServer, start: Start) -> None:
    shapes: list[tuple[int, ...]] = []

    def predict(rows: Any) -> Any:
        shapes.append(rows.shape)
        rows += 1  # Models may write into their inputs.
        return rows.sum(axis=1)

    start(predict, stacked=True)
    replica = server.handshake()
    assert server.predict(replica.identity, 3, [[1, 2], [3], [4, 5]]) == ["5.0", "4.0", "11.0"]
    assert shapes == [(2, 2), (1, 1)]


def test_empty_inputs_are_answered(server: FakeServer, start: Start) -> None:
    start(lambda xs: [len(x) for x in xs])
    replica = server.handshake()
    assert server.predict(replica.identity, 3, [[], [], [1]]) == ["0", "0", "1"]


def test_an_output_is_text_or_json(server: FakeServer, start: Start) -> None:
    outputs = ["plain", 1, 2.5, True, None, {"a": np.float32(1.5)}, np.array([1, 2]), float("nan")]
    start(lambda xs: outputs)
    replica = server.handshake()
    answers = server.predict(replica.identity, 3, [[1]] * len(outputs))
    assert answers == ["plain", "1", "2.5", "true", "null", '{"a": 1.5}', "[1, 2]", "null"]


def test_one_poisoned_input_of_64_fails_alone(server: FakeServer, start: Start) -> None:
    def predict(xs: Any) -> Any:
        if any(x[0] == 13 for x in xs):
            raise ValueError("thirteen is not for me")
        return [x[0] for x in xs]

    start(predict)
    replica = server.handshake()
    answers = server.predict(replica.identity, 3, [[n] for n in range(64)])
    assert json.loads(answers[13]) == {"error": "thirteen is not for me", "type": "ValueError"}
    assert [float(a) for n, a in enumerate(answers) if n != 13] == [n for n in range(64) if n != 13]


def test_an_error_goes_out_as_one_where_the_server_takes_errors(
    server: FakeServer, start: Start
) -> None:
    def predict(xs: Any) -> Any:
        if any(x[0] == 13 for x in xs):
            raise ValueError("é" * 100)
        return [x[0] for x in xs]

    start(predict)
    replica = server.handshake()
    assert (replica.rpc_version, replica.extensions) == (3, 231)
    server.accept_extensions(replica.identity, 1, 65)
    sent = server.send_batch(replica.identity, 3, [[n] for n in range(64)])
    outputs, errors = server.expect_outputs_and_errors(sent)
    # Of 65 bytes, 13 are `ValueError: ` and half a letter.
    assert errors == {13: "ValueError: " + "é" * 26}
    assert [float(outputs[n]) for n in range(64) if n != 13] == [n for n in range(64) if n != 13]


def test_items_travel_in_one_frame_where_the_server_takes_that(
    server: FakeServer, start: Start
) -> None:
    start(lambda xs: [x.upper() for x in xs], input_type="strings")
    replica = server.handshake()
    sent = server.send_joined(replica.identity, 4, [b"ab", b"", b"c"])
    assert server.expect_answer(sent) == ["AB", "", "C"]
    server.accept_extensions(replica.identity, protocol.JOINED, 65)
    sent = server.send_joined(replica.identity, 4, [b"ab", b"", b"c"])
    _, frames = server.recv()
    assert frames[:2] == [u32(1), u32(sent)]
    assert frames[3:] == [u64(3, 2, 0, 1), b"ABC"]
    (alone,) = server.predict(replica.identity, 4, [b"d"])
    assert alone == "D"


def test_it_says_how_long_it_has_computed_where_the_server_takes_that(
    server: FakeServer, start: Start
) -> None:
    def predict(xs: Any) -> Any:
        time.sleep(0.05)
        return [len(x) for x in xs]

    start(predict)
    replica = server.handshake()
    server.accept_extensions(replica.identity, protocol.COMPUTED, 65)
    began = time.monotonic()
    sent = server.send_batch(replica.identity, 3, [[1], [2]])
    _, frames = server.recv()
    took = time.monotonic() - began
    assert frames[:3] == [u32(1), u32(sent), u64(32)]
    count, *lengths, computed = struct.unpack("<4Q", frames[3])
    assert (count, lengths, frames[4:]) == (2, [1, 1], [b"1", b"1"])
    assert 50_000 <= computed <= took * 1e6


def test_a_server_that_accepts_nothing_gets_outputs(server: FakeServer, start: Start) -> None:
    start(lambda xs: [1 / 0 for _ in xs])
    replica = server.handshake()
    server.accept_extensions(replica.identity, 0, 65)
    (answer,) = server.predict(replica.identity, 3, [[1]])
    assert json.loads(answer)["type"] == "ZeroDivisionError"


def test_undecodable_inputs_fail_alone(server: FakeServer, start: Start) -> None:
    start(lambda xs: [x.upper() for x in xs], input_type="strings")
    replica = server.handshake()
    good, bad = server.predict(replica.identity, 4, [b"ok", b"\xff\xfe"])
    assert good == "OK"
    assert json.loads(bad)["type"] == "UnicodeDecodeError"


def test_a_ragged_array_fails_alone(server: FakeServer, start: Start) -> None:
    start(lambda xs: [len(x) for x in xs])
    replica = server.handshake()
    sent = server.send_frames(replica.identity, 3, [b"12345678", b"123"])
    good, bad = server.expect_answer(sent)
    assert good == "1"
    assert "3 bytes" in json.loads(bad)["error"]


def test_inputs_of_another_type_are_refused_with_the_reason(
    server: FakeServer, start: Start
) -> None:
    start(lambda xs: [0 for _ in xs])
    replica = server.handshake()
    (answer,) = server.predict(replica.identity, 4, [b"text"])
    assert json.loads(answer)["error"] == "this model takes doubles, not strings"


@pytest.mark.parametrize("outputs", [[1], [1, 2, 3], "text", None, 5])
def test_a_wrong_number_of_outputs_is_an_error(
    server: FakeServer, start: Start, outputs: Any
) -> None:
    calls: list[int] = []

    def predict(xs: Any) -> Any:
        calls.append(len(xs))
        return outputs if len(calls) == 1 or len(xs) == 1 else [0] * len(xs)

    start(predict)
    replica = server.handshake()
    answers = server.predict(replica.identity, 3, [[1], [2]])
    assert {json.loads(answer)["type"] for answer in answers} == {"WrongOutputCount"}


def test_idle_containers_send_heartbeats(server: FakeServer, start: Start) -> None:
    start(lambda xs: xs, timing=IMPATIENT)
    replica = server.handshake()
    for _ in range(5):
        assert server.expect_heartbeat() == replica.identity
        server.keep_alive(replica.identity)


def test_duplicate_requests_for_metadata_register_once(server: FakeServer, start: Start) -> None:
    start(lambda xs: [x[0] for x in xs])
    identity = server.expect_heartbeat()
    for _ in range(3):
        server.ask_metadata(identity)
    server.expect_registration()
    assert server.predict(identity, 3, [[5]]) == ["5.0"]
    assert server.is_quiet(0.1)


def test_a_later_request_for_metadata_registers_again(server: FakeServer, start: Start) -> None:
    start(lambda xs: xs, timing=Timing(idle_heartbeat=0.05, metadata_repeat=0.01))
    first = server.handshake()
    again = server.handshake()
    assert again == first


def test_a_silent_server_is_left_and_met_again(server: FakeServer, start: Start) -> None:
    start(lambda xs: [x[0] for x in xs], timing=IMPATIENT)
    first = server.handshake()

    def on_new_connection() -> bool:
        identity, _ = server.recv()
        return identity != first.identity

    wait_until(on_new_connection, "a new connection")
    identity, _ = server.recv()
    server.ask_metadata(identity)
    wait_until(lambda: server.recv()[1][0] == u32(0), "a registration")
    assert server.predict(identity, 3, [[5]]) == ["5.0"]


def test_a_restarted_server_is_met_again(start: Start, server: FakeServer) -> None:
    first = FakeServer()
    start(lambda xs: [x[0] for x in xs], port=first.port, timing=EAGER)
    first.handshake()
    first.close()
    second = FakeServer(first.port)
    replica = second.handshake()
    assert second.predict(replica.identity, 3, [[5]]) == ["5.0"]
    second.close()


def test_a_container_may_start_before_its_server(start: Start, server: FakeServer) -> None:
    gone = FakeServer()
    gone.close()
    start(lambda xs: [x[0] for x in xs], port=gone.port, timing=EAGER)
    late = FakeServer(gone.port)
    replica = late.handshake()
    assert late.predict(replica.identity, 3, [[5]]) == ["5.0"]
    late.close()


def test_the_answer_of_a_lost_connection_is_not_sent_to_the_next(
    start: Start, server: FakeServer
) -> None:
    working, go_on = threading.Event(), threading.Event()

    def predict(xs: Any) -> Any:
        working.set()
        assert go_on.wait(20)
        return [x[0] for x in xs]

    first = FakeServer()
    start(predict, port=first.port, timing=EAGER)
    replica = first.handshake()
    first.send_batch(replica.identity, 3, [[1]])
    assert working.wait(20)
    first.close()
    second = FakeServer(first.port)
    go_on.set()
    again = second.handshake()
    assert second.predict(again.identity, 3, [[2]]) == ["2.0"]
    second.close()


@pytest.mark.parametrize(
    "frames",
    [
        [b"x"],
        [u32(2), u32(2), u32(0)],
        [u32(3), u32(9), u32(0)],
        [u32(3), u32(1), u32(1)],
        [u32(3), u32(1), u32(1), u32(7)],
        [u32(3), u32(1), u32(1), u32(0)],
        [u32(3), u32(1), u32(1), u32(0), u64(8), b"12345678"],
        [u32(3), u32(1), u32(1), u32(0), u64(24), u64(3, 2**40, 8), b"12345678"],
        [u32(3), u32(1), u32(1), u32(0), u64(24), u64(9, 1, 8), b"12345678"],
        [u32(3), u32(1), u32(1), u32(0), u64(24), u64(3, 1, 9), b"12345678"],
    ],
)
def test_after_a_malformed_message_the_container_connects_afresh(
    server: FakeServer, start: Start, frames: list[bytes]
) -> None:
    start(lambda xs: [x[0] for x in xs], timing=EAGER)
    first = server.handshake()
    server.send(first.identity, *frames)
    again = server.handshake()
    assert again.identity != first.identity
    assert server.predict(again.identity, 3, [[5]]) == ["5.0"]


def test_feedback_is_passed_over(server: FakeServer, start: Start) -> None:
    start(lambda xs: [x[0] for x in xs])
    replica = server.handshake()
    server.send(replica.identity, u32(3), u32(1), u32(1), u32(1))
    assert server.predict(replica.identity, 3, [[5]]) == ["5.0"]


def test_stopping_sends_the_last_answer_first(server: FakeServer, start: Start) -> None:
    working, go_on = threading.Event(), threading.Event()

    def predict(xs: Any) -> Any:
        working.set()
        assert go_on.wait(20)
        return [x[0] for x in xs]

    stop = start(predict)
    replica = server.handshake()
    sent = server.send_batch(replica.identity, 3, [[5]])
    assert working.wait(20)
    stop.set()
    go_on.set()
    assert server.expect_answer(sent) == ["5.0"]
    assert stop.wait_finished(20)


def test_the_log_says_what_the_server_thinks(
    server: FakeServer, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    start(lambda xs: [0] * len(xs), name="unreg")
    replica = server.handshake()
    wait_until(lambda: "as a replica of unreg:1 for doubles" in caplog.text, "the offer")
    assert "registered" not in caplog.text
    server.tell(replica.identity, 1, "no model unreg:1 is registered\x1b[31m")
    wait_until(lambda: "no model unreg:1 is registered?[31m" in caplog.text, "the notice")
    server.tell(replica.identity, 1, "no model unreg:1 is registered\x1b[31m")
    server.tell(replica.identity, 0, "unreg:1 is served by this container")
    wait_until(lambda: "unreg:1 is served by" in caplog.text, "the other notice")
    said = [record for record in caplog.records if "the server says" in record.getMessage()]
    assert [record.levelname for record in said] == ["WARNING", "INFO"]
    assert server.predict(replica.identity, 3, [[1]]) == ["0"]


def test_a_container_that_is_refused_says_so_once(
    server: FakeServer, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    start(lambda xs: [0] * len(xs), timing=Timing(silence=0.1, retry_min=0.01))
    for _ in range(5):
        server.tell(server.handshake().identity, 2, "model m:1 takes strings, not doubles")
    said = [record.getMessage() for record in caplog.records]
    for what in ("takes strings", "connected to", "offered to the server", "trying again"):
        assert len([line for line in said if what in line]) == 1, (what, said)


def test_a_last_word_is_heard_where_the_end_is_noticed_first(
    server: FakeServer,
    start: Start,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    working, closed = threading.Event(), threading.Event()
    step = rpc._Connection._step

    def step_late(connection: rpc._Connection) -> Any:
        if closed.is_set() and not connection._lost:
            connection._monitor.poll(DEADLINE_SECONDS * 1000)
        return step(connection)

    def predict(xs: Any) -> Any:
        working.set()
        assert closed.wait(DEADLINE_SECONDS)
        return [0] * len(xs)

    monkeypatch.setattr(rpc._Connection, "_step", step_late)
    start(predict, timing=EAGER)
    replica = server.handshake()
    server.send_batch(replica.identity, 3, [[1]])
    assert working.wait(DEADLINE_SECONDS)
    server.tell(replica.identity, 2, "m:1 was deleted")
    server.close(linger=True)
    closed.set()
    wait_until(lambda: "the server says: m:1 was deleted" in caplog.text, "the last word")


def test_levels_of_the_future_count_as_errors() -> None:
    frames = [b"", u32(3), u32(2), u32(3), u32(9), b"text"]
    notice = protocol.decode_server_message(frames)
    assert notice == protocol.Notice(protocol.Level.ERROR, "text")
    with pytest.raises(ProtocolError):
        protocol.decode_server_message(frames[:5])


def test_a_port_that_does_not_speak_zeromq_is_asked_after(
    http: FakeHttp, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    start(lambda xs: xs, port=int(http.url.rpartition(":")[2]), timing=EAGER)
    wait_until(lambda: "7000 by default" in caplog.text, "the question")
