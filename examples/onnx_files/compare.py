"""Serves ONNX files one after the other and compares the answers with ONNX Runtime in this process.

    python compare.py CLIPPER FILES.json

FILES.json is a list of {"kind", "package", "file", "inputs"}: what ``table.py`` has found. Of
``inputs`` each may say a shape, {"x": [1, 512]}, or numbers, {"rate": 16000}, or as a list of one
text what the input is, {"x": ["text"]}.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from clipper_serving import Client

PATIENCE_SECONDS = 120.0
ROWS = 3
LENGTHS = (16, 64, 1, 4, 128, 320, 640, 32, 48, 224, 1000, 16000)
"""What open dimensions are tried with, until the model takes it."""

RELATIVE = {"ort": 1e-4, "builtin": 1e-3}
"""How far an output may be off, relative to the largest of its tensor. The library is the same on
both sides; rows that are computed together are added up in another order."""

SMALL = 1e-2
"""Outputs that are all smaller than this are compared as if they were so large."""

KINDS = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
FLAT = {np.float32: "floats", np.float64: "doubles", np.float16: "floats", np.object_: "strings"}

CONFIG = """
[[application]]
name = "app-{type}"
input_type = "{type}"
default_output = "null"
latency_slo_micros = 60000000
model = "model-{type}"
cache = false

[[model]]
name = "model-{type}"
version = "1"
input_type = "{type}"
"""
TYPES = ["tensors", "floats", "doubles", "integers", "strings"]

Arrays = dict[str, np.ndarray]


def session(file: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def made_up(spec: Any, said: Any, length: int, random: np.random.Generator) -> np.ndarray:
    dtype = KINDS[spec.type]
    if isinstance(said, list) and said and isinstance(said[0], str):
        return np.array(said, dtype=object).reshape([1] * len(spec.shape))
    dims = [n if isinstance(n, int) and n > 0 else length for n in spec.shape]
    if dims and not (isinstance(spec.shape[0], int) and spec.shape[0] > 0):
        dims[0] = 1
    if isinstance(said, (int, float)):
        return np.full(dims, said, dtype)
    shape = said if isinstance(said, list) else dims
    if dtype is np.object_:
        words = random.choice(["one", "two", "a cat", "Wer da?"], size=shape)
        return np.asarray(words, dtype=object)
    if np.issubdtype(dtype, np.floating):
        return random.random(shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)


def rows_for(one: onnxruntime.InferenceSession, said: dict, count: int = ROWS) -> list[Arrays]:
    """So many rows of one shape that the model takes."""
    fault = None
    for length in LENGTHS:
        random = np.random.default_rng(7)
        rows = [
            {
                spec.name: made_up(spec, said.get(spec.name), length, random)
                for spec in one.get_inputs()
            }
            for _ in range(count)
        ]
        try:
            one.run(None, rows[0])
        except Exception as error:
            fault = fault or error
            continue
        return rows
    raise ValueError(str(fault).splitlines()[0])


def has_rows(spec: Any) -> bool:
    first = spec.shape[0] if spec.shape else 2
    return not isinstance(first, int) or first <= 1


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, relative to the largest number; infinite for other shapes."""
    found = np.asarray(found)
    if found.size != wanted.size:
        return float("inf")
    if wanted.dtype.kind in "OSU":
        texts = [one.decode() if isinstance(one, bytes) else str(one) for one in found.reshape(-1)]
        return 0.0 if texts == [str(one) for one in wanted.reshape(-1)] else float("inf")
    found, wanted = (np.asarray(one, np.float64).reshape(-1) for one in (found, wanted))
    # JSON has no numbers for them.
    found, wanted = (np.nan_to_num(one, posinf=np.nan, neginf=np.nan) for one in (found, wanted))
    scale = max(float(np.abs(wanted).max(initial=0.0)), SMALL)
    return float(np.abs(found - wanted).max(initial=0.0)) / scale


@contextmanager
def process(*command: Any, **options: Any):
    running = subprocess.Popen([str(part) for part in command], **options)
    try:
        yield running
    finally:
        running.terminate()
        running.wait()


