"""Traces, from a caller's header to a collector that reads them by the official messages."""

from __future__ import annotations

import json
import re
import secrets
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from harness import Server, container, free_port, get, post, server, until

SLOW = 0.05
"""What the model takes, seconds."""

MODEL = f"""
import time
from clipper_serving import current_trace, current_traces

def predict(inputs):
    time.sleep({SLOW})
    traces = current_traces()
    assert traces == [] or len(traces) == len(inputs)
    first = current_trace()
    seen = [trace and [trace.traceparent, trace.tracestate] for trace in traces]
    return [seen[at] if seen else None for at in range(len(inputs))]
"""
"""It answers with the trace that it was told of."""

CONFIG = """
[traces]
endpoint = "http://127.0.0.1:{port}"
interval_ms = 50
retry_initial_ms = 20
retry_max_ms = 100
{more}

[[application]]
name = "app"
input_type = "doubles"
default_output = "null"
latency_slo_micros = 20000000
model = "m"
cache = false

[[application]]
name = "alone"
input_type = "doubles"
default_output = "null"
latency_slo_micros = 20000000

[[model]]
name = "m"
version = "1"
input_type = "doubles"
batch_size = 1
"""


def attributes(of: Any) -> dict[str, Any]:
    return {it.key: getattr(it.value, it.value.WhichOneof("value")) for it in of.attributes}


