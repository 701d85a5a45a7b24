"""KServe's and MLServer's own Python clients, unmodified.

What their packages ask for does not go together with that of the other clients, so that they have
an environment of their own, which ``scripts/test.sh`` makes.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from harness import ROOT, Server

CLIENTS = Path(os.environ.get("CLIPPER_TEST_CLIENTS", ROOT / ".venv-clients")) / "bin"

pytestmark = pytest.mark.skipif(
    not (CLIENTS / "mlserver").exists(), reason=f"{CLIENTS} is missing: scripts/test.sh prepare"
)


def run(*command: str | Path, said: str) -> None:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and said in done.stdout + done.stderr, done


def script(name: str, *arguments: str, said: str) -> None:
    run(CLIENTS / "python", Path(__file__).with_name(name), *arguments, said=said)


def test_kserve_infers_and_asks_after_health(every_type: Server) -> None:
    script("kserve_client.py", every_type.query, every_type.grpc, said="kserve 6")


def test_what_mlserver_writes_is_answered_as_it_reads_it(every_type: Server) -> None:
    script("mlserver_client.py", every_type.query, said="mlserver ")


@pytest.mark.parametrize("binary", [[], ["--binary-data"]])
def test_mlserver_infers_a_file_in_batches(
    every_type: Server, tmp_path: Path, binary: list[str]
) -> None:
    rows = [[1.5, 2.0], [3.0, 4.0], [0.5, 0.25]]
    tensor = {"name": "input", "shape": [1, 2], "datatype": "FP64"}
    asked = [
        {"id": str(n), "inputs": [{**tensor, "data": row}]} for n, row in enumerate(rows)
    ]
    given, answered = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text("".join(json.dumps(one) + "\n" for one in asked))
    addr = every_type.query.removeprefix("http://")
    files = ["--input-data-path", given, "--output-data-path", answered]
    options = ["--batch-size", "2", "--workers", "2", *binary]
    command = [CLIENTS / "mlserver", "infer", "--url", addr, "--model-name", "doubles"]
    run(*command, *files, *options, said="")
    found = {}
    for line in answered.read_text().splitlines():
        one = json.loads(line)
        found[one["id"]] = one["outputs"][0]["data"]
    assert found == {"0": ["3.5"], "1": ["7.0"], "2": ["0.75"]}, found
