"""ONNX files that packages of the tests carry, by the program that makes the table of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from harness import BINARY, ROOT  # noqa: E402

FOLDER = ROOT / "examples" / "onnx_files"
sys.path.insert(0, str(FOLDER))

import compare  # noqa: E402
import table  # noqa: E402

FILES = [
    # Texts, a table, nets; what the built-in engine has and what it lacks.
    ("onnx", "test_strnorm_model_nostopwords_nochangecase/"),
    ("onnx", "test_strnorm_model_monday_casesensintive_nochangecase/"),
    ("onnx", "test_operator_conv/"),
    ("onnx", "test_single_relu_model/"),
    ("onnxruntime", "logreg_iris"),
    ("onnxruntime", "sigmoid"),
]


def test_files_of_packages_are_answered_as_by_onnx_runtime(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = table.folder_of(Path(sys.executable))
    jobs = [
        {"kind": "any", "package": package, "file": str(file), "inputs": {}}
        for package, pattern in FILES
        for file in table.files_of(site, package, pattern)
    ]
    assert len(jobs) == len(FILES)
    (tmp_path / "files.json").write_text(json.dumps(jobs))
    code = compare.main(str(BINARY), str(tmp_path / "files.json"))
    said = capsys.readouterr().out
    assert code == 0 and "0 wrong" in said, said
    rows = [line.split(" | ") for line in said.splitlines() if line.startswith("| any")]
    assert len(rows) == len(FILES) and "not tried" not in said, said
    by_onnx_runtime = [row[5] for row in rows]
    assert not any(cell.startswith("no") for cell in by_onnx_runtime), said
    assert "LinearClassifier (ai.onnx.ml)" in said, said


def test_the_list_of_packages_is_read() -> None:
    listed = table.packages(FOLDER / "packages.txt")
    kinds = {kind for kind, *_ in listed}
    assert {"speech", "text", "vision", "tabular"} <= kinds
    assert all("==" in package for _, package, _, _ in listed)
