"""Triton's own Python client, unmodified, and gRPC's own tools against the gRPC port."""

from __future__ import annotations

import asyncio
import itertools
import json
import queue
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

grpc = pytest.importorskip("grpc")
triton = pytest.importorskip("tritonclient.grpc")
aio = pytest.importorskip("tritonclient.grpc.aio")
ml_dtypes = pytest.importorskip("ml_dtypes")

from google.protobuf import descriptor_pb2  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from grpc_reflection.v1alpha import reflection_pb2  # noqa: E402
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # noqa: E402
    ProtoReflectionDescriptorDatabase,
)
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

from every_type import DATATYPES, KINDS, outputs  # noqa: E402
from harness import ROOT, SUM_CONFIG, Server, get, server, until  # noqa: E402

PROTO = {"oip": ROOT / "crates" / "oip" / "proto", "grpc": ROOT / "crates" / "grpc" / "proto"}


@pytest.fixture()
def client(every_type: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(every_type.grpc) as client:
        yield client


@pytest.fixture()
def channel(every_type: Server) -> Iterator[Any]:
    with grpc.insecure_channel(every_type.grpc) as channel:
        yield channel


def one_input(array: np.ndarray, datatype: str) -> list[Any]:
    given = triton.InferInput("input", list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return [given]


def refusal(client: Any, name: str, inputs: list[Any], **options: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as refused:
        client.infer(name, inputs, **options)
    return refused.value.status().removeprefix("StatusCode."), refused.value.message()


def test_the_server_says_what_it_is(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready()
    page = client.get_server_metadata()
    assert page.name == "clipper" and "statistics" in page.extensions


@pytest.mark.parametrize(("kind", "datatype", "element"), KINDS)
def test_models_are_described_as_over_http(
    client: Any, every_type: Server, kind: str, datatype: str, element: int
) -> None:
    for name in (kind, f"app-{kind}"):
        page = client.get_model_metadata(name)
        assert (page.name, list(page.versions), page.platform) == (name, ["1"], "clipper")
        assert [(x.name, x.datatype, list(x.shape)) for x in page.inputs] == [
            ("input", datatype, [-1, element])
        ]
        assert client.get_model_metadata(name, "1") == page
        assert client.is_model_ready(name) and client.is_model_ready(name, "1")
        said = client.get_model_config(name, as_json=True)["config"]
        over_http = json.loads(get(f"{every_type.query}/v2/models/{name}/config"))
        assert said["parameters"] == over_http["parameters"]
        assert said["max_batch_size"] == over_http["max_batch_size"]
        for tensor, other in [(said["input"][0], over_http["input"][0]),
                              (said["output"][0], over_http["output"][0])]:  # fmt: skip
            assert tensor["data_type"] == other["data_type"]
            assert [int(n) for n in tensor["dims"]] == other["dims"]


def test_the_index_has_every_name_and_whether_it_is_served(client: Any) -> None:
    states = {row.name: row.state for row in client.get_model_repository_index().models}
    assert states["doubles"] == states["app-doubles"] == "READY"
    assert states["alone"] == states["nobody"] == "UNAVAILABLE"
    assert not client.is_model_ready("alone")
    for change in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match=r"UNIMPLEMENTED.*clipper deploy"):
            change("doubles")


@pytest.mark.parametrize("packed", [None, "gzip", "deflate"])
@pytest.mark.parametrize("name", ["doubles", "app-doubles"])
def test_infer(client: Any, name: str, packed: str | None) -> None:
    rows = np.array([[1.5, 2.0], [3.0, 4.0], [-1.0, 0.25]])
    result = client.infer(
        name,
        one_input(rows, "FP64"),
        request_id="a-1",
        outputs=[triton.InferRequestedOutput("output")],
        compression_algorithm=packed,
        client_timeout=60,
    )
    assert outputs(result) == ["3.5", "7.0", "-0.75"]
    answer = result.get_response()
    assert (answer.model_name, answer.model_version, answer.id) == (name, "1", "a-1")
    assert result.as_numpy("output").shape == (3, 1)


@pytest.mark.parametrize(
    ("datatype", "array"),
    [*DATATYPES, ("BF16", np.array([[1.5, -2]], ml_dtypes.bfloat16))],
)
def test_every_datatype_gives_doubles(client: Any, datatype: str, array: np.ndarray) -> None:
    result = client.infer("doubles", one_input(array, datatype))
    assert [float(x) for x in outputs(result)] == [float(array.astype(np.float64).sum())]


def test_texts_and_bytes(client: Any) -> None:
    texts = np.array([["ab"], ["cé"]], dtype=np.object_)
    assert outputs(client.infer("strings", one_input(texts, "BYTES"))) == ["AB", "CÉ"]
    flat = np.array(["x", "yz"], dtype=np.object_)
    assert outputs(client.infer("bytes", one_input(flat, "BYTES"))) == ["1", "2"]
    images = np.arange(12, dtype=np.uint8).reshape(2, 6)
    assert outputs(client.infer("bytes", one_input(images, "UINT8"))) == ["6", "6"]


def test_elements_in_lists_are_answered_in_lists(channel: Any) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def infer(name: str, datatype: str, wanted: str, **contents: Any) -> Any:
        request = service_pb2.ModelInferRequest(model_name=name)
        rows = len(next(iter(contents.values())))
        tensor = request.inputs.add(name="input", datatype=datatype, shape=[rows, 1])
        for key, values in contents.items():
            getattr(tensor.contents, key).extend(values)
        if wanted:
            request.parameters["output_datatype"].string_param = wanted
        answer = stub.ModelInfer(request, timeout=60)
        assert not answer.raw_output_contents
        return answer.outputs[0]

    strings = infer("strings", "BYTES", "", bytes_contents=[b"a", b"b"])
    assert list(strings.contents.bytes_contents) == [b"A", b"B"]
    whole = infer("integers", "INT32", "auto", int_contents=[-1, 2, 2**31 - 1])
    assert list(whole.contents.int64_contents) == [-1, 2, 2**31 - 1]
    assert list(whole.shape) == [3, 1] and whole.datatype == "INT64"
    whole = infer("integers", "INT16", "INT32", int_contents=[-300, 300])
    assert list(whole.contents.int_contents) == [-300, 300]
    doubled = infer("floats", "FP32", "FP32", fp32_contents=[0.5, 2.0])
    assert list(doubled.contents.fp32_contents) == [1.0, 4.0]
    summed = infer("doubles", "FP64", "FP64", fp64_contents=[0.5, 2.0])
    assert list(summed.contents.fp64_contents) == [0.5, 2.0]
    for datatype, key in [("BOOL", "bool_contents"), ("UINT8", "uint_contents"),
                          ("INT64", "int64_contents"), ("UINT64", "uint64_contents")]:  # fmt: skip
        summed = infer("doubles", datatype, "FP64", **{key: [1, 0]})
        assert list(summed.contents.fp64_contents) == [1.0, 0.0]
    with pytest.raises(grpc.RpcError) as refused:
        infer("integers", "INT8", "", int_contents=[300])
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "inputs[0].contents: element 0 is not of datatype INT8" in refused.value.details()


def test_errors_have_codes_and_name_the_field(client: Any) -> None:
    good = one_input(np.array([[1.0]]), "FP64")
    code, text = refusal(client, "missing", good)
    assert code == "NOT_FOUND" and "unknown model: 'missing'" in text
    assert refusal(client, "doubles", good, model_version="9")[0] == "NOT_FOUND"
    code, text = refusal(client, "doubles", one_input(np.array(["a"], np.object_), "BYTES"))
    assert code == "INVALID_ARGUMENT" and "inputs[0].datatype" in text
    code, text = refusal(client, "doubles", one_input(np.array([1.0]), "FP64"))
    assert code == "INVALID_ARGUMENT" and "inputs[0].shape" in text
    other = [triton.InferRequestedOutput("scores")]
    code, text = refusal(client, "doubles", good, outputs=other)
    assert code == "INVALID_ARGUMENT" and "outputs[0].name" in text
    classes = [triton.InferRequestedOutput("output", class_count=2)]
    assert refusal(client, "doubles", good, outputs=classes)[0] == "UNIMPLEMENTED"
    code, text = refusal(client, "doubles", one_input(np.array([[1.0], [13.0]]), "FP64"))
    assert code == "INTERNAL" and "row 1 of 2" in text and "thirteen" in text
    for ask in (client.get_model_metadata, client.get_model_config, client.is_model_ready):
        with pytest.raises(InferenceServerException, match="NOT_FOUND"):
            ask("missing")
    with pytest.raises(InferenceServerException, match="UNIMPLEMENTED"):
        client.get_trace_settings()


def test_a_default_output_is_no_prediction_unless_it_is_asked_for(client: Any) -> None:
    rows = one_input(np.array([[1.0], [2.0]]), "FP64")
    code, text = refusal(client, "alone", rows)
    assert code == "UNAVAILABLE" and "No connected models" in text
    result = client.infer("alone", rows, parameters={"default": True})
    assert outputs(result) == ["-1", "-1"]
    said = result.get_response().parameters
    assert said["default"].bool_param and said["default_rows"].string_param == "0,1"
    assert "No connected models" in said["default_explanation"].string_param


def late(running: Server, app: str) -> float:
    for line in get(f"{running.metrics}/metrics").splitlines():
        if (
            line.startswith("clipper_predictions_total{")
            and f'app="{app}"' in line
            and '"late"' in line
        ):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


def test_a_timeout_is_a_deadline(client: Any, every_type: Server) -> None:
    # Each query has a number of its own, so that no answer comes from the cache.
    start = time.monotonic()
    slow = one_input(np.array([[14.0, 101.0]]), "FP64")
    code, text = refusal(client, "app-doubles", slow, timeout=50_000)
    assert code == "DEADLINE_EXCEEDED" and "latency SLO" in text
    slow = one_input(np.array([[14.0, 102.0]]), "FP64")
    assert refusal(client, "quick", slow, timeout=30_000_000)[0] == "DEADLINE_EXCEEDED"
    before = late(every_type, "app-doubles")
    numbers = itertools.count(103.0)

    def gives_up() -> bool:
        # The client goes at the same time; now and then it is the first, and nothing is late.
        slow = one_input(np.array([[14.0, next(numbers)]]), "FP64")
        assert refusal(client, "app-doubles", slow, client_timeout=0.05)[0] == "DEADLINE_EXCEEDED"
        return late(every_type, "app-doubles") > before

    until("the server gives one up by itself", gives_up)
    assert time.monotonic() - start < 15, "the objective is 20 s"


def inference_count(client: Any, model: str) -> int:
    (row,) = client.get_inference_statistics(model, "1", as_json=True)["model_stats"]
    return int(row.get("inference_count", 0))


def test_statistics_are_those_over_http(client: Any, every_type: Server) -> None:
    rows = np.arange(2_000, 2_006, dtype=np.int32).reshape(3, 2)
    before = inference_count(client, "integers")
    client.infer("integers", one_input(rows, "INT32"))
    # A row is counted when its answer is on its way already.
    until("all rows are counted", lambda: inference_count(client, "integers") >= before + 3)
    said = client.get_inference_statistics("integers", "1", as_json=True)["model_stats"]
    page = json.loads(get(f"{every_type.query}/v2/models/integers/versions/1/stats"))
    (row,), (over_http,) = said, page["model_stats"]
    assert int(row["inference_count"]) == over_http["inference_count"] >= 3
    for part, spent in over_http["inference_stats"].items():
        assert int(row["inference_stats"][part].get("count", 0)) == spent["count"], part
    names = {row.name for row in client.get_inference_statistics().model_stats}
    assert {"integers", "app-integers"} <= names


def test_async_infer(client: Any) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    for n in range(300, 330):
        client.async_infer(
            "doubles", one_input(np.array([[float(n), 0.5]]), "FP64"),
            lambda result, error: answers.put((result, error)), request_id=str(n),
        )  # fmt: skip
    for _ in range(30):
        result, error = answers.get(timeout=60)
        assert error is None
        assert outputs(result) == [str(int(result.get_response().id) + 0.5)]


def test_a_stream_answers_in_order_and_outlives_errors(client: Any) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for n in range(40):
        name = "missing" if n == 20 else "app-doubles"
        rows = one_input(np.array([[400.0 + n, 0.5]]), "FP64")
        client.async_stream_infer(name, rows, request_id=str(n))
    for n in range(40):
        result, error = answers.get(timeout=60)
        if n == 20:
            assert "unknown model: 'missing'" in str(error)
            continue
        assert error is None
        answer = result.get_response()
        assert answer.id == str(n) and answer.parameters["triton_final_response"].bool_param
        assert outputs(result) == [str(400.0 + n + 0.5)]
    client.stop_stream()


def test_a_call_says_who_has_answered_and_why(channel: Any, client: Any) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    request = service_pb2.ModelInferRequest(model_name="app-doubles")
    tensor = request.inputs.add(name="input", datatype="FP64", shape=[1, 2])
    tensor.contents.fp64_contents.extend([700.0, 0.5])

    def ask(**metadata: str) -> dict[str, str]:
        given = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        _, call = stub.ModelInfer.with_call(request, timeout=60, metadata=given)
        return dict(call.initial_metadata())

    plain = ask()
    assert len(plain["x-request-id"]) == 16 and plain["x-clipper-model"] == "doubles:1"
    assert "x-clipper-explain" not in plain
    told = ask(x_request_id="mine", x_clipper_explain="1")
    assert told["x-request-id"] == "mine"
    why = json.loads(told["x-clipper-explain"])
    assert (why["request_id"], why["app"], why["outcome"]) == ("mine", "app-doubles", "prediction")
    assert why["models"][0]["model"] == "doubles"
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(service_pb2.ModelInferRequest(model_name="missing"), timeout=60)
    metadata = [*refused.value.initial_metadata(), *refused.value.trailing_metadata()]
    assert "x-request-id" in dict(metadata)

    answers: queue.Queue[Any] = queue.Queue()
    asked = {"x-clipper-explain": "true"}
    client.start_stream(lambda result, error: answers.put((result, error)), headers=asked)
    client.async_stream_infer("app-doubles", one_input(np.array([[701.0, 0.5]]), "FP64"))
    result, error = answers.get(timeout=60)
    client.stop_stream()
    assert error is None
    why = json.loads(result.get_response().parameters["clipper_explain"].string_param)
    assert why["models"][0]["cache"] == "miss" and why["because"]


def test_the_asyncio_client(every_type: Server) -> None:
    async def ask() -> None:
        async with aio.InferenceServerClient(every_type.grpc) as client:
            assert await client.is_server_ready()
            assert (await client.get_model_metadata("floats")).name == "floats"
            given = one_input(np.array([[1.0, 2.0]], np.float32), "FP32")
            results = await asyncio.gather(*(client.infer("floats", given) for _ in range(32)))
            for result in results:
                assert json.loads(outputs(result)[0]) == [2.0, 4.0]
            with pytest.raises(InferenceServerException, match="unknown model"):
                await client.infer("missing", given)

            async def requests() -> AsyncIterator[dict[str, Any]]:
                for n in range(10):
                    rows = np.array([[float(n), 2.0]], np.float32)
                    yield {"model_name": "floats", "inputs": one_input(rows, "FP32")}

            n = 0
            async for result, error in client.stream_infer(requests()):
                assert error is None
                assert json.loads(outputs(result)[0]) == [2.0 * n, 4.0]
                n += 1
            assert n == 10

    asyncio.run(ask())


def test_health_and_reflection(channel: Any) -> None:
    stub = health_pb2_grpc.HealthStub(channel)

    def check(service: str) -> int:
        status: int = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60).status
        return status

    serving = health_pb2.HealthCheckResponse.SERVING
    for service in ("", "inference.GRPCInferenceService", "doubles", "app-doubles"):
        assert check(service) == serving, service
    assert check("alone") == health_pb2.HealthCheckResponse.NOT_SERVING
    with pytest.raises(grpc.RpcError) as refused:
        check("missing")
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    watched = stub.Watch(health_pb2.HealthCheckRequest(service="missing"), timeout=60)
    assert next(watched).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watched.cancel()

    found = ProtoReflectionDescriptorDatabase(channel)
    assert "inference.GRPCInferenceService" in found.get_services()
    file = found.FindFileContainingSymbol("inference.ModelInferRequest")
    assert file.name == "grpc_service.proto"
    assert found.FindFileByName("model_config.proto").package == "inference"


def test_a_server_that_stops_says_so_first(tmp_path: Path) -> None:
    config = "[http]\ndrain_delay_ms = 1000\n" + SUM_CONFIG
    with server(tmp_path, config) as running, grpc.insecure_channel(running.grpc) as channel:
        request = health_pb2.HealthCheckRequest(service="")
        watched = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=60)
        states = health_pb2.HealthCheckResponse
        while next(watched).status != states.SERVING:
            pass
        running.process.send_signal(signal.SIGTERM)
        assert next(watched).status == states.NOT_SERVING
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        live = stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=60)
        assert live.live, "it answers while it drains"
        with pytest.raises(grpc.RpcError) as ended:
            next(watched)
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
        assert running.process.wait(60) == 0


