"""The server and everything around it as processes of their own, on free ports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from leaks import Watch

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("CLIPPER_TEST_BINARY", ROOT / "target" / "debug" / "clipper"))

PATIENCE_SECONDS = 60.0
"""Far above what any step takes; only a test that fails waits so long."""

SUM_CONFIG = """
[[application]]
name = "APPLICATION"
input_type = "doubles"
default_output = "null"
latency_slo_micros = 500000
model = "sum"

[[model]]
name = "sum"
version = "1"
input_type = "doubles"
"""
"""An application that asks the model ``sum``."""

SUM_SOURCE = """
def predict(inputs):
    return [float(values.sum()) for values in inputs]
"""
"""That model, for the package's ``serve``."""

T = TypeVar("T")


def until(what: str, condition: Callable[[], T | None]) -> T:
    """Polls until ``condition`` gives something true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


def get(url: str, accept: str = "*/*") -> str:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def post(url: str, body: Any) -> Any:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read().decode()
    try:
        return json.loads(text)
    except ValueError:
        return text


@contextmanager
def process(*command: str | Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not outlive its block."""
    running = subprocess.Popen([str(part) for part in command], **options)
    try:
        yield running
    finally:
        if running.poll() is None:
            running.terminate()
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


class Server:
    """What a running server says of itself."""

    def __init__(
        self, process: subprocess.Popen[bytes], lines: list[str], said: dict[str, str]
    ) -> None:
        self.process = process
        self.lines = lines
        self.query = said["query"]
        self.management = said["management"]
        self.metrics = said["metrics"].removesuffix("/metrics")
        self.grpc = said["grpc"]
        self.rpc_port = int(said["rpc"].rsplit(":", 1)[1])

    def predict(self, app: str, value: Any) -> Any:
        return post(f"{self.query}/{app}/predict", {"input": value})


@contextmanager
def server(folder: Path, config: str, env: dict[str, str] | None = None) -> Iterator[Server]:
    """A server with this config file and its data in ``folder``."""
    file = folder / "clipper.toml"
    file.write_text(config)
    addresses = ["--query-addr", "--management-addr", "--metrics-addr", "--grpc-addr"]
    command = [str(BINARY), "serve", "--config", str(file), "--data-dir", str(folder / "data")]
    for flag in addresses:
        command += [flag, "127.0.0.1:0"]
    command += ["--rpc-addr", "tcp://127.0.0.1:0", "--log-format", "json"]
    env = env or {}
    watch = Watch(config, env, folder / "data")
    own = {**os.environ, **watch.level(), **env}
    lines: list[str] = []
    with process(*command, env=own, cwd=folder, stderr=subprocess.PIPE) as running:

        def collect() -> None:
            assert running.stderr
            for line in running.stderr:
                lines.append(line.decode("utf-8", "replace"))

        heard = threading.Thread(target=collect, daemon=True)
        heard.start()

        def listening() -> dict[str, str] | None:
            assert running.poll() is None, "".join(lines)
            said = [line for line in lines if '"listening"' in line]
            found: dict[str, str] | None = json.loads(said[0]) if said else None
            return found

        served = Server(running, lines, until("the server listens", listening))
        yield served
        watch.look(running.pid, served.metrics)
    heard.join(PATIENCE_SECONDS)
    watch.end("".join(lines).encode())


def container(
    served: Server, folder: Path, name: str, source: str, version: str = "1", **env: str
) -> Any:
    """A container of the Python package that serves ``predict`` of ``source``."""
    (folder / f"{name}_{version}.py").write_text(source)
    settings = {
        "PYTHONPATH": str(ROOT / "python" / "src"),
        "CLIPPER_PORT": str(served.rpc_port),
        "CLIPPER_CONTAINER_METRICS_PORT": "0",
        **env,
    }
    return process(
        sys.executable, "-m", "clipper_serving", "serve", f"{name}_{version}.py:predict",
        "--name", name, "--version", version,
        cwd=folder, env={**os.environ, **settings},
    )  # fmt: skip