def until(condition: Any, running: subprocess.Popen) -> bool:
    """Whether it comes true before the process ends."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if condition():
            return True
        if running.poll() is not None:
            return False
        time.sleep(0.05)
    return False


class Server:
    def __init__(self, clipper: str, folder: Path, ports: list[int]) -> None:
        self.clipper, self.folder = clipper, folder
        self.query, self.rpc = ports[0], ports[3]
        self.client = Client(f"http://127.0.0.1:{self.query}", timeout=90.0)

    def is_ready(self, model: str) -> bool:
        try:
            url = f"http://127.0.0.1:{self.query}/v2/models/{model}/ready"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    @contextmanager
    def serving(self, file: str, engine: str, kind: str):
        """A container of this file; gives why there is none, or nothing."""
        log = self.folder / "container.log"
        with log.open("wb") as sink, process(
            self.clipper, "container", "onnx", "--model", file, "--name", f"model-{kind}",
            "--version", "1", "--connect", f"tcp://127.0.0.1:{self.rpc}", "--input-type", kind,
            "--engine", engine, *library(engine), stdout=sink, stderr=sink,
        ) as running:  # fmt: skip
            ready = until(lambda: self.is_ready(f"app-{kind}"), running)
            lines = log.read_text(errors="replace").strip().splitlines()
            yield None if ready else (lines or ["it said nothing"])[-1]
        # The next container of the same name is another model.
        until_gone = time.monotonic() + PATIENCE_SECONDS
        while self.is_ready(f"app-{kind}") and time.monotonic() < until_gone:
            time.sleep(0.02)


def library(engine: str) -> list[str]:
    if engine != "ort":
        return []
    capi = Path(os.path.dirname(onnxruntime.__file__)) / "capi"
    return ["--library", str(next(capi.glob("libonnxruntime.so*")))]


@contextmanager
def server(clipper: str):
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        held = [stack.enter_context(socket.socket()) for _ in range(5)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in held]
        for one in held:
            one.close()
        (folder / "clipper.toml").write_text("".join(CONFIG.format(type=kind) for kind in TYPES))
        flags = ["--query-addr", "--management-addr", "--metrics-addr", "--rpc-addr", "--grpc-addr"]
        command = [clipper, "serve", "--config", folder / "clipper.toml"]
        command += ["--data-dir", folder / "data"]
        for flag, port in zip(flags, ports):
            scheme = "tcp://" if flag == "--rpc-addr" else ""
            command += [flag, f"{scheme}127.0.0.1:{port}"]
        log = stack.enter_context((folder / "server.log").open("wb"))
        room = {
            "CLIPPER_HTTP__BODY_MAX_BYTES": 64 << 20,
            "CLIPPER_HTTP__BODIES_MAX_BYTES": 256 << 20,
        }
        env = {**os.environ, **{name: str(size) for name, size in room.items()}}
        running = stack.enter_context(process(*command, stdout=log, stderr=log, env=env))
        served = Server(clipper, folder, ports)
        if not until(lambda: _listens(ports[0]), running):
            sys.exit((folder / "server.log").read_text())
        yield served


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def by_tensors(served: Server, file: str, one: Any, rows: list[Arrays]) -> str:
    """What comes of all inputs and outputs, by ONNX Runtime."""
    with served.serving(file, "ort", "tensors") as why_not:
        if why_not:
            return f"no: {why_not}"
        specs = {spec.name: spec for spec in one.get_inputs()}

        def tensor(name: str) -> np.ndarray:
            parts = [row[name] if has_rows(specs[name]) else row[name][None] for row in rows]
            return np.concatenate(parts)

        answer = served.client.infer("app-tensors", {name: tensor(name) for name in specs})
        largest = 0.0
        for at, row in enumerate(rows):
            wanted = dict(zip([spec.name for spec in one.get_outputs()], one.run(None, row)))
            for name, array in answer.items():
                largest = max(largest, difference(array[at], np.asarray(wanted[name])))
        return verdict(largest, "ort")


def by_built_in(served: Server, file: str, one: Any, rows: list[Arrays]) -> str:
    """What comes of the first output, by the engine in the binary."""
    inputs = one.get_inputs()
    kind = FLAT.get(KINDS[inputs[0].type], "integers") if len(inputs) == 1 else "tensors"
    with served.serving(file, "builtin", kind) as why_not:
        if why_not and kind != "tensors" and "--input-type tensors" in why_not:
            # The message names the operators that it would lack.
            with served.serving(file, "builtin", "tensors") as why_not:
                return f"no: {brief(why_not or '')}"
        if why_not:
            return f"no: {brief(why_not)}"
        largest = 0.0
        name = one.get_outputs()[0].name
        for row in rows:
            (array,) = row.values()
            (wanted,) = one.run([name], row)
            # A first axis of several is a batch of fixed size, and a part of it a query.
            is_batch = array.ndim > 1 and array.shape[0] > 1
            parts = list(zip(array, wanted)) if is_batch else [(array, wanted)]
            for part, expected in parts:
                is_text = kind == "strings"
                given = str(part.reshape(-1)[0]) if is_text else part.reshape(-1).tolist()
                answer = served.client.predict(f"app-{kind}", given)
                found = np.asarray(answer.output, dtype=np.float64)
                largest = max(largest, difference(found, np.asarray(expected)))
        return verdict(largest, "builtin")


def verdict(largest: float, engine: str) -> str:
    if largest <= RELATIVE[engine]:
        return "equal" if largest == 0 else f"{largest:.0e}"
    return f"**WRONG** {largest:.1e}"


def brief(why: str) -> str:
    """The reason without what is the same for all; the way out stands above the table."""
    why = re.sub(r"^(ERROR|INFO|WARN) +(\S+: )?", "", why.strip())
    why = re.sub(r"^the built-in engine cannot compute the output '[^']*': ", "", why)
    of_all = "the built-in engine takes one flat input and no type tensors"
    why = why.replace(of_all, "several inputs or open axes")
    return re.sub(r"\.? Install ONNX Runtime.*$", "", why)


def shown(specs: list[Any]) -> str:
    kinds = sorted({spec.type.removeprefix("tensor(").removesuffix(")") for spec in specs})
    return f"{len(specs)} {'/'.join(kinds)}"


def row_of(served: Server, job: dict) -> list[str]:
    file = job["file"]
    name = Path(file).name
    if name == "model.onnx":
        name = f"{Path(file).parent.name}/{name}"
    start = [job["kind"], job["package"], name, f"{os.path.getsize(file) / 1e6:.1f}"]
    try:
        one = session(file)
        takes = f"{shown(one.get_inputs())} -> {shown(one.get_outputs())}"
        rows = rows_for(one, job["inputs"])
    except Exception as error:
        return [*start, "", f"not tried: {str(error).splitlines()[0][:120]}", ""]
    cells = []
    for by in (by_tensors, by_built_in):
        try:
            cells.append(by(served, file, one, rows))
        except Exception as error:
            cells.append(f"**WRONG** {type(error).__name__}: {str(error)[:160]}")
    return [*start, takes, *cells]


HEAD = ["kind", "package", "file", "MB", "takes -> gives", "ONNX Runtime", "built-in"]


def main(clipper: str, files: str) -> int:
    jobs = json.loads(Path(files).read_text())
    wrong = 0
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}", flush=True)
    with server(clipper) as served:
        for job in jobs:
            cells = row_of(served, job)
            wrong += any("WRONG" in cell for cell in cells)
            print(f"| {' | '.join(cells)} |", flush=True)
    print(
        f"\n{len(jobs)} files, {wrong} wrong. A number is the largest difference from ONNX Runtime "
        f"in process, relative to the largest number of its tensor; ONNX Runtime through the server "
        f"may be {RELATIVE['ort']} off, the built-in engine {RELATIVE['builtin']}. The way out of "
        "what the built-in engine refuses: pip install onnxruntime."
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
