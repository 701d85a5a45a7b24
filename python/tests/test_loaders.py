"""Models of common libraries, loaded from files and served."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeServer

from clipper_serving import ConfigurationError, ModelLoadError, StopSignal
from clipper_serving.loaders import load_model, load_sklearn, load_torch

ROWS = np.array([[0.0, 0.0], [1.0, 1.0], [0.1, 0.0], [0.9, 1.0]])
LABELS = np.array([0, 1, 0, 1])


@pytest.fixture
def classifier() -> Any:
    linear = pytest.importorskip("sklearn.linear_model")
    return linear.LogisticRegression(C=100.0).fit(ROWS, LABELS)


def test_sklearn_from_joblib(tmp_path: Path, classifier: Any) -> None:
    joblib = pytest.importorskip("joblib")
    joblib.dump(classifier, tmp_path / "model.joblib")
    assert load_model(tmp_path / "model.joblib")(ROWS).tolist() == LABELS.tolist()
    probabilities = load_model(tmp_path / "model.joblib", "predict_proba")(ROWS)
    assert probabilities.shape == (4, 2)
    with pytest.raises(ModelLoadError, match="no method 'transform'"):
        load_model(tmp_path / "model.joblib", "transform")


def test_sklearn_from_pickle_in_a_folder(tmp_path: Path, classifier: Any) -> None:
    (tmp_path / "notes.md").write_text("ignored")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(classifier))
    assert load_model(tmp_path)(ROWS).tolist() == LABELS.tolist()


def test_sklearn_answers_all_but_the_row_of_another_width(
    server: FakeServer, start: Callable[..., StopSignal], classifier: Any
) -> None:
    start(load_sklearn(classifier))
    replica = server.handshake()
    answers = server.predict(replica.identity, 3, [*ROWS, [1.0, 2.0, 3.0]])
    assert answers[:4] == ["0", "1", "0", "1"]
    assert "features" in json.loads(answers[4])["error"]


def test_onnx(tmp_path: Path, classifier: Any) -> None:
    pytest.importorskip("onnxruntime")
    skl2onnx = pytest.importorskip("skl2onnx")
    model = skl2onnx.to_onnx(classifier, ROWS.astype(np.float32))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    predict = load_model(path)
    assert predict(ROWS).tolist() == LABELS.tolist()


def test_onnx_with_an_image_shape(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)],
        "sum",
        [helper.make_tensor_value_info("x", kinds.FLOAT, ["n", 2, 3])],
        [helper.make_tensor_value_info("y", kinds.FLOAT, [])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    (tmp_path / "image.onnx").write_bytes(model.SerializeToString())
    assert float(load_model(tmp_path / "image.onnx")(np.ones((4, 6)))) == 24.0


def test_onnx_on_strings(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "same",
        [helper.make_tensor_value_info("x", kinds.STRING, ["n", 1])],
        [helper.make_tensor_value_info("y", kinds.STRING, ["n", 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    (tmp_path / "text.onnx").write_bytes(model.SerializeToString())
    assert load_model(tmp_path / "text.onnx")(["a", "b"]).tolist() == [["a"], ["b"]]


def test_lightgbm(tmp_path: Path) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    rows = np.random.default_rng(1).normal(size=(200, 3))
    data = lightgbm.Dataset(rows, label=rows[:, 0])
    booster = lightgbm.train({"objective": "regression", "verbose": -1}, data, 5)
    booster.save_model(tmp_path / "model.txt")
    assert load_model(tmp_path / "model.txt")(rows) == pytest.approx(booster.predict(rows))


def test_xgboost(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    rows = np.random.default_rng(1).normal(size=(200, 3))
    data = xgboost.DMatrix(rows, label=rows[:, 0])
    booster = xgboost.train({"max_depth": 2}, data, 5)
    booster.save_model(tmp_path / "model.ubj")
    assert load_model(tmp_path / "model.ubj")(rows) == pytest.approx(booster.predict(data))


def test_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(2, 1)
    expected = module(torch.from_numpy(ROWS.astype(np.float32))).detach().numpy()
    assert load_torch(module)(ROWS) == pytest.approx(expected)
    torch.jit.script(module).save(str(tmp_path / "model.pt"))
    assert load_model(tmp_path / "model.pt")(ROWS) == pytest.approx(expected)


def test_a_closure_of_clipper_admin(tmp_path: Path) -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    factor = 3
    (tmp_path / "func.pkl").write_bytes(
        cloudpickle.dumps(lambda xs: [str(sum(x) * factor) for x in xs])
    )
    assert load_model(tmp_path)([[1, 2], [3]]) == ["9", "9"]


def test_a_function_in_a_file_may_import_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "neighbour_of_model.py").write_text("FACTOR = 2\n")
    (tmp_path / "model_file.py").write_text(
        "from neighbour_of_model import FACTOR\n"
        "def predict(xs):\n    return [x * FACTOR for x in xs]\n"
    )
    assert load_model(f"{tmp_path}/model_file.py:predict")([1, 2]) == [2, 4]


def test_a_model_that_is_changed_twice_in_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "twice.py"
    for n in (1, 2):
        path.write_text(f"def predict(xs):\n    return [{n} for x in xs]\n")
        os.utime(path, (1, 1))
        assert load_model(f"{path}:predict")([0]) == [n]
    assert [found.name for found in tmp_path.iterdir()] == ["twice.py"]


def test_a_function_in_a_module() -> None:
    assert load_model("json:dumps") is json.dumps


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("missing.py:predict", "no such file"),
        ("no_such_module_here:predict", "no module or file"),
        ("json:nothing", "no function 'nothing'"),
        (":predict", "file.py:function"),
        ("missing.onnx", "no such model file"),
        (__file__, r"which function of it\? Name it: .*test_loaders\.py:FUNCTION"),
        (__file__.replace(".py", ".md"), "no such model file"),
        (str(Path(__file__).parents[1] / "pyproject.toml"), "suffixes"),
    ],
)
def test_what_cannot_be_loaded_is_said(spec: str, reason: str) -> None:
    with pytest.raises(ModelLoadError, match=reason):
        load_model(spec)


def test_a_folder_must_hold_one_model(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="it holds none"):
        load_model(tmp_path)
    for name in ("a.onnx", "b.joblib"):
        (tmp_path / name).touch()
    with pytest.raises(ModelLoadError, match=r"a\.onnx, b\.joblib"):
        load_model(tmp_path)


def test_a_missing_library_is_named_with_a_command_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    (tmp_path / "model.ubj").touch()
    with pytest.raises(ModelLoadError, match=f"{sys.executable} -m pip install xgboost"):
        load_model(tmp_path / "model.ubj")


ODD = """
from clipper_serving import serve

class Model:
    def predict(self, xs):
        return xs

model = Model()

async def later(xs):
    return xs

def two(x, y):
    return x

def bound(xs, scale=2):
    return [x * scale for x in xs]
"""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Model", r"is a class; name .* model = Model"),
        ("later", "is async"),
        ("two", "cannot be called with one list of inputs: missing .* 'y'"),
        ("Model.predict", "missing a required argument: 'xs'"),
        ("predict", "no function 'predict'; it has bound, later, two"),
        ("model.score", "no function 'model.score'"),
    ],
)
def test_functions_that_could_never_be_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "odd_model.py").write_text(ODD)
    with pytest.raises(ModelLoadError, match=reason):
        load_model(f"{tmp_path}/odd_model.py:{name}")
    assert load_model(f"{tmp_path}/odd_model.py:model.predict")([1]) == [1]
    assert load_model(f"{tmp_path}/odd_model.py:bound")([1]) == [2]


def test_a_program_that_serves_when_it_is_imported_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    source = "from clipper_serving import serve\nserve(len, name='m', version='1')\n"
    (tmp_path / "eager_model.py").write_text(source)
    with pytest.raises(ConfigurationError, match="__name__ == '__main__'"):
        load_model(f"{tmp_path}/eager_model.py:predict")
