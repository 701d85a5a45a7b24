"""Traces, from a caller's header to a collector that reads them by the official messages."""

from __future__ import annotations

import re
import signal
import threading
import time
import urllib.error
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from collecting import (
    CONFIG,
    MODEL,
    SLOW,
    Collector,
    ask,
    attributes,
    collector,
    counted,
    is_inside,
    milliseconds,
    parent,
    traced,
)
from harness import Server, container, get, post, server, until
from ports import free_port


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


def batched(
    served: Server, received: Collector, batch_size: int, queries: int
) -> tuple[dict[str, list[Span]], list[str]]:
    """The spans of a request of so many queries, and those that containers were told of."""
    post(
        served.management + "/admin/update_model",
        {"model_name": "m", "model_version": "1", "batch_size": batch_size},
    )
    trace, _, header = parent()
    batch = [[float(n)] for n in range(queries)]
    answer = ask(served, "/app/predict", {"input_batch": batch}, traceparent=header)
    told = [it["output"][0].split("-")[2] for it in answer["batch_predictions"]]
    return received.whole(trace), told


def test_a_batch_is_linked_with_each_of_its_queries(tmp_path: Path) -> None:
    with collector() as received, traced(tmp_path, received.port) as served:
        spans, told = batched(served, received, batch_size=8, queries=4)
        containers = spans["container"]
        assert len(containers) == 4
        assert set(told) == {it.span_id.hex() for it in containers}
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


def test_links_name_spans_that_are_exported_and_no_more_than_may_be(tmp_path: Path) -> None:
    few = "request_queries_max = 4\nbatch_links_max = 3"
    with collector() as received, traced(tmp_path, received.port, few) as served:
        spans, told = batched(served, received, batch_size=32, queries=12)
        (request,) = spans["POST /{app}/predict"]
        assert attributes(request)["clipper.queries"] == 12
        exported = {it.span_id.hex() for it in spans["container"]}
        assert len(exported) == 4
        assert set(told[:4]) == exported
        assert set(told[4:]) == {request.span_id.hex()}, "those without a span of their own"
        batches = {it.span_id: it for it in map(received.batch, spans["container"])}
        linked = [link.span_id.hex() for it in batches.values() for link in it.links]
        left_out = sum(it.dropped_links_count for it in batches.values())
        assert set(linked) <= exported and len(linked) + left_out == 4
        assert all(len(it.links) <= 3 for it in batches.values())


def test_callers_force_no_more_than_may_be(tmp_path: Path) -> None:
    limit = "sample_one_in = 0\nforced_per_second_max = 1"
    with collector() as received, traced(tmp_path, received.port, limit) as served:

        def passed_over() -> float:
            _, _, header = parent()
            ask(served, "/alone/predict", {"input": [1.0]}, traceparent=header)
            page = get(served.metrics + "/metrics")
            (found,) = re.findall(r"^clipper_trace_passed_over_total (\S+)$", page, re.M)
            return float(found)

        until("one is passed over", lambda: passed_over() > 0)
        until("one is recorded", lambda: received.spans)


def test_exemplars_name_traces(tmp_path: Path) -> None:
    with collector() as received, traced(tmp_path, received.port) as served:
        ask(served, "/app/predict", {"input": [1.0]})
        (request,) = until("it is exported", lambda: received.named("POST /{app}/predict"))
        page = get(served.metrics + "/metrics", "application/openmetrics-text")
        at = f'span_id="{request.span_id.hex()}"'
        (exemplar,) = [line for line in page.splitlines() if at in line]
        assert f'# {{trace_id="{request.trace_id.hex()}",request_id="' in exemplar, exemplar


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
        assert len(of["clipper.request_id"]) == 16, "one that the server made"
        assert {"admission", "queue", "container"} < set(spans)


SMALL = "queue_spans_max = 40\nexport_spans_max = 10\nretry_for_ms = 200\ntimeout_ms = 300\n"


def test_a_collector_that_is_away_costs_spans_and_nothing_else(tmp_path: Path) -> None:
    port = free_port()
    # However slowly they are asked for, more spans come than are given up.
    patient = SMALL.replace("retry_for_ms = 200", "retry_for_ms = 5000")
    with traced(tmp_path, port, patient) as served:
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