def files(folder: Path) -> bytes:
    """What the compiler makes of the files in a folder."""
    made = subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}",
         "--descriptor_set_out=/dev/stdout", *sorted(path.name for path in folder.glob("*.proto"))],
        check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    return made.stdout


@pytest.mark.parametrize("folder", list(PROTO))
def test_descriptors_are_those_of_the_files(folder: str) -> None:
    kept = (PROTO[folder] / "descriptors.bin").read_bytes()
    assert kept == files(PROTO[folder]), "protoc --descriptor_set_out=descriptors.bin *.proto"


def names(messages: Any, path: str = "") -> dict[str, tuple[Any, ...]]:
    """Every field of these messages with its number and type."""
    found: dict[str, tuple[Any, ...]] = {}
    for message in messages:
        inner = f"{path}{message.name}."
        for field in message.field:
            kind = field.type_name.replace("v1alpha", "v1")
            found[inner + field.name] = (field.number, field.type, field.label, kind)
        found.update(names(message.nested_type, inner))
    return found


@pytest.mark.parametrize(
    ("folder", "file", "module"),
    [
        ("oip", "grpc_service.proto", service_pb2),
        ("oip", "model_config.proto", model_config_pb2),
        ("grpc", "health.proto", health_pb2),
        ("grpc", "reflection_v1.proto", reflection_pb2),
        ("grpc", "reflection_v1alpha.proto", reflection_pb2),
    ],
)
def test_the_files_are_a_part_of_the_clients(folder: str, file: str, module: Any) -> None:
    ours = descriptor_pb2.FileDescriptorSet.FromString(
        (PROTO[folder] / "descriptors.bin").read_bytes()
    )
    (mine,) = [one for one in ours.file if one.name == file]
    theirs = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(theirs)
    fields, known = names(mine.message_type), names(theirs.message_type)
    assert fields and {name: known.get(name) for name in fields} == fields
    for service, other in zip(mine.service, theirs.service, strict=True):
        methods = {
            method.name: (method.client_streaming, method.server_streaming)
            for method in other.method
        }
        for method in service.method:
            assert methods[method.name] == (method.client_streaming, method.server_streaming)


def test_large_tensors_go_both_ways_on_many_calls_at_once(client: Any) -> None:
    def infer(n: int) -> None:
        rows = np.full((4, 50_000), float(n), np.float32)
        result = client.infer("floats", one_input(rows, "FP32"), parameters={
            "output_datatype": "FP32"})  # fmt: skip
        doubled = result.as_numpy("output")
        assert doubled.shape == rows.shape and (doubled == 2.0 * n).all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(infer, range(12)))


def test_a_message_has_a_bound(every_type: Server, client: Any) -> None:
    rows = one_input(np.zeros((1, 3 << 20)), "FP64")
    code, text = refusal(client, "doubles", rows)
    assert code == "RESOURCE_EXHAUSTED" and "grpc.message_max_bytes" in text
    assert client.is_server_live()
