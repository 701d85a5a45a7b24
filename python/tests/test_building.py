"""What tells one build of a model from another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import FakeServer, u32

from clipper_serving import StopSignal, protocol

MODEL = """
import json
import neighbour

with open(__file__.replace("model.py", "weights.json")) as file:
    WEIGHTS = json.load(file)

def predict(xs):
    return [neighbour.FACTOR * x for x in xs]
"""

BUILD_OF = """
import sys
from clipper_serving import loaders, serving
from clipper_serving.building import build_of
loaders.load_model(sys.argv[1])
print(build_of(sys.argv[1], serving._files_read.paths))
"""


@pytest.fixture(params=["a", ".hidden/a", "site-packages/a"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / str(request.param)
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL)
    (folder / "neighbour.py").write_text("FACTOR = 2\n")
    (folder / "weights.json").write_text("[1, 2]")
    (folder / "unused.json").write_text("[]")
    return folder


def build(folder: Path, spec: str = "model.py:predict") -> str:
    """That of a process which loads the model now."""
    command = [sys.executable, "-c", BUILD_OF, f"{folder}/{spec}"]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


def test_the_same_files_are_the_same_build_wherever_they_are(folder: Path) -> None:
    first = build(folder)
    assert protocol.build(first.strip())
    assert build(folder) == first
    (folder / "unused.json").write_text("[9]")
    (folder / ".cache").write_text("hidden")
    moved = folder.rename(folder.with_name("b"))
    assert build(moved) == first


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.py", MODEL + "# other\n"),
        ("neighbour.py", "FACTOR = 3\n"),
        ("weights.json", "[1, 3]"),
    ],
)
def test_other_code_or_other_files_are_another_build(folder: Path, name: str, text: str) -> None:
    first = build(folder)
    (folder / name).write_text(text)
    assert build(folder) != first


def test_the_build_of_a_folder_is_all_that_is_in_it(folder: Path) -> None:
    sklearn = pytest.importorskip("sklearn.linear_model")
    joblib = pytest.importorskip("joblib")
    for n in (1, 2):
        model = sklearn.LinearRegression().fit([[0.0], [1.0]], [0.0, float(n)])
        joblib.dump(model, folder / f"model{n}.joblib")
    one, two = build(folder, "model1.joblib"), build(folder, "model2.joblib")
    assert one != two
    only = folder / "only"
    only.mkdir()
    (folder / "model1.joblib").rename(only / "model.joblib")
    first = build(folder, "only")
    (folder / "model2.joblib").rename(only / "model.joblib")
    assert build(folder, "only") != first


def test_a_server_that_asks_is_told_the_build(
    server: FakeServer, start: Callable[..., StopSignal]
) -> None:
    start(lambda xs: [0] * len(xs), build="v7-abc")
    replica = server.handshake()
    server.accept_extensions(replica.identity, protocol.QUERY_ERRORS | protocol.BUILD, 100)
    assert server.recv()[1] == [u32(3), b"v7-abc"]
    assert server.predict(replica.identity, 3, [[1]]) == ["0"]


def test_a_server_that_does_not_ask_is_told_nothing(
    server: FakeServer, start: Callable[..., StopSignal]
) -> None:
    start(lambda xs: [0] * len(xs))
    replica = server.handshake()
    server.accept_extensions(replica.identity, protocol.QUERY_ERRORS, 100)
    assert server.predict(replica.identity, 3, [[1]]) == ["0"]


@pytest.mark.parametrize("text", ["", "two words", "é", "x" * 129, "line\n"])
def test_what_is_no_build(text: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII"):
        protocol.build(text)
