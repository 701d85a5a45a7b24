"""Models over tensors: Triton's clients with several inputs, ``/predict``, and what is refused."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

http = pytest.importorskip("tritonclient.http")
grpc = pytest.importorskip("tritonclient.grpc")

from tritonclient.utils import InferenceServerException  # noqa: E402

from clipper_serving import BadInput, Client  # noqa: E402

from harness import Server, container, get, post, server, until  # noqa: E402

CONFIG = """
[[application]]
name = "app"
input_type = "tensors"
default_output = "null"
latency_slo_micros = 20000000
model = "mixed"

[[model]]
name = "mixed"
version = "1"
input_type = "tensors"

[[model]]
name = "all"
version = "1"
input_type = "tensors"

[[model]]
name = "other"
version = "1"
input_type = "tensors"
[model.signature]
inputs = [{ name = "x", datatype = "FP32", shape = [-1, 3] }]
outputs = [{ name = "y", datatype = "FP32", shape = [-1] }]
"""

MIXED = """
import numpy as np
from clipper_serving import container

@container(
    inputs={"ids": ("int64", [-1, -1]), "image": ("float32", [-1, 2, 2]), "text": (str, [-1])},
    outputs={"sum": ("float32", [-1]), "twice": ("int64", [-1, -1]), "loud": (str, [-1, 1]),
             "group": ("int32", [-1])},
)
def predict(arrays):
    ids, image, text = arrays["ids"], arrays["image"], arrays["text"]
    if (ids == -1).any():
        raise ValueError("no such id")
    return {
        "sum": image.sum(axis=(1, 2)) + ids.sum(axis=1),
        "twice": ids * 2,
        "loud": np.array([[one.upper()] for one in text], dtype=object),
        "group": np.full(len(ids), len(ids), dtype=np.int32),
    }
"""

KINDS = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}

ALL = f"""
from clipper_serving import container

TENSORS = {{kind: (kind, [-1, -1, 2]) for kind in {list(KINDS)!r}}}

@container(inputs=TENSORS, outputs=TENSORS)
def predict(arrays):
    return arrays
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tensors")
    with (
        server(folder, CONFIG) as one,
        container(one, folder, "mixed", MIXED),
        container(one, folder, "all", ALL),
    ):
        for name in ("mixed", "all"):
            until(f"{name} is served", lambda name=name: is_ready(one, name))
        yield one


def is_ready(one: Server, name: str) -> bool:
    try:
        return bool(get(f"{one.query}/v2/models/{name}/ready"))
    except urllib.error.HTTPError:
        return False


