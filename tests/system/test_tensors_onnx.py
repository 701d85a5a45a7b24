"""ONNX files over tensors: what ONNX Runtime computes in this process is what the server answers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
http = pytest.importorskip("tritonclient.http")

from onnx import TensorProto, helper  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

from harness import BINARY, Server, process, server, until  # noqa: E402
from test_tensors import is_ready  # noqa: E402

FLOAT, INT64, TEXT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING, TensorProto.BOOL
HALF, INT8 = TensorProto.FLOAT16, TensorProto.INT8


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: Any = ()) -> bytes:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [info(*one) for one in inputs],
        [info(*one) for one in outputs],
        list(constants),
    )
    opset = [helper.make_opsetid("", 17)]
    made: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return made


def embedding() -> bytes:
    """Ids of any length and a mask: the mean of the embeddings that count, and how many do."""
    table = np.random.default_rng(1).random((50, 4), dtype=np.float32)
    constants = [
        onnx.numpy_helper.from_array(table, "table"),
        onnx.numpy_helper.from_array(np.array([1], np.int64), "axis"),
        onnx.numpy_helper.from_array(np.array([2], np.int64), "last"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Cast", ["mask"], ["m"], to=FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["m3"]),
        helper.make_node("Mul", ["e", "m3"], ["em"]),
        helper.make_node("ReduceSum", ["em", "axis"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "axis"], ["count"], keepdims=0),
    ]
    inputs = [("ids", INT64, ["n", "t"]), ("mask", INT64, ["n", "t"])]
    outputs = [("sum", FLOAT, ["n", 4]), ("count", INT64, ["n"])]
    return model(nodes, inputs, outputs, constants)


def stateful() -> bytes:
    """A state whose first axis is no row, and a rate that is a scalar."""
    nodes = [
        helper.make_node("Mul", ["x", "rate"], ["y"]),
        helper.make_node("Add", ["state", "rate"], ["next"]),
    ]
    inputs = [("x", FLOAT, ["n", "t"]), ("state", FLOAT, [2, "n", 3]), ("rate", FLOAT, [])]
    outputs = [("y", FLOAT, ["n", "t"]), ("next", FLOAT, [2, "n", 3])]
    return model(nodes, inputs, outputs)


def layers() -> bytes:
    """The same, with a state that the file says nothing of but its rank, and windows of 60."""
    nodes = [
        helper.make_node("Reshape", ["x", "window"], ["w"]),
        helper.make_node("ReduceMean", ["w"], ["y"], axes=[1], keepdims=0),
        helper.make_node("ReduceMean", ["y"], ["mean"], axes=[0, 1], keepdims=0),
        helper.make_node("Add", ["state", "mean"], ["next"]),
    ]
    constants = [onnx.numpy_helper.from_array(np.array([-1, 4, 16], np.int64), "window")]
    inputs = [("x", FLOAT, [None, None]), ("state", FLOAT, [2, None, 3])]
    outputs = [("y", FLOAT, [None, 16]), ("next", FLOAT, [None, None, None])]
    return model(nodes, inputs, outputs, constants)


def kinds() -> bytes:
    """Every datatype that Identity knows."""
    types = {
        "f16": HALF, "i8": INT8, "b": BOOL, "s": TEXT, "f64": TensorProto.DOUBLE,
        "u8": TensorProto.UINT8, "u16": TensorProto.UINT16, "i16": TensorProto.INT16,
        "i32": TensorProto.INT32, "u32": TensorProto.UINT32, "u64": TensorProto.UINT64,
    }  # fmt: skip
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in types]
    inputs = [(name, kind, ["n", 2, 2]) for name, kind in types.items()]
    outputs = [(f"{name}_out", kind, ["n", 2, 2]) for name, kind in types.items()]
    return model(nodes, inputs, outputs)


def mixing() -> bytes:
    """The mean over the rows themselves: each has to be computed alone."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return model(nodes, [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["n", 2])])


def steps() -> bytes:
    """The largest of each four numbers: steps first, as of a text that was read, rows second."""
    nodes = [
        helper.make_node("Unsqueeze", ["x", "second"], ["line"]),
        helper.make_node("MaxPool", ["line"], ["most"], kernel_shape=[4], strides=[4]),
        helper.make_node("Transpose", ["most"], ["y"], perm=[2, 0, 1]),
    ]
    constants = [onnx.numpy_helper.from_array(np.array([1], np.int64), "second")]
    return model(nodes, [("x", FLOAT, ["n", "w"])], [("y", FLOAT, ["t", "n", 1])], constants)


