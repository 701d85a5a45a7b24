"""The access log: each protocol says the same, also of what clients give up."""

from __future__ import annotations

import json
import queue
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.errors
import numpy as np
import pytest
from every_type import application, is_ready
from harness import Server, container, server, until
from secured import self_signed, tls_section, trusting

triton = pytest.importorskip("tritonclient.grpc")

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"

SOURCE = """
import os, time

folder = os.path.dirname(os.path.abspath(__file__))

def predict(inputs):
    value = int(inputs[0][0])
    if value >= 14:
        open(os.path.join(folder, f"started-{value}"), "w").close()
        while not os.path.exists(os.path.join(folder, "go")):
            time.sleep(0.01)
    return [float(x.sum()) for x in inputs]
"""
"""It waits with sums from 14 on until it is told to go on."""

PIECES = """
import time

def predict(text):
    n = 0
    while text == "endless" or n < int(text):
        if n == 13:
            raise ValueError("unlucky")
        yield f" {n}"
        n += 1
        if text == "endless":
            n = 0
            time.sleep(0.01)
"""


class Logged:
    def __init__(self, served: Server, folder: Path) -> None:
        self.served = served
        self.folder = folder

    def lines(self, **of: Any) -> list[dict[str, Any]]:
        file = self.folder / "access.log"
        lines = file.read_text().splitlines() if file.exists() else []
        read = [json.loads(line) for line in lines]
        return [line for line in read if all(line.get(key) == value for key, value in of.items())]

    def line(self, **of: Any) -> dict[str, Any]:
        (line,) = until(f"a line {of}", lambda: self.lines(**of))
        return line

    def stands_still(self, value: int) -> None:
        """Waits until the model has begun with this sum."""
        until("the model has begun", (self.folder / f"started-{value}").exists)


@contextmanager
def logged(folder: Path, mode: str = "all", more: str = "") -> Iterator[Logged]:
    models = [("m", "doubles"), ("chat", "strings")]
    config = (
        f'[access_log]\nmode = "{mode}"\none_in = 1000000000\nfile = "access.log"\n{more}'
        + "".join(application(name, name, kind) for name, kind in models)
        + application("nobody", "absent", "doubles").split("model =")[0]
        + "".join(
            f'[[model]]\nname = "{name}"\nversion = "1"\ninput_type = "{kind}"\nbatch_size = 1\n'
            for name, kind in models
        )
    )
    with (
        server(folder, config) as served,
        container(served, folder, "m", SOURCE, CLIPPER_INPUT_TYPE="doubles"),
        container(served, folder, "m", SOURCE, CLIPPER_INPUT_TYPE="doubles"),
        container(
            served, folder, "chat", PIECES, CLIPPER_INPUT_TYPE="strings", CLIPPER_STREAMS="2"
        ),
    ):
        yield Logged(served, folder)


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    with logged(tmp_path_factory.mktemp("every")) as them:
        for name in ("m", "chat"):
            until(f"{name} is ready", lambda name=name: is_ready(them.served, name))
        yield them


def doubles(value: float) -> list[Any]:
    given = triton.InferInput("input", [1, 1], "FP64")
    given.set_data_from_numpy(np.array([[value]]))
    return [given]


def text(value: str) -> list[Any]:
    given = triton.InferInput("input", [1, 1], "BYTES")
    given.set_data_from_numpy(np.array([[value.encode()]], dtype=object))
    return [given]


def post(of: Logged, path: str, body: Any, *headers: str) -> socket.socket:
    """A request whose answer is not read."""
    at = urlsplit(of.served.query)
    assert at.hostname and at.port
    connection = socket.create_connection((at.hostname, at.port), 60)
    data = json.dumps(body)
    head = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Length: {len(data)}", *headers]
    connection.sendall("\r\n".join([*head, "", data]).encode())
    return connection


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_a_call_says_what_a_request_says(every: Logged) -> None:
    with triton.InferenceServerClient(every.served.grpc) as client:
        client.infer("m", doubles(1.0), headers={"x-request-id": "mine"})
        line = every.line(request_id="mine")
        assert (line["port"], line["path"], line["grpc_status"]) == ("grpc", INFER, "OK"), line
        assert (line["app"], line["outcome"]) == ("m", "prediction"), line
        assert (line["queries"], line["defaults"]) == (1, 0), line
        assert line["bytes_in"] > 8 and line["bytes_out"] > 8 and "cut" not in line, line
        # An id is made where none comes.
        client.infer("m", doubles(2.0))
        made = until("its line", lambda: every.lines(path=INFER, app="m")[1:])
        assert len(made[0]["request_id"]) == 16, made
        # A default output that was wanted is no error.
        wanted = {"headers": {"x-request-id": "default"}, "parameters": {"default": True}}
        client.infer("nobody", doubles(1.0), **wanted)
        line = every.line(request_id="default")
        assert (line["grpc_status"], line["app"]) == ("OK", "nobody"), line
        assert (line["outcome"], line["defaults"]) == ("no_replica", 1), line
        assert "not linked" in line["reason"], line
        # One that was not is refused, and says the same.
        with pytest.raises(triton.InferenceServerException):
            client.infer("nobody", doubles(1.0), headers={"x-request-id": "refused"})
        line = every.line(request_id="refused")
        assert (line["grpc_status"], line["outcome"]) == ("UNAVAILABLE", "no_replica"), line
        assert line["error"] == "no_prediction", line
        client.get_model_metadata("m", headers={"x-request-id": "page"})
        assert every.line(request_id="page")["app"] == "m"