@pytest.fixture(params=["http", "grpc"])
def client(served: Server, request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "http":
        address = served.query.removeprefix("http://")
        with http.InferenceServerClient(address, network_timeout=60.0) as one:
            one.module = http
            yield one
    else:
        with grpc.InferenceServerClient(served.grpc) as one:
            one.module = grpc
            yield one


def given(module: Any, arrays: dict[str, tuple[str, np.ndarray]], binary: bool = True) -> list[Any]:
    inputs = []
    for name, (datatype, array) in arrays.items():
        one = module.InferInput(name, list(array.shape), datatype)
        if module is http:
            one.set_data_from_numpy(array, binary_data=binary)
        else:
            one.set_data_from_numpy(array)
        inputs.append(one)
    return inputs


def rows(count: int, length: int, first: int = 1) -> dict[str, tuple[str, np.ndarray]]:
    ids = np.arange(first, first + count * length, dtype=np.int64).reshape(count, length)
    image = np.arange(count * 4, dtype=np.float32).reshape(count, 2, 2)
    text = np.array([f"text {at}".encode() for at in range(count)], dtype=np.object_)
    # The order of a request is not that of the signature.
    return {"text": ("BYTES", text), "ids": ("INT64", ids), "image": ("FP32", image)}


def check(result: Any, arrays: dict[str, tuple[str, np.ndarray]]) -> None:
    ids, image = arrays["ids"][1], arrays["image"][1]
    total = image.sum(axis=(1, 2)) + ids.sum(axis=1)
    np.testing.assert_array_equal(result.as_numpy("sum"), total.astype(np.float32))
    np.testing.assert_array_equal(result.as_numpy("twice"), ids * 2)
    loud = result.as_numpy("loud")
    assert loud.shape == (len(ids), 1)
    texts = [one.decode() if isinstance(one, bytes) else one for one in loud[:, 0]]
    assert texts == [f"TEXT {at}" for at in range(len(ids))]


@pytest.mark.parametrize("name", ["mixed", "app"])
def test_metadata_are_the_signature(client: Any, name: str) -> None:
    page = client.get_model_metadata(name)
    if client.module is grpc:
        inputs = [(x.name, x.datatype, list(x.shape)) for x in page.inputs]
        outputs = [(x.name, x.datatype, list(x.shape)) for x in page.outputs]
    else:
        inputs = [(x["name"], x["datatype"], x["shape"]) for x in page["inputs"]]
        outputs = [(x["name"], x["datatype"], x["shape"]) for x in page["outputs"]]
    expected = [("ids", "INT64", [-1, -1]), ("image", "FP32", [-1, 2, 2]), ("text", "BYTES", [-1])]
    assert inputs == expected
    assert outputs[:2] == [("sum", "FP32", [-1]), ("twice", "INT64", [-1, -1])]
    config = client.get_model_config(name)
    config = config.config if client.module is grpc else config
    named = config.input if client.module is grpc else config["input"]
    dims = [list(x.dims) if client.module is grpc else x["dims"] for x in named]
    assert dims == [[-1], [2, 2], [1]]


@pytest.mark.parametrize("name", ["mixed", "app"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("binary", [True, False])
def test_several_inputs_and_outputs(client: Any, name: str, count: int, binary: bool) -> None:
    arrays = rows(count, 2)
    options: dict[str, Any] = {"request_id": "a-1"}
    if client.module is http:
        wanted = ["sum", "twice", "loud", "group"]
        options["outputs"] = [http.InferRequestedOutput(w, binary_data=binary) for w in wanted]
    result = client.infer(name, given(client.module, arrays, binary), **options)
    check(result, arrays)
    answer = result.get_response()
    found = answer.id if client.module is grpc else answer["id"]
    assert found == "a-1"


@pytest.mark.parametrize("priority", [0, 1, 2])
def test_a_priority_is_taken(client: Any, priority: int) -> None:
    arrays = rows(2, 3, 100 * priority)
    check(client.infer("app", given(client.module, arrays), priority=priority), arrays)


@pytest.mark.parametrize("packed", ["gzip", "deflate"])
def test_compressed_bodies(served: Server, packed: str) -> None:
    arrays = rows(3, 4)
    address = served.query.removeprefix("http://")
    with http.InferenceServerClient(address, network_timeout=60.0) as one:
        inputs = given(http, arrays)
        check(one.infer("mixed", inputs, request_compression_algorithm=packed), arrays)


def test_outputs_are_chosen_by_name(client: Any) -> None:
    wanted = [client.module.InferRequestedOutput("twice")]
    result = client.infer("mixed", given(client.module, rows(2, 1)), outputs=wanted)
    assert result.as_numpy("twice").tolist() == [[2], [4]]
    assert result.as_numpy("sum") is None
    with pytest.raises(InferenceServerException, match=r"outputs\[0\].name: there is no tensor"):
        unknown = [client.module.InferRequestedOutput("q")]
        client.infer("mixed", given(client.module, rows(1, 1)), outputs=unknown)


@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype_there_and_back(client: Any, binary: bool) -> None:
    arrays: dict[str, tuple[str, np.ndarray]] = {}
    for kind, dtype in KINDS.items():
        if kind == "BYTES":
            array = np.array([[[b"a", "é".encode()]], [[b"", b"long" * 2000]]], dtype=np.object_)
        elif dtype is np.bool_:
            array = np.array([[[True, False]], [[False, True]]])
        elif np.issubdtype(dtype, np.integer):
            info = np.iinfo(dtype)
            array = np.array([[[info.min, info.max]], [[0, 7]]], dtype=dtype)
        else:
            array = np.array([[[0.5, -2.0]], [[1.25, 3.0]]], dtype=dtype)
        arrays[kind] = (kind, array)
    if client.module is http and not binary:
        half = arrays["FP16"]
        inputs = given(http, {k: v for k, v in arrays.items() if k != "FP16"}, False)
        inputs += given(http, {"FP16": half})
        outputs = [http.InferRequestedOutput(kind, binary_data=False) for kind in arrays]
        result = client.infer("all", inputs, outputs=outputs)
    else:
        result = client.infer("all", given(client.module, arrays))
    for kind, (_, array) in arrays.items():
        found = result.as_numpy(kind)
        if kind == "BYTES":
            texts = [x if isinstance(x, bytes) else x.encode() for x in found.reshape(-1)]
            assert texts == list(array.reshape(-1))
            assert found.shape == array.shape
        else:
            np.testing.assert_array_equal(found, array)


def test_nan_and_infinity_pass_bit_for_bit(client: Any) -> None:
    arrays = {k: (k, np.ones((1, 1, 2), dtype=d)) for k, d in KINDS.items() if k != "BYTES"}
    arrays["BYTES"] = ("BYTES", np.array([[[b"", b"\xff\x00"]]], dtype=np.object_))
    odd = np.array([[[0x7FF0_DEAD_0000_0001, 0xFFF0_0000_0000_0000]]], dtype=np.uint64)
    arrays["FP64"] = ("FP64", odd.view(np.float64))
    result = client.infer("all", given(client.module, arrays))
    assert result.as_numpy("FP64").tobytes() == odd.tobytes()
    assert result.as_numpy("BYTES").reshape(-1).tolist() == [b"", b"\xff\x00"]


def test_an_error_of_one_row_spoils_no_other(served: Server) -> None:
    def row(first: int) -> dict[str, Any]:
        return {"ids": [first], "image": [[0, 0], [0, 1]], "text": f"t{first}"}

    batch = {"input_batch": [row(1), row(-1), row(3)]}
    answer = post(f"{served.query}/app/predict", batch)["batch_predictions"]
    assert [one["default"] for one in answer] == [False, True, False]
    assert "no such id" in answer[1]["default_explanation"]
    assert [answer[at]["output"]["sum"] for at in (0, 2)] == [2.0, 4.0]


def test_predict_takes_and_gives_json(served: Server) -> None:
    nested = {"ids": [5, 6, 7], "image": [[1, 2], [3, 4.5]], "text": "hi"}
    flat = {"image": [1, 2, 3, 4.5], "text": ["hi"], "ids": [5, 6, 7]}
    outputs = []
    for one in (nested, flat):
        answer = post(f"{served.query}/app/predict", {"input": one})
        assert answer["default"] is False, answer
        outputs.append(answer["output"])
    assert outputs[0] == outputs[1]
    assert outputs[0] == {"sum": 28.5, "twice": [10, 12, 14], "loud": ["HI"], "group": 1}
    # A flat list and a nested one are the same input: the second came from the cache.
    metrics = get(f"{served.metrics}/metrics")
    assert "clipper_cache_hits_total" in metrics or "cache" in metrics


def test_rows_of_different_shapes_are_computed_by_shape(served: Server) -> None:
    def row(length: int, at: int) -> dict[str, Any]:
        return {"ids": list(range(100 + at, 100 + at + length)), "image": [0, 0, 0, 0], "text": ""}

    lengths = [1, 3, 1, 2, 3, 1]
    batch = {"input_batch": [row(n, at * 10) for at, n in enumerate(lengths)]}
    answer = post(f"{served.query}/app/predict", batch)["batch_predictions"]
    for one, wanted in zip(answer, batch["input_batch"]):
        assert one["default"] is False, one
        assert one["output"]["twice"] == [2 * n for n in wanted["ids"]]


def test_what_is_wrong_is_refused_by_its_field(served: Server) -> None:
    def refused(url: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, str]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers or {})
        with pytest.raises(urllib.error.HTTPError) as found:
            urllib.request.urlopen(request, timeout=20)
        return found.value.code, found.value.read().decode()

    good = {"ids": [1], "image": [0, 0, 0, 0], "text": "a"}
    for change, part in [
        ({"ids": None}, "input.ids"),
        ({"ids": []}, "input.ids: a dimension is 0"),
        ({"ids": [1.5]}, "input.ids: element 0 is not of datatype INT64"),
        ({"image": [1, 2, 3]}, "input.image: a flat array of 3 elements"),
        ({"image": [[1, 2], [3]]}, "input.image: its arrays have different lengths"),
        ({"text": 1}, "input.text: element 0"),
        ({"more": 1}, "input.more: the model has no such tensor"),
    ]:
        status, text = refused(f"{served.query}/app/predict", {"input": {**good, **change}})
        assert status == 400 and part in text, text
    tensors = [
        {"name": "ids", "datatype": "INT64", "shape": [1, 1], "data": [1]},
        {"name": "image", "datatype": "FP32", "shape": [1, 2, 2], "data": [0, 0, 0, 0]},
        {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]},
    ]
    for at, change, part in [
        (0, {"shape": [1, 2**63]}, "inputs[0].shape: it has more elements"),
        (0, {"shape": [2**64, 1]}, "inputs[0].shape"),
        (0, {"shape": [-1, 1]}, "inputs[0].shape"),
        (0, {"shape": [2, 1], "data": [1, 2]}, "inputs[1].shape: 1 rows, but the first"),
        (1, {"datatype": "FP64"}, "inputs[1].datatype: FP64 is not the tensor's datatype"),
        (2, {"data": ["a", "b"]}, "inputs[2].data"),
        (2, {"name": "ids"}, "inputs[2].datatype"),
        (1, {"data": None, "parameters": {"binary_data_size": 16}}, "inputs[1]."),
    ]:
        body = [dict(tensor) for tensor in tensors]
        body[at].update(change)
        if body[at].get("data") is None:
            del body[at]["data"]
        status, text = refused(f"{served.query}/v2/models/mixed/infer", {"inputs": body})
        assert status == 400 and part in text, text
    # A text that says that it is longer than the body.
    head = json.dumps(
        {
            "inputs": [
                *tensors[:2],
                {
                    "name": "text",
                    "datatype": "BYTES",
                    "shape": [1],
                    "parameters": {"binary_data_size": 6},
                },
            ]
        }
    ).encode()
    status, text = refused(
        f"{served.query}/v2/models/mixed/infer",
        head + b"\xff\xff\xff\x7fab",
        {"Inference-Header-Content-Length": str(len(head))},
    )
    assert status == 400 and "inputs[2].data: element 0 says 2147483647 bytes" in text
    assert post(f"{served.query}/app/predict", {"input": good})["default"] is False


def test_a_container_with_another_signature_is_told_so(served: Server, tmp_path: Path) -> None:
    other = MIXED.replace("predict", "predict", 1)
    with container(served, tmp_path, "other", other):
        said = until(
            "the server says why",
            lambda: [line for line in served.lines if "model other:1 has other tensors" in line],
        )
        assert said
    with pytest.raises(urllib.error.HTTPError):
        get(f"{served.query}/v2/models/other/ready")
    page = json.loads(get(f"{served.query}/v2/models/other"))
    assert page["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]


def test_the_index_and_the_management_frontend_show_them(served: Server) -> None:
    models = post(f"{served.management}/admin/get_all_models", {"verbose": True})
    by_name = {model["model_name"]: model for model in models}
    assert by_name["mixed"]["input_type"] == "tensors" and "signature" not in by_name["mixed"]
    assert by_name["other"]["signature"]["inputs"][0]["name"] == "x"
    added = {
        "model_name": "new",
        "model_version": "1",
        "labels": [],
        "input_type": "tensors",
        "container_name": "x",
        "model_data_path": "x",
        "signature": by_name["other"]["signature"],
    }
    assert "Successfully" in post(f"{served.management}/admin/add_model", added)
    shown = post(
        f"{served.management}/admin/get_model", {"model_name": "new", "model_version": "1"}
    )
    assert shown["signature"] == by_name["other"]["signature"]


def test_the_packages_own_client_gives_and_takes_arrays(served: Server) -> None:
    arrays = rows(3, 2)
    inputs = {name: array for name, (_, array) in arrays.items()}
    with Client(served.query) as client:
        for name in ("mixed", "app"):
            found = client.infer(name, inputs)
            ids, image = inputs["ids"], inputs["image"]
            np.testing.assert_array_equal(found["twice"], ids * 2)
            np.testing.assert_array_equal(found["sum"], image.sum(axis=(1, 2)) + ids.sum(axis=1))
            assert found["loud"].reshape(-1).tolist() == [b"TEXT 0", b"TEXT 1", b"TEXT 2"]
        only = client.infer("mixed", {**inputs, "text": ["a", "b", "c"]}, ["loud"], version="1")
        assert list(only) == ["loud"] and only["loud"].tolist() == [[b"A"], [b"B"], [b"C"]]
        with pytest.raises(BadInput, match=r"inputs\[\d\].datatype: FP64"):
            client.infer("mixed", {**inputs, "image": np.zeros((3, 2, 2))})
        with pytest.raises(BadInput, match="complex"):
            client.infer("mixed", {**inputs, "image": np.zeros((3, 2, 2), complex)})
