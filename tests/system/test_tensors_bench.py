"""``clipper bench`` with rows of tensors, over each protocol."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tritonclient.http")
pytest.importorskip("tritonclient.grpc")

from harness import BINARY, Server, container, server, until  # noqa: E402
from test_tensors import CONFIG, MIXED, is_ready  # noqa: E402

PROTOCOLS = ["predict", "v2", "v2-binary", "grpc"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    folder = tmp_path_factory.mktemp("bench")
    with server(folder, CONFIG) as one, container(one, folder, "mixed", MIXED):
        until("mixed is served", lambda: is_ready(one, "mixed"))
        yield one, folder


def bench(served: tuple[Server, Path], protocol: str, *words: str) -> Any:
    one, folder = served
    url = f"http://{one.grpc}" if protocol == "grpc" else one.query
    command = [str(BINARY), "bench", "--app", "app", "--url", url, "--input-type", "tensors"]
    command += ["--protocol", protocol, "--warmup", "0", "--duration", "0.3", "--timeout", "60"]
    command += ["--connections", "4", "--json", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout
    # Nothing came out of the cache.
    assert "warning" not in done.stderr, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("batch", [[], ["--batch", "3"]])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_rows_are_made_by_the_signature(
    served: tuple[Server, Path], protocol: str, batch: list[str]
) -> None:
    report = bench(served, protocol, "--open-length", "5", *batch)
    assert report["predictions"] >= 3 and report["failures"] == {}, report


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_rows_of_a_file(served: tuple[Server, Path], protocol: str) -> None:
    _, folder = served
    rows = [
        {"ids": [at] * (2 + at % 3), "image": [[at, 1], [2, 3]], "text": f"é{at}"}
        for at in range(7)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    report = bench(served, protocol, "--rows", "rows.jsonl", "--inputs", "zipf:0:7")
    assert report["predictions"] >= 3 and report["failures"] == {}, report


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--rows", "none.jsonl"], "No such file"),
        (["--rows", "wrong.jsonl"], "line 2: row.ids: the tensor is missing"),
        (["--rows", "mixed.jsonl", "--batch", "2", "--protocol", "v2"], "row 1 has another shape"),
        (["--rows", "empty.jsonl"], "there are no rows"),
        (["--open-length", "1000000", "--batch", "100000"], "more than"),
    ],
)
def test_what_cannot_be_sent_is_said(
    served: tuple[Server, Path], words: list[str], says: str
) -> None:
    one, folder = served
    row = {"ids": [1, 2], "image": [[1, 1], [2, 3]], "text": "a"}
    longer = {**row, "ids": [1, 2, 3]}
    without = {"image": row["image"], "text": "a"}
    for name, some in (("wrong", [row, without]), ("mixed", [row, longer]), ("empty", [])):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, some)))
    command = [str(BINARY), "bench", "--app", "app", "--url", one.query, "--input-type", "tensors"]
    command += words
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and says in done.stderr, done.stderr


def test_a_model_that_nobody_serves_has_no_rows(served: tuple[Server, Path]) -> None:
    one, _ = served
    command = [str(BINARY), "bench", "--app", "all", "--input-type", "tensors"]
    command += ["--protocol", "v2", "--url", one.query]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "until a replica connects" in done.stderr, done.stderr