def test_a_stream_says_how_its_requests_ended(every: Logged) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(every.served.grpc) as client:
        callback = lambda result, error: answers.put((result, error))  # noqa: E731
        client.start_stream(callback, headers={"x-request-id": "stream"})
        for name, inputs, count in [("chat", text("3"), 3), ("chat", text("20"), 14)]:
            client.async_stream_infer(name, inputs)
            for _ in range(count):
                answers.get(timeout=60)
        client.stop_stream()
    line = every.line(request_id="stream")
    assert (line["path"], line["grpc_status"], line["app"]) == (STREAM, "OK", "chat"), line
    assert (line["queries"], line["defaults"], line["outcome"]) == (2, 1, "model_error"), line
    assert "unlucky" in line["reason"] and line["bytes_out"] > 100, line
    # Over HTTP, in pieces and whole.
    for path in ["/v2/models/chat/generate", "/v2/models/chat/generate_stream"]:
        asked = post(every, path, {"text_input": "20"}, f"X-Request-Id: {path}")
        until("its line", lambda path=path: every.lines(request_id=path))
        asked.close()
        line = every.line(request_id=path)
        assert (line["app"], line["queries"], line["defaults"]) == ("chat", 1, 1), line
        assert line["outcome"] == "model_error" and "unlucky" in line["reason"], line


@pytest.mark.parametrize("mode", ["all", "sampled"])
def test_who_goes_before_the_answer_leaves_one_line(tmp_path: Path, mode: str) -> None:
    with logged(tmp_path, mode) as them:
        until("m is ready", lambda: is_ready(them.served, "m"))
        request = post(them, "/m/predict", {"input": [14.0]}, "X-Request-Id: reset")
        them.stands_still(14)
        reset(request)
        line = them.line(request_id="reset")
        assert (line["outcome"], line["cut"], line["app"]) == ("gone", True, "m"), line
        assert "status" not in line and "error" not in line, line
        with triton.InferenceServerClient(them.served.grpc) as client:
            headers = {"x-request-id": "cancelled"}
            call = client.async_infer("m", doubles(15.0), lambda *_: None, headers=headers)
            them.stands_still(15)
            call.cancel()
            line = them.line(request_id="cancelled")
            assert (line["grpc_status"], line["outcome"]) == ("CANCELLED", "gone"), line
            assert line["cut"] is True, line
        (tmp_path / "go").touch()
        until("chat is ready", lambda: is_ready(them.served, "chat"))
        headers = ("X-Request-Id: pieces", "Accept: text/event-stream")
        stream = post(them, "/chat/predict", {"input": "endless"}, *headers)
        assert stream.recv(100).startswith(b"HTTP/1.1 200")
        reset(stream)
        line = them.line(request_id="pieces")
        assert (line["status"], line["outcome"], line["cut"]) == (200, "gone", True), line
        for request_id in ("reset", "cancelled", "pieces"):
            assert len(them.lines(request_id=request_id)) == 1


def test_defaults_and_what_was_given_up_always_have_a_line(tmp_path: Path) -> None:
    with logged(tmp_path, "sampled") as them:
        until("m is ready", lambda: is_ready(them.served, "m"))
        with triton.InferenceServerClient(them.served.grpc) as client:
            for n in range(20):
                client.infer("m", doubles(n / 100), headers={"x-request-id": f"good-{n}"})
            wanted = {"headers": {"x-request-id": "default"}, "parameters": {"default": True}}
            client.infer("nobody", doubles(1.0), **wanted)
        assert them.line(request_id="default")["defaults"] == 1
        ids = [line["request_id"] for line in them.lines()]
        assert not [it for it in ids if it.startswith("good-")], ids


def test_a_request_over_http_2_that_is_reset_has_one_line(tmp_path: Path) -> None:
    pair = self_signed(tmp_path / "made")
    with logged(tmp_path, more=tls_section(pair)) as them:
        at = urlsplit(them.served.query)
        assert at.hostname and at.port
        context = trusting(pair.cert)
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection((at.hostname, at.port), 60)
        with context.wrap_socket(plain, server_hostname="localhost") as connection:
            peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
            peer.initiate_connection()

            def ask(name: str, value: float) -> int:
                body = json.dumps({"input": [value]}).encode()
                stream = peer.get_next_available_stream_id()
                head = [(":method", "POST"), (":path", "/m/predict"), (":scheme", "https")]
                head += [(":authority", "localhost"), ("x-request-id", name)]
                peer.send_headers(stream, head)
                peer.send_data(stream, body, end_stream=True)
                connection.sendall(peer.data_to_send())
                return stream

            def begins() -> bool:
                # Until a replica is there each is answered at once.
                ask("early", 14.0)
                return (tmp_path / "started-14").exists()

            until("the model has begun", begins)
            stream = ask("reset", 15.0)
            them.stands_still(15)
            peer.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            connection.sendall(peer.data_to_send())
            line = them.line(request_id="reset")
            assert (line["outcome"], line["cut"]) == ("gone", True), line
            assert "status" not in line and line["path"] == "/m/predict", line
            (tmp_path / "go").touch()
