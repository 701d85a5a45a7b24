"""``/openapi.json`` of both frontends, by schemathesis: what it says is what is answered."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("schemathesis")

from harness import SUM_CONFIG, SUM_SOURCE, Server, container, server, until  # noqa: E402

# Whether a request that has the form is allowed depends on what is registered, which no schema
# tells: as the original does, the management frontend refuses with 400. What is not served of a
# protocol has 501, and what cannot be now 503.
SETTINGS = """
[checks]
positive_data_acceptance.expected-statuses = [
    "2xx", "400", "401", "403", "404", "409", "413", "415", "422", "429", "501", "503",
]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "501", "503"]
"""

# These end with their connection only, or start programs.
LEFT_OUT = "stream$|deploy_model|backup"

# Without a key of its own the first key that a test adds would lock it out.
SECRET = "admin-" + "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("described")
    config = SUM_CONFIG.replace("APPLICATION", "digits").replace('"sum"', '"digits"')
    keys = {"CLIPPER_KEYS": f"admin admin {SECRET}"}
    with (
        server(folder, config, keys) as one,
        container(one, folder, "digits", SUM_SOURCE),
    ):
        until("it serves", lambda: predicts(one))
        yield one


def predicts(served: Server) -> bool:
    headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
    url = f"{served.query}/digits/predict"
    request = urllib.request.Request(url, b'{"input": [1.0]}', headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return b'"default":false' in answer.read()


@pytest.mark.parametrize("frontend", ["query", "management"])
def test_answers_are_as_they_are_described(served: Server, frontend: str, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    examples = os.environ.get("CLIPPER_TEST_SCHEMATHESIS", "5")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml"]
    command += ["run", f"{getattr(served, frontend)}/openapi.json", "--checks", "all"]
    command += ["--max-examples", examples, "--phases", "examples,coverage,fuzzing"]
    command += ["--seed", "1", "--no-color", "-H", f"Authorization: Bearer {SECRET}"]
    command += ["--exclude-path-regex", LEFT_OUT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    generated = re.search(r"(\d+) generated, \1 passed", done.stdout)
    assert generated and int(generated[1]) > 100, done.stdout
