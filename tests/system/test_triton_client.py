"""Triton's own Python client, unmodified, against a running server (the HTTP half)."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

triton = pytest.importorskip("tritonclient.http")
aio = pytest.importorskip("tritonclient.http.aio")

from tritonclient.utils import InferenceServerException  # noqa: E402

from every_type import DATATYPES, KINDS, outputs  # noqa: E402
from harness import Server, until  # noqa: E402


@pytest.fixture()
def client(every_type: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(
        every_type.query.removeprefix("http://"), concurrency=4, network_timeout=60.0
    ) as one:
        yield one


def one_input(array: np.ndarray, datatype: str, binary: bool = True) -> list[Any]:
    given = triton.InferInput("input", list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return [given]


def test_the_server_says_what_it_is(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready()
    page = client.get_server_metadata()
    assert page["name"] == "clipper" and "binary_tensor_data" in page["extensions"]


@pytest.mark.parametrize(("kind", "datatype", "element"), KINDS)
def test_models_and_applications_are_described(
    client: Any, kind: str, datatype: str, element: int
) -> None:
    for name in (kind, f"app-{kind}"):
        page = client.get_model_metadata(name)
        assert page["name"] == name and page["versions"] == ["1"]
        expected = [{"name": "input", "datatype": datatype, "shape": [-1, element]}]
        assert page["inputs"] == expected
        assert page["outputs"] == [{"name": "output", "datatype": "BYTES", "shape": [-1, 1]}]
        assert client.get_model_metadata(name, "1") == page
        assert client.is_model_ready(name) and client.is_model_ready(name, "1")
        assert not client.is_model_ready(name, "2")
        settings = client.get_model_config(name)
        assert settings["input"][0]["dims"] == [element] and settings["max_batch_size"] > 1


def test_the_index_has_every_name_and_whether_it_is_served(client: Any) -> None:
    index = client.get_model_repository_index()
    states = {row["name"]: row["state"] for row in index}
    assert states["doubles"] == states["app-doubles"] == "READY"
    assert states["alone"] == states["nobody"] == "UNAVAILABLE"
    assert not client.is_model_ready("alone")
    with pytest.raises(InferenceServerException, match="clipper deploy"):
        client.load_model("doubles")


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("packed", [None, "gzip", "deflate"])
@pytest.mark.parametrize("name", ["doubles", "app-doubles"])
def test_infer(client: Any, name: str, binary: bool, packed: str | None) -> None:
    rows = np.array([[1.5, 2.0], [3.0, 4.0], [-1.0, 0.25]])
    result = client.infer(
        name,
        one_input(rows, "FP64", binary),
        request_id="a-1",
        outputs=[triton.InferRequestedOutput("output", binary_data=binary)],
        request_compression_algorithm=packed,
        response_compression_algorithm=packed,
    )
    assert outputs(result) == ["3.5", "7.0", "-0.75"]
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == (name, "1", "a-1")
    assert result.as_numpy("output").shape == (3, 1)


def test_infer_without_a_word_about_outputs_is_binary(client: Any) -> None:
    for binary in (True, False):
        result = client.infer("doubles", one_input(np.array([[1.0, 2.0]]), "FP64", binary))
        assert outputs(result) == ["3.0"]
        assert "binary_data_size" in result.get_output("output")["parameters"]


@pytest.mark.parametrize(("datatype", "array"), DATATYPES)
@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype_gives_doubles(
    client: Any, datatype: str, array: np.ndarray, binary: bool
) -> None:
    if datatype == "FP16" and not binary:
        pytest.skip("FP16 has no form in JSON")
    result = client.infer("doubles", one_input(array, datatype, binary))
    assert [float(x) for x in outputs(result)] == [float(array.astype(np.float64).sum())]


@pytest.mark.parametrize("binary", [True, False])
def test_texts_and_bytes(client: Any, binary: bool) -> None:
    texts = np.array([["ab"], ["cé"]], dtype=np.object_)
    assert outputs(client.infer("strings", one_input(texts, "BYTES", binary))) == ["AB", "CÉ"]
    flat = np.array(["x", "yz"], dtype=np.object_)
    assert outputs(client.infer("bytes", one_input(flat, "BYTES", binary))) == ["1", "2"]
    images = np.arange(12, dtype=np.uint8).reshape(2, 6)
    assert outputs(client.infer("bytes", one_input(images, "UINT8", binary))) == ["6", "6"]


def test_outputs_as_numbers(client: Any) -> None:
    rows = np.array([[1, 2], [3, 4]], np.float32)
    for binary in (True, False):
        asked = [triton.InferRequestedOutput("output", binary_data=binary)]

        def infer(
            name: str, array: np.ndarray, datatype: str, wanted: str, asked: Any = asked
        ) -> Any:
            return client.infer(
                name, one_input(array, datatype), outputs=asked,
                parameters={"output_datatype": wanted},
            ).as_numpy("output")  # fmt: skip

        doubled = infer("floats", rows, "FP32", "FP32")
        assert doubled.dtype == np.float32 and doubled.tolist() == [[2, 4], [6, 8]]
        whole = infer("integers", rows.astype(np.int32), "INT32", "auto")
        assert whole.dtype == np.int64 and whole.tolist() == [[3], [7]]
        texts = infer("strings", np.array(["a"], np.object_), "BYTES", "auto")
        assert texts.dtype == np.object_
    with pytest.raises(InferenceServerException, match="row 0 is not FP64"):
        infer("strings", np.array(["a"], np.object_), "BYTES", "FP64")


def refusal(client: Any, name: str, inputs: list[Any], **options: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as refused:
        client.infer(name, inputs, **options)
    return refused.value.status(), refused.value.message()


def test_errors_have_tritons_form_and_statuses(client: Any) -> None:
    good = one_input(np.array([[1.0]]), "FP64")
    status, text = refusal(client, "missing", good)
    assert status == "404" and "unknown model: 'missing'" in text
    assert refusal(client, "doubles", good, model_version="9")[0] == "404"
    status, text = refusal(client, "doubles", one_input(np.array(["a"], np.object_), "BYTES"))
    assert status == "400" and "inputs[0].datatype" in text
    status, text = refusal(client, "doubles", one_input(np.array([1.0]), "FP64"))
    assert status == "400" and "inputs[0].shape" in text
    other = [triton.InferRequestedOutput("scores")]
    status, text = refusal(client, "doubles", good, outputs=other)
    assert status == "400" and "outputs[0].name" in text
    classes = [triton.InferRequestedOutput("output", class_count=2)]
    assert refusal(client, "doubles", good, outputs=classes)[0] == "501"
    status, text = refusal(client, "doubles", one_input(np.array([[1.0], [13.0]]), "FP64"))
    assert status == "500" and "row 1 of 2" in text and "thirteen" in text
    with pytest.raises(InferenceServerException):
        client.get_model_metadata("missing")
    with pytest.raises(InferenceServerException):
        client.get_trace_settings()


def test_a_default_output_is_no_prediction_unless_it_is_asked_for(client: Any) -> None:
    rows = one_input(np.array([[1.0], [2.0]]), "FP64")
    status, text = refusal(client, "alone", rows)
    assert status == "503" and "No connected models" in text
    result = client.infer("alone", rows, parameters={"default": True})
    assert outputs(result) == ["-1", "-1"]
    said = result.get_response()["parameters"]
    assert said["default"] is True and said["default_rows"] == "0,1"
    # Only what has failed is defaulted.
    mixed = one_input(np.array([[5.0], [13.0]]), "FP64")
    result = client.infer("app-doubles", mixed, parameters={"default": True})
    assert outputs(result) == ["5.0", "-1"]
    assert result.get_response()["parameters"]["default_rows"] == "1"
    result = client.infer("app-doubles", one_input(np.array([[6.0]]), "FP64"),
                          parameters={"default": True})  # fmt: skip
    assert result.get_response()["parameters"] == {"default": False}


def test_a_timeout_is_a_deadline_and_never_later_than_the_applications(client: Any) -> None:
    # Each query has a number of its own, so that no answer comes from the cache.
    start = time.monotonic()
    slow = one_input(np.array([[14.0, 1.0]]), "FP64")
    status, text = refusal(client, "app-doubles", slow, timeout=50_000)
    assert status == "503" and "latency SLO" in text
    assert time.monotonic() - start < 15, "the objective is 20 s"
    slow = one_input(np.array([[14.0, 2.0]]), "FP64")
    assert refusal(client, "quick", slow, timeout=30_000_000)[0] == "503"


def test_statistics_count_rows(client: Any) -> None:
    def counted() -> dict[str, Any]:
        page = client.get_inference_statistics("integers", "1")
        (row,) = page["model_stats"]
        return row

    before = counted()
    rows = np.arange(1_000, 1_006, dtype=np.int32).reshape(3, 2)
    client.infer("integers", one_input(rows, "INT32"))
    until("three rows more", lambda: (
        counted()["inference_count"] == before["inference_count"] + 3))  # fmt: skip
    after = counted()
    assert after["inference_stats"]["compute_infer"]["count"] >= 3
    assert after["inference_stats"]["success"]["ns"] > 0
    # perf_analyzer stops where these differ.
    parts = ["compute_input", "compute_infer", "compute_output"]
    assert len({after["inference_stats"][part]["count"] for part in parts}) == 1
    client.infer("integers", one_input(rows, "INT32"))
    last = counted()["inference_stats"]
    assert last["cache_hit"]["count"] >= 3
    # perf_analyzer tells by this count whether a version was asked.
    assert last["queue"]["count"] > after["inference_stats"]["queue"]["count"]
    names = {row["name"] for row in client.get_inference_statistics()["model_stats"]}
    assert {"integers", "app-integers"} <= names


def test_async_infer(client: Any) -> None:
    asked = [
        (n, client.async_infer("doubles", one_input(np.array([[float(n), 0.5]]), "FP64")))
        for n in range(100, 130)
    ]
    for n, pending in asked:
        assert outputs(pending.get_result(timeout=60)) == [str(n + 0.5)]


def test_the_asyncio_client(every_type: Server) -> None:
    async def ask() -> None:
        async with aio.InferenceServerClient(every_type.query.removeprefix("http://")) as client:
            assert await client.is_server_ready()
            assert (await client.get_model_metadata("floats"))["name"] == "floats"
            for binary in (True, False):
                given = one_input(np.array([[1.0, 2.0]], np.float32), "FP32", binary)
                for packed in (None, "gzip", "deflate"):
                    results = await asyncio.gather(*(
                        client.infer("floats", given, request_compression_algorithm=packed)
                        for _ in range(8)
                    ))  # fmt: skip
                    for result in results:
                        assert json.loads(outputs(result)[0]) == [2.0, 4.0]
            with pytest.raises(InferenceServerException, match="unknown model"):
                await client.infer("missing", given)

    asyncio.run(ask())


def test_a_raw_body_is_one_row(client: Any, every_type: Server) -> None:
    body = np.array([1.0, 2.0, 3.0]).tobytes()
    request = urllib.request.Request(
        f"{every_type.query}/v2/models/doubles/infer",
        body,
        {"Inference-Header-Content-Length": "0"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        length = int(answer.headers["Inference-Header-Content-Length"])
        content = answer.read()
    result = triton.InferResult.from_response_body(content, header_length=length)
    assert outputs(result) == ["6.0"]