FILES = {
    "embedding": embedding, "stateful": stateful, "layers": layers, "kinds": kinds, "mixing": mixing,
    "steps": steps,
}  # fmt: skip
CONFIG = "\n".join(
    f'[[model]]\nname = "{name}"\nversion = "1"\ninput_type = "tensors"\n' for name in FILES
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    folder = tmp_path_factory.mktemp("onnx")
    with ExitStack() as stack:
        one = stack.enter_context(server(folder, CONFIG))
        for name, made in FILES.items():
            (folder / f"{name}.onnx").write_bytes(made())
            command = onnx_container(folder / f"{name}.onnx", name, one.rpc_port)
            stack.enter_context(process(*command))
        for name in FILES:
            until(f"{name} is served", lambda name=name: is_ready(one, name))
        yield one, folder


def onnx_container(file: Path, name: str, port: int, engine: str = "ort") -> list[str]:
    library = next(Path(os.path.dirname(ort.__file__)).glob("capi/libonnxruntime.so*"))
    return [
        str(BINARY), "container", "onnx", "--model", str(file), "--name", name, "--version", "1",
        "--connect", f"tcp://127.0.0.1:{port}", "--input-type", "tensors", "--engine", engine,
        *(["--library", str(library)] if engine == "ort" else []),
    ]  # fmt: skip


def ask(one: Server, name: str, arrays: dict[str, np.ndarray]) -> Any:
    with http.InferenceServerClient(
        one.query.removeprefix("http://"), network_timeout=60.0
    ) as client:
        inputs = []
        by_name = {spec["name"]: spec for spec in client.get_model_metadata(name)["inputs"]}
        for key, array in arrays.items():
            given = http.InferInput(key, list(array.shape), by_name[key]["datatype"])
            given.set_data_from_numpy(array)
            inputs.append(given)
        return client.infer(name, inputs)


def session(folder: Path, name: str) -> Any:
    return ort.InferenceSession(str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("rows", "length"), [(1, 3), (5, 3), (4, 7)])
def test_several_inputs_of_any_length(
    served: tuple[Server, Path], rows: int, length: int
) -> None:
    one, folder = served
    random = np.random.default_rng(rows)
    ids = random.integers(0, 50, (rows, length))
    mask = random.integers(0, 2, (rows, length))
    result = ask(one, "embedding", {"ids": ids, "mask": mask})
    wanted, count = session(folder, "embedding").run(None, {"ids": ids, "mask": mask})
    np.testing.assert_allclose(result.as_numpy("sum"), wanted, rtol=1e-6)
    np.testing.assert_array_equal(result.as_numpy("count"), count)


def test_what_has_no_rows_is_given_whole(served: tuple[Server, Path]) -> None:
    one, _ = served
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    state = np.arange(12, dtype=np.float32).reshape(2, 2, 1, 3)
    rate = np.array([2.0, 3.0], dtype=np.float32)
    result = ask(one, "stateful", {"x": x, "state": state, "rate": rate})
    np.testing.assert_array_equal(result.as_numpy("y"), x * rate[:, None])
    expected = state + rate[:, None, None, None]
    np.testing.assert_array_equal(result.as_numpy("next"), expected)


def test_an_open_axis_that_is_no_row_is_found_by_the_trial(served: tuple[Server, Path]) -> None:
    one, folder = served
    x = np.random.default_rng(3).random((2, 64), dtype=np.float32)
    state = np.ones((2, 2, 1, 3), np.float32)
    result = ask(one, "layers", {"x": x, "state": state})
    for row in range(2):
        given = {"x": x[row : row + 1], "state": state[row]}
        y, following = session(folder, "layers").run(None, given)
        np.testing.assert_allclose(result.as_numpy("y")[row : row + 1], y, rtol=1e-6)
        np.testing.assert_allclose(result.as_numpy("next")[row], following, rtol=1e-6)


def test_steps_before_the_rows_are_no_rows_though_a_short_input_has_but_one(
    served: tuple[Server, Path],
) -> None:
    one, folder = served
    x = np.random.default_rng(4).random((3, 20), dtype=np.float32)
    result = ask(one, "steps", {"x": x})
    for row in range(3):
        (y,) = session(folder, "steps").run(None, {"x": x[row : row + 1]})
        assert y.shape == (5, 1, 1)
        np.testing.assert_array_equal(result.as_numpy("y")[row], y)


def test_every_datatype(served: tuple[Server, Path]) -> None:
    one, folder = served
    dtypes = {
        "f16": np.float16, "i8": np.int8, "b": np.bool_, "f64": np.float64, "u8": np.uint8,
        "u16": np.uint16, "i16": np.int16, "i32": np.int32, "u32": np.uint32, "u64": np.uint64,
    }  # fmt: skip
    arrays = {name: np.arange(8).reshape(2, 2, 2).astype(kind) for name, kind in dtypes.items()}
    arrays["s"] = np.array(["a", "é", "", "long " * 500] * 2, dtype=object).reshape(2, 2, 2)
    result = ask(one, "kinds", arrays)
    for name, array in arrays.items():
        found = result.as_numpy(f"{name}_out")
        if name == "s":
            found = np.array([text.decode() for text in found.reshape(-1)], dtype=object)
            array = array.reshape(-1)
        np.testing.assert_array_equal(found, array)


def test_rows_that_would_influence_each_other_are_computed_alone(
    served: tuple[Server, Path],
) -> None:
    one, _ = served
    x = np.array([[1, 2], [5, 8]], dtype=np.float32)
    np.testing.assert_array_equal(ask(one, "mixing", {"x": x}).as_numpy("y"), np.zeros((2, 2)))


def test_an_input_that_the_model_refuses_spoils_no_other(served: tuple[Server, Path]) -> None:
    one, _ = served
    bad = np.array([[1, 99]], dtype=np.int64)
    with pytest.raises(InferenceServerException, match="indices"):
        ask(one, "embedding", {"ids": bad, "mask": np.ones_like(bad)})
    good = np.array([[1, 2]], dtype=np.int64)
    assert ask(one, "embedding", {"ids": good, "mask": good * 0}).as_numpy("count").tolist() == [0]


def test_the_built_in_engine_refuses_and_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(mixing())
    command = onnx_container(tmp_path / "m.onnx", "m", 1, "builtin")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "pip install onnxruntime" in done.stderr, done.stderr
