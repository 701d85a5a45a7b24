"""Models over tensors from a file to an application: ``clipper deploy`` and ``clipper inspect``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("tritonclient.http")

from harness import BINARY, ROOT, Server, get, post, server  # noqa: E402
from test_tensors_onnx import FLOAT, TEXT, ask, embedding, helper, model, session  # noqa: E402

TYPED = """
from typing import Annotated, TypedDict
import numpy as np
from numpy.typing import NDArray
from clipper_serving import container

class Inputs(TypedDict):
    x: Annotated[NDArray[np.float32], (-1, None)]
    name: Annotated[NDArray[np.object_], (-1,)]

class Outputs(TypedDict):
    total: Annotated[NDArray[np.float32], (-1,)]
    greeting: Annotated[NDArray[np.object_], (-1,)]

def predict(arrays: Inputs) -> Outputs:
    greeting = np.array([b"hello " + name for name in arrays["name"]], dtype=object)
    return {"total": arrays["x"].sum(axis=1), "greeting": greeting}

@container(inputs={"x": np.ones((2, 3), np.float32)})
def by_example(arrays):
    if arrays["x"].sum() < 6:
        raise ValueError("more, please")
    return {"twice": arrays["x"] * 2}
"""


def texts() -> bytes:
    """Two texts for each row, of which one is chosen."""
    nodes = [helper.make_node("Where", ["which", "a", "b"], ["chosen"])]
    inputs = [("which", 9, ["n"]), ("a", TEXT, ["n"]), ("b", TEXT, ["n"])]
    return model(nodes, inputs, [("chosen", TEXT, ["n"])])


def one_text() -> bytes:
    nodes = [helper.make_node("Identity", ["t"], ["same"])]
    return model(nodes, [("t", TEXT, ["n"])], [("same", TEXT, ["n"])])


def square() -> bytes:
    """One input, whose second axis is open."""
    nodes = [helper.make_node("Mul", ["x", "x"], ["y"])]
    return model(nodes, [("x", FLOAT, ["n", "t"])], [("y", FLOAT, ["n", "t"])])


FILES = {"embedding": embedding, "texts": texts, "one_text": one_text, "square": square}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    folder = tmp_path_factory.mktemp("deployed")
    for name, made in FILES.items():
        (folder / f"{name}.onnx").write_bytes(made())
    (folder / "typed.py").write_text(TYPED)
    with server(folder, "") as one:
        yield one, folder


def clipper(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    library = next(Path(os.path.dirname(ort.__file__)).glob("capi/libonnxruntime.so*"))
    environment = {
        **os.environ,
        # Where the shell has activated the environment of the tests.
        "VIRTUAL_ENV": str(library.parents[5]),
        "PYTHONPATH": str(ROOT / "python" / "src"),
    }
    command = [str(BINARY), *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def deploy(served: tuple[Server, Path], *words: str) -> subprocess.CompletedProcess[str]:
    one, folder = served
    python = ["--python", sys.executable]
    return clipper(folder, "deploy", "--url", one.management, *python, *words)


def new(app: str) -> list[str]:
    return ["--app", app, "--slo-ms", "20000", "--default-output", "null"]


def test_a_file_of_several_inputs_is_deployed_with_its_signature(
    served: tuple[Server, Path],
) -> None:
    one, folder = served
    done = deploy(served, "embedding.onnx", *new("read"), "--replicas", "2")
    assert done.returncode == 0, done.stderr
    signature = "ids INT64 [-1,-1], mask INT64 [-1,-1] -> sum FP32 [-1,4], count INT64 [-1]"
    assert signature in done.stderr, done.stderr
    assert "embedding:1 answers for application 'read'" in done.stdout
    asked = {"model_name": "embedding", "model_version": "1"}
    info = post(f"{one.management}/admin/get_model", asked)
    assert info["input_type"] == "tensors"
    assert [tensor["name"] for tensor in info["signature"]["inputs"]] == ["ids", "mask"]
    arrays = {"ids": np.array([[1, 2, 3]]), "mask": np.array([[1, 1, 0]])}
    wanted, _ = session(folder, "embedding").run(None, arrays)
    found = ask(one, "read", arrays)
    np.testing.assert_allclose(found.as_numpy("sum"), wanted, rtol=1e-6)
    row = {name: array[0].tolist() for name, array in arrays.items()}
    answer = post(f"{one.query}/read/predict", {"input": row})
    np.testing.assert_allclose(answer["output"]["sum"], wanted[0], rtol=1e-6)
    # The application is one over tensors, and so is the next version.
    example = json.dumps({"ids": [4], "mask": [1]})
    done = deploy(served, "embedding.onnx", "--app", "read", "--example", example)
    assert done.returncode == 0 and "embedding:2 answers" in done.stdout, done.stderr
    done = deploy(served, "embedding.onnx", "--app", "read", "--example", '{"ids": [400]}')
    assert done.returncode == 1 and "input.mask: the tensor is missing" in done.stderr, done.stderr
    example = json.dumps({"ids": [400], "mask": [1]})
    done = deploy(served, "embedding.onnx", "--app", "read", "--example", example)
    assert done.returncode == 1 and "indices" in done.stderr, done.stderr
    assert "Nothing was registered." in done.stderr


def test_the_type_is_the_files(served: tuple[Server, Path]) -> None:
    one, _ = served
    for name in ("texts", "one_text", "square"):
        done = deploy(served, f"{name}.onnx", *new(name))
        assert done.returncode == 0, done.stderr
    types = {
        model["model_name"]: model["input_type"]
        for model in json.loads(get_all(one, "get_all_models"))
    }
    assert (types["texts"], types["one_text"], types["square"]) == ("tensors", "strings", "tensors")
    row = {"which": True, "a": "this", "b": "that"}
    assert post(f"{one.query}/texts/predict", {"input": row})["output"] == {"chosen": "this"}
    assert post(f"{one.query}/one_text/predict", {"input": "é"})["output"] == "é"
    assert post(f"{one.query}/square/predict", {"input": {"x": [3]}})["output"] == {"y": [9.0]}


def get_all(one: Server, what: str) -> str:
    return json.dumps(post(f"{one.management}/admin/{what}", {"verbose": True}))


def test_what_no_other_type_can_take_is_refused_with_the_way_out(
    served: tuple[Server, Path],
) -> None:
    _, folder = served
    done = deploy(served, "embedding.onnx", *new("numbers"), "--input-type", "doubles")
    assert done.returncode == 1
    assert "only be served as type tensors (2 inputs" in done.stderr, done.stderr
    assert "Leave --input-type out" in done.stderr
    done = deploy(served, "embedding.onnx", *new("b"), "--name", "b", "--engine", "builtin")
    assert done.returncode == 1
    assert "built-in engine takes one flat input and no type tensors" in done.stderr, done.stderr
    assert "pip install onnxruntime" in done.stderr
    command = ["--name", "m", "--version", "1", "--model", str(folder / "embedding.onnx")]
    done = clipper(folder, "container", "onnx", *command, "--input-type", "floats")
    assert done.returncode == 1 and "--input-type tensors" in done.stderr, done.stderr


def test_python_functions_say_their_signature_by_hints_or_by_example(
    served: tuple[Server, Path],
) -> None:
    one, _ = served
    words = ["typed.py:predict", *new("typed"), "--input-type", "tensors"]
    done = deploy(served, *words)
    assert done.returncode == 0, done.stderr
    assert "x FP32 [-1,-1], name BYTES [-1] -> total FP32 [-1], greeting" in done.stderr
    row = {"x": [1, 2.5], "name": "you"}
    answer = post(f"{one.query}/typed/predict", {"input": row})
    assert answer["output"] == {"total": 3.5, "greeting": "hello you"}
    words = ["typed.py:by_example", *new("example"), "--input-type", "tensors", "--name", "twice"]
    done = deploy(served, *words)
    assert done.returncode == 1 and "more, please" in done.stderr, done.stderr
    done = deploy(served, *words, "--example", '{"x": [1, 2, 3]}', "--example", '{"x": [3, 2, 1]}')
    assert done.returncode == 0, done.stderr
    answer = post(f"{one.query}/example/predict", {"input": {"x": [4, 5, 6]}})
    assert answer["output"] == {"twice": [8, 10, 12]}
    metadata = json.loads(get(f"{one.query}/v2/models/example"))
    assert metadata["outputs"] == [{"name": "twice", "datatype": "FP32", "shape": [-1, 3]}]


def test_inspect_shows_what_a_file_takes_and_who_can_serve_it(served: tuple[Server, Path]) -> None:
    _, folder = served
    done = clipper(folder, "inspect", "embedding.onnx")
    assert done.returncode == 0, done.stderr
    for part in (
        "takes  ids: int64 [n, t]",
        "gives  sum: float [n, 4]",
        "Gather 1",
        "tensors: yes, ONNX Runtime",
        "rows together",
        "clipper deploy embedding.onnx --app NAME",
    ):
        assert part in done.stdout, done.stdout
    done = clipper(folder, "inspect", "embedding.onnx", "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    ways = {(way["engine"], way["works"]) for way in found["ways"] if way["works"]}
    assert ways == {("ort", True)}
    assert found["inputs"][0] == {"name": "ids", "kind": "int64", "shape": ["n", "t"]}
    digits = str(ROOT / "examples" / "digits" / "digits.onnx")
    found = json.loads(clipper(folder, "inspect", digits, "--json").stdout)
    assert any(way["input_type"] == "tensors" and way["works"] for way in found["ways"])
    done = clipper(folder, "inspect", "typed.py")
    assert done.returncode == 1 and "not a valid ONNX model" in done.stderr, done.stderr
