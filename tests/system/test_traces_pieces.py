"""Traces of answers in pieces: as those of others, and of those that do not end well."""

from __future__ import annotations

import json
import secrets
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from collecting import CONFIG, attributes, collector, is_inside, parent
from harness import Server, container, server, until

PIECES = """
import os, time

def predict(text):
    n = 0
    while text in ("endless", "dies") or n < int(text):
        if n == 13:
            raise ValueError("unlucky")
        if text == "dies" and n == 2:
            while not os.path.exists("read"):
                time.sleep(0.01)
            os._exit(3)
        yield f" {n}"
        n += 1
        if text == "endless":
            n = 0
            time.sleep(0.01)
"""

CHAT = """
[[application]]
name = "chat"
input_type = "strings"
default_output = "none"
latency_slo_micros = 20000000
model = "chat"

[[model]]
name = "chat"
version = "1"
input_type = "strings"
"""


def shown(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


@contextmanager
def chatting(tmp_path: Path, port: int, more: str = "", key: str = "") -> Iterator[Server]:
    """A server whose model answers in pieces, to holders of this key if there is one."""

    def is_ready() -> bool:
        request = urllib.request.Request(f"{served.query}/v2/models/chat/ready", None, shown(key))
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False

    config = CONFIG.format(port=port, more="").split("[[application]]")[0] + more + CHAT
    variables = {"CLIPPER_INPUT_TYPE": "strings", "CLIPPER_STREAMS": "2"}
    with (
        server(tmp_path, config) as served,
        container(served, tmp_path, "chat", PIECES, **variables),
    ):
        until("chat is there", is_ready)
        yield served


def pieces(served: Server, path: str, body: Any, header: str, key: str = "") -> Any:
    """An answer in pieces, not read yet."""
    headers = {"traceparent": header, "Accept": "text/event-stream", **shown(key)}
    data = json.dumps(body).encode()
    request = urllib.request.Request(served.query + path, data, headers)
    return urllib.request.urlopen(request, timeout=60)


STREAMS = [
    ("/chat/predict", "input", "POST /{app}/predict"),
    ("/v2/models/chat/generate_stream", "text_input", "POST /v2/models/{name}/generate_stream"),
]


@pytest.mark.parametrize(("path", "key", "name"), STREAMS)
def test_an_answer_in_pieces_has_the_spans_of_others(
    tmp_path: Path, path: str, key: str, name: str
) -> None:
    with collector() as received, chatting(tmp_path, received.port) as served:
        trace, span, header = parent()
        assert pieces(served, path, {key: "3"}, header).read()
        spans = received.whole(trace)
        assert sorted(spans) == sorted([name, "admission", "queue", "container"])
        (request,), (waited,) = spans[name], spans["container"]
        assert request.parent_span_id.hex() == span
        assert request.status.code == Status.STATUS_CODE_UNSET
        assert attributes(request)["clipper.outcome"] == "prediction"
        for child in ("admission", "queue", "container"):
            assert spans[child][0].parent_span_id == request.span_id
            assert is_inside(spans[child][0], request), child
        assert attributes(waited)["clipper.attempt.end"] == "answered"
        batch = received.batch(waited)
        assert [it.span_id for it in batch.links] == [waited.span_id]

        # One that breaks off is no whole answer, although its status has gone.
        for input, outcome, message in [("20", "model_error", "unlucky"), ("dies", "failed", "")]:
            trace, _, header = parent()
            (tmp_path / "read").unlink(missing_ok=True)
            with pieces(served, path, {key: input}, header) as answer:
                assert answer.readline()
                (tmp_path / "read").touch()
                answer.read()
            spans = received.whole(trace)
            (request,) = spans[name]
            of = attributes(request)
            assert request.status.code == Status.STATUS_CODE_ERROR, input
            assert message in request.status.message and request.status.message, input
            assert (of["error.type"], of["clipper.outcome"]) == (outcome, outcome), input
            assert of["http.response.status_code"] == 200
            assert len(spans["queue"]) == 1 and len(spans["container"]) >= 1


def test_what_a_client_gives_up_says_so(tmp_path: Path) -> None:
    import numpy as np
    import tritonclient.grpc as triton

    with collector() as received, chatting(tmp_path, received.port) as served:
        trace, _, header = parent()
        answer = pieces(served, "/chat/predict", {"input": "endless"}, header)
        assert answer.readline()
        answer.close()
        spans = received.whole(trace)
        (request,) = spans["POST /{app}/predict"]
        assert request.status.code == Status.STATUS_CODE_ERROR
        of = attributes(request)
        assert (of["error.type"], of["clipper.outcome"]) == ("given_up", "gone")
        (waited,) = spans["container"]
        assert attributes(waited)["clipper.attempt.end"] == "unanswered"

        wanted = triton.InferInput("input", [1, 1], "BYTES")
        wanted.set_data_from_numpy(np.array([[b"endless"]], dtype=object))
        came = threading.Event()
        with triton.InferenceServerClient(served.grpc) as client:
            trace, _, header = parent()
            headers = {"traceparent": header, "x-request-id": "stream"}
            client.start_stream(lambda result, error: came.set(), headers=headers)
            client.async_stream_infer("chat", [wanted])
            assert came.wait(60)
            client.stop_stream(cancel_requests=True)
        spans = received.whole(trace)
        (request,) = spans["inference.GRPCInferenceService/ModelStreamInfer"]
        assert request.status.code == Status.STATUS_CODE_ERROR
        of = attributes(request)
        assert (of["error.type"], of["clipper.request_id"]) == ("given_up", "stream")
        assert len(spans["container"]) == 1


def test_what_ends_with_its_key_says_so(tmp_path: Path) -> None:
    import numpy as np
    import tritonclient.grpc as triton

    keys = tmp_path / "keys"
    secret = {name: secrets.token_hex(16) for name in ("one", "two")}

    def give(*names: str) -> None:
        written = keys.with_suffix(".next")
        written.write_text("".join(f"{it} predict {secret[it]}\n" for it in names))
        written.replace(keys)

    give("one", "two")
    more = f'[access]\nkeys_file = "{keys}"\n[access_log]\nmode = "all"\nfile = "access.log"\n'
    with collector() as received, chatting(tmp_path, received.port, more, secret["one"]) as served:
        came = threading.Event()
        grpc, _, header = parent()
        headers = {"traceparent": header, "authorization": f"Bearer {secret['one']}"}
        wanted = triton.InferInput("input", [1, 1], "BYTES")
        wanted.set_data_from_numpy(np.array([[b"endless"]], dtype=object))
        with triton.InferenceServerClient(served.grpc) as client:
            client.start_stream(lambda result, error: came.set(), headers=headers)
            client.async_stream_infer("chat", [wanted])
            assert came.wait(60)
            http, _, header = parent()
            body = {"input": "endless"}
            with pieces(served, "/chat/predict", body, header, secret["one"]) as answer:
                assert answer.readline()
                give("two")
                end = json.loads(answer.read().split(b"data: ")[-1])
            assert end["end"] == "unauthorized" and "Key 'one'" in end["reason"], end
            spans = {trace: received.whole(trace) for trace in (grpc, http)}
            client.stop_stream()
    requests = [
        spans[http]["POST /{app}/predict"][0],
        spans[grpc]["inference.GRPCInferenceService/ModelStreamInfer"][0],
    ]
    for request in requests:
        assert request.status.code == Status.STATUS_CODE_ERROR
        assert "Key 'one'" in request.status.message
        of = attributes(request)
        assert (of["error.type"], of["clipper.outcome"]) == ("unauthorized", "unauthorized")
    text = (tmp_path / "access.log").read_text()
    lines = {it.get("trace_id"): it for it in map(json.loads, text.splitlines())}
    for trace in (http, grpc):
        line = lines[trace]
        assert (line["queries"], line["defaults"]) == (1, 1), line
        assert line["outcome"] == "unauthorized" and "Key 'one'" in line["reason"], line