@dataclass
class Collector:
    """A receiver of OTLP over HTTP."""

    port: int
    answer: Callable[[], tuple[int, bytes]] = lambda: (200, b"")
    spans: list[Span] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    requests: int = 0

    def take(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        self.requests += 1
        assert path == "/v1/traces", path
        assert headers["content-type"] == "application/x-protobuf", headers
        status, answer = self.answer()
        if status == 200:
            self.headers.append(headers)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append(attributes(resource.resource))
                for scope in resource.scope_spans:
                    assert scope.scope.name == "clipper"
                    self.spans.extend(scope.spans)
        return status, answer

    def of_trace(self, trace_id: str) -> list[Span]:
        return [span for span in list(self.spans) if span.trace_id.hex() == trace_id]

    def whole(self, trace_id: str) -> dict[str, list[Span]]:
        """All of a trace by their names, once its request's span is there."""

        def found() -> dict[str, list[Span]] | None:
            spans = self.of_trace(trace_id)
            if not any(span.kind == Span.SPAN_KIND_SERVER for span in spans):
                return None
            names: dict[str, list[Span]] = {}
            for span in spans:
                names.setdefault(span.name, []).append(span)
            return names

        return until(f"trace {trace_id} is exported", found)

    def batch(self, container_span: Span) -> Span:
        """That with the query of this span."""
        (link,) = container_span.links

        def found() -> Span | None:
            spans = self.of_trace(link.trace_id.hex())
            return next((span for span in spans if span.span_id == link.span_id), None)

        return until("its batch is exported", found)


@contextmanager
def collector(port: int | None = None, **more: Any) -> Iterator[Collector]:
    of = Collector(port or free_port(), **more)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = of.take(self.path, headers, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", of.port), Handler)
    listening.daemon_threads = True
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield of
    finally:
        listening.shutdown()
        listening.server_close()


@contextmanager
def traced(tmp_path: Path, port: int, more: str = "") -> Iterator[Server]:
    """A server whose replica is there."""
    with (
        server(tmp_path, CONFIG.format(port=port, more=more)) as served,
        container(served, tmp_path, "m", MODEL, CLIPPER_INPUT_TYPE="doubles"),
    ):
        replicas = 'clipper_replicas{model="m",version="1"} 1'
        until("the replica is there", lambda: replicas in get(served.metrics + "/metrics"))
        yield served


def parent(flags: str = "01") -> tuple[str, str, str]:
    """A new trace: its id, the caller's span, the header."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, f"00-{trace}-{span}-{flags}"


def ask(served: Server, path: str, body: Any, **headers: str) -> Any:
    data = json.dumps(body).encode()
    request = urllib.request.Request(served.query + path, data, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def counted(served: Server, outcome: str) -> float:
    page = get(served.metrics + "/metrics")
    found = re.search(rf'^clipper_trace_spans_total{{outcome="{outcome}"}} (\S+)$', page, re.M)
    return float(found[1]) if found else 0.0


def is_inside(inner: Span, outer: Span) -> bool:
    return (
        outer.start_time_unix_nano
        <= inner.start_time_unix_nano
        <= inner.end_time_unix_nano
        <= outer.end_time_unix_nano
    )


def milliseconds(span: Span) -> float:
    return float(span.end_time_unix_nano - span.start_time_unix_nano) / 1e6


def test_a_query_is_a_tree_of_spans_below_its_caller(tmp_path: Path) -> None:
    with collector() as received, traced(tmp_path, received.port) as served:
        trace, span, header = parent()
        began = time.time_ns()
        answer = ask(
            served,
            "/app/predict?explain=1",
            {"input": [1.0]},
            traceparent=header,
            tracestate="vendor=x",
        )
        ended = time.time_ns()
        spans = received.whole(trace)
        assert sorted(spans) == ["POST /{app}/predict", "admission", "container", "queue"]
        (request,) = spans["POST /{app}/predict"]
        assert request.parent_span_id.hex() == span
        assert (request.kind, request.trace_state) == (Span.SPAN_KIND_SERVER, "vendor=x")
        assert began <= request.start_time_unix_nano <= request.end_time_unix_nano <= ended
        of = attributes(request)
        assert of["http.response.status_code"] == 200
        assert of["url.path"] == "/app/predict"
        assert (of["clipper.app"], of["clipper.outcome"]) == ("app", "prediction")
        assert request.status.code == Status.STATUS_CODE_UNSET
        for name in ["admission", "queue", "container"]:
            (child,) = spans[name]
            assert child.parent_span_id == request.span_id, name
            assert is_inside(child, request), name
        (waited,) = spans["container"]
        assert milliseconds(waited) >= SLOW * 1e3

        # The same times as the explanation has, which is made of the same facts.
        times = answer["explain"]["times_ms"]
        assert milliseconds(waited) == pytest.approx(times["container"] + times["network"], abs=0.1)
        assert milliseconds(spans["queue"][0]) == pytest.approx(times["queue"], abs=0.1)
        assert milliseconds(spans["admission"][0]) == pytest.approx(times["admission"], abs=0.1)

        # What the model was told of is the span that waits for it.
        handed_on = f"00-{trace}-{waited.span_id.hex()}-01"
        assert answer["output"] == [handed_on, "vendor=x"]

        batch = received.batch(waited)
        assert [(it.trace_id, it.span_id) for it in batch.links] == [
            (waited.trace_id, waited.span_id)
        ]
        assert attributes(batch)["clipper.batch.size"] == 1
        assert is_inside(batch, request)
        assert abs(batch.start_time_unix_nano - waited.start_time_unix_nano) < 1e6
        names = {resource["service.name"] for resource in received.resources}
        assert names == {"clipper"}


def test_the_callers_flag_decides(tmp_path: Path) -> None:
    with collector() as received, traced(tmp_path, received.port) as served:
        unsampled, _, header = parent("00")
        answer = ask(served, "/app/predict", {"input": [1.0]}, traceparent=header)
        assert answer["output"] == [header, ""], "it is handed on as it came"
        sampled, _, header = parent("01")
        ask(served, "/app/predict", {"input": [2.0]}, traceparent=header)
        received.whole(sampled)
        assert received.of_trace(unsampled) == []


@pytest.mark.parametrize("bad", ["00-xyz", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", ""])
def test_a_broken_header_begins_a_new_trace(tmp_path: Path, bad: str) -> None:
    with collector() as received, traced(tmp_path, received.port) as served:
        headers = {"traceparent": bad, "tracestate": "a=1"} if bad else {}
        told = ask(served, "/app/predict", {"input": [1.0]}, **headers)["output"]
        trace = told[0].split("-")[1]
        (request,) = received.whole(trace)["POST /{app}/predict"]
        assert (request.parent_span_id, request.trace_state, told[1]) == (b"", "", "")


def test_without_a_collector_a_trace_is_handed_on_and_none_begins(tmp_path: Path) -> None:
    config = CONFIG.format(port=1, more="").replace('endpoint = "http://127.0.0.1:1"', "")
    with (
        server(tmp_path, config) as served,
        container(served, tmp_path, "m", MODEL, CLIPPER_INPUT_TYPE="doubles"),
    ):
        until("a prediction", lambda: "default_explanation" not in served.predict("app", [0.0]))
        _, _, header = parent()
        told = ask(served, "/app/predict", {"input": [1.0]}, traceparent=header, tracestate="a=1")
        assert told["output"] == [header, "a=1"]
        assert served.predict("app", [2.0])["output"] is None
        assert "clipper_trace_spans_total" not in get(served.metrics + "/metrics")


def test_defaults_and_refusals_have_spans(tmp_path: Path) -> None:
    with collector() as received, traced(tmp_path, received.port) as served:
        trace, _, header = parent()
        ask(served, "/alone/predict", {"input": [1.0]}, traceparent=header)
        spans = received.whole(trace)
        assert sorted(spans) == ["POST /{app}/predict", "admission"]
        of = attributes(spans["POST /{app}/predict"][0])
        assert of["clipper.outcome"] == "no_replica"
        assert "not linked to a model" in of["clipper.default_reason"]
        assert spans["POST /{app}/predict"][0].status.code == Status.STATUS_CODE_UNSET
        trace, _, header = parent()
        with pytest.raises(urllib.error.HTTPError):
            ask(served, "/app/predict", {"input": "x"}, traceparent=header)
        (request,) = received.whole(trace)["POST /{app}/predict"]
        assert attributes(request)["http.response.status_code"] == 400


def test_a_batch_is_linked_with_each_of_its_queries(tmp_path: Path) -> None:
    with collector() as received, traced(tmp_path, received.port) as served:
        post(
            served.management + "/admin/update_model",
            {"model_name": "m", "model_version": "1", "batch_size": 8},
        )
        trace, _, header = parent()
        batch = [[float(n)] for n in range(4)]
        answer = ask(served, "/app/predict", {"input_batch": batch}, traceparent=header)
        spans = received.whole(trace)
        containers = spans["container"]
        assert len(containers) == 4
        told = {it["output"][0].split("-")[2] for it in answer["batch_predictions"]}
        assert told == {it.span_id.hex() for it in containers}
        batches = {received.batch(it).span_id: received.batch(it) for it in containers}
        linked = [link.span_id for it in batches.values() for link in it.links]
        assert sorted(linked) == sorted(it.span_id for it in containers)


def test_a_retry_is_two_attempts(tmp_path: Path) -> None:
    dies = "import os\ndef predict(inputs):\n    os._exit(3)\n"
    with collector() as received, traced(tmp_path, received.port) as served:
        (tmp_path / "other").mkdir()

        def retried() -> list[Span] | None:
            other = container(served, tmp_path / "other", "m", dies, CLIPPER_INPUT_TYPE="doubles")
            with other as process:
                while process.poll() is None:
                    trace, _, header = parent()
                    ask(served, "/app/predict", {"input": [1.0]}, traceparent=header)
                    found = received.whole(trace)["container"]
                    if len(found) > 1:
                        return found
            return None

        first, second = sorted(
            until("a query is tried again", retried), key=lambda it: it.start_time_unix_nano
        )
        assert attributes(first)["clipper.attempt.end"] == "failed"
        assert first.status.code == Status.STATUS_CODE_ERROR
        assert attributes(second)["clipper.attempt"] == "retry"
        assert received.batch(first).status.code == Status.STATUS_CODE_ERROR
        assert received.batch(second).status.code == Status.STATUS_CODE_UNSET


def test_other_protocols_take_the_header(tmp_path: Path) -> None:
    import numpy as np
    import tritonclient.grpc as triton

    with collector() as received, traced(tmp_path, received.port) as served:
        trace, span, header = parent()
        body = {"inputs": [{"name": "input", "datatype": "FP64", "shape": [1, 1], "data": [1.0]}]}
        ask(served, "/v2/models/app/infer", body, traceparent=header)
        spans = received.whole(trace)
        (request,) = spans["POST /v2/models/{name}/infer"]
        assert request.parent_span_id.hex() == span
        assert {"admission", "queue", "container"} < set(spans)
        trace, span, header = parent()
        wanted = triton.InferInput("input", [1, 1], "FP64")
        wanted.set_data_from_numpy(np.ones((1, 1)))
        with triton.InferenceServerClient(served.grpc.split("//")[-1]) as client:
            client.infer("app", [wanted], headers={"traceparent": header})
        spans = received.whole(trace)
        (request,) = spans["inference.GRPCInferenceService/ModelInfer"]
        assert request.parent_span_id.hex() == span
        of = attributes(request)
        assert (of["rpc.system"], of["rpc.grpc.status_code"]) == ("grpc", 0)
        assert {"admission", "queue", "container"} < set(spans)


SMALL = "queue_spans_max = 40\nexport_spans_max = 10\nretry_for_ms = 200\ntimeout_ms = 300\n"


def test_a_collector_that_is_away_costs_spans_and_nothing_else(tmp_path: Path) -> None:
    port = free_port()
    with traced(tmp_path, port, SMALL) as served:
        for lost in ["queue_full", "unreachable"]:

            def rises(lost: str = lost) -> bool:
                answer = served.predict("alone", [1.0])
                assert answer["output"] is None and "not linked" in answer["default_explanation"]
                return counted(served, lost) > 0

            until(f"spans are lost: {lost}", rises)
        assert "traces cannot be exported" in "".join(served.lines)
        with collector(port) as received:

            def flows() -> bool:
                trace, _, header = parent()
                ask(served, "/app/predict", {"input": [1.0]}, traceparent=header)
                return bool(received.of_trace(trace)) or bool(received.spans)

            until("spans are exported again", flows)
            until("it is counted", lambda: counted(served, "exported") > 0)


def test_a_collector_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    freeze = threading.Event()

    def hang() -> tuple[int, bytes]:
        freeze.wait(60)
        return 200, b""

    with collector(answer=hang) as received, traced(tmp_path, received.port, SMALL) as served:

        def lost() -> bool:
            assert "default" in served.predict("alone", [1.0])
            return counted(served, "timed_out") > 0

        until("spans are lost", lost)
        freeze.set()
        until("spans are exported again", lambda: counted(served, "exported") > 0 or not lost())


def test_answers_of_a_collector_are_understood(tmp_path: Path) -> None:
    answers: list[tuple[int, bytes]] = [(503, b"later"), (429, b"")]
    rejected = ExportTraceServiceResponse()
    rejected.partial_success.rejected_spans = 1
    rejected.partial_success.error_message = "too old"
    cases = [
        ("refused", (400, b"no")),
        ("refused", (500, b"")),
        ("garbled", (200, b"<html>a page</html>")),
        ("rejected", (200, rejected.SerializeToString())),
    ]

    def answer() -> tuple[int, bytes]:
        return answers.pop(0) if answers else (200, b"")

    with collector(answer=answer) as received, traced(tmp_path, received.port) as served:
        served.predict("alone", [1.0])
        until("it is sent until it is taken", lambda: counted(served, "exported") == 2)
        assert received.requests == 3
        for outcome, said in cases:
            before = counted(served, outcome)
            answers.append(said)
            served.predict("alone", [1.0])
            until(f"{said} is counted", lambda: counted(served, outcome) > before)


def test_what_waits_is_exported_at_the_end(tmp_path: Path) -> None:
    late = "interval_ms = 60000"
    config = CONFIG.replace("interval_ms = 50", late)
    with collector() as received, server(tmp_path, config.format(port=received.port, more="")) as it:
        trace, _, header = parent()
        ask(it, "/alone/predict", {"input": [1.0]}, traceparent=header)
        it.process.send_signal(signal.SIGTERM)
        assert it.process.wait(30) == 0
        assert len(received.of_trace(trace)) == 2


def test_headers_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "headers").write_text("# ours\nAuthorization: Bearer x\n")
    with (
        collector() as received,
        traced(tmp_path, received.port, 'headers_file = "headers"\nservice_name = "here"') as served,
    ):
        served.predict("alone", [1.0])
        until("a message came", lambda: received.headers)
        assert received.headers[0]["authorization"] == "Bearer x"
        assert received.resources[0]["service.name"] == "here"


def test_of_requests_without_a_trace_a_part_is_recorded(tmp_path: Path) -> None:
    with collector() as received, traced(tmp_path, received.port, "sample_one_in = 0") as served:
        for _ in range(20):
            served.predict("alone", [1.0])
        trace, _, header = parent()
        ask(served, "/alone/predict", {"input": [1.0]}, traceparent=header)
        received.whole(trace)
        assert {span.trace_id.hex() for span in received.spans} == {trace}
