"""This server and Triton, the same functions in Python behind both, asked by Triton's perf_analyzer.

    python benches/python/triton.py --triton FOLDER --perf-analyzer FILE [--rounds 3]

--triton is the folder `tritonserver` of the package nvidia-pytriton (bin, backends and
python_backend_stubs are in it; its libraries beside it in nvidia_pytriton.libs), --perf-analyzer
the one inside tritonclient 2.41.1, which runs on Debian 12 with libb64-0d and the library of
nvidia-cuda-runtime-cu12 in LD_LIBRARY_PATH. This Python runs the models on both sides: it is to
have numpy, scikit-learn and pyzmq, and its version is that of one of the stubs.

A no-op, a forest of 50 trees, a net of 64 hidden units and a mean over images of 3x224x224, each in
one process, batches of up to 64; Triton waits 1 ms for one to fill, as its documentation advises,
this server as long as it thinks right. Both sides alternate; medians over the rounds are printed.
CPU is that of all processes of a side, divided by the requests.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from pathlib import Path

from models import ROOT, await_replica, listening
from peers import Running

FUNCTIONS = """
import numpy as np

def data(rows):
    random = np.random.default_rng(0)
    x = random.random((rows, 64)).astype("float32")
    return x, (x[:, :32].sum(axis=1) > x[:, 32:].sum(axis=1)).astype(int)

def noop(x):
    return np.zeros((len(x), 1), np.float32)

def of_forest():
    from sklearn.ensemble import RandomForestClassifier
    model = RandomForestClassifier(n_estimators=50, random_state=0).fit(*data(2000))
    return lambda x: model.predict(x).astype(np.float32).reshape(-1, 1)

def of_net():
    from sklearn.neural_network import MLPClassifier
    model = MLPClassifier((64,), max_iter=50, random_state=0).fit(*data(2000))
    return lambda x: model.predict_proba(x)[:, :1].astype(np.float32)

def mean(x):
    return x.mean(axis=(1, 2, 3)).reshape(-1, 1)

MODELS = {"noop": lambda: noop, "forest": of_forest, "net": of_net, "image": lambda: mean}
"""

OURS = """
import sys
sys.path.insert(0, sys.argv[1])
from functions import MODELS
from clipper_serving import serve
_, _, name, address, shape = sys.argv
function = MODELS[name]()
host, port = address.removeprefix("tcp://").split(":")
serve(lambda arrays: {"y": function(arrays["x"])}, name=name, version="1", host=host,
      port=int(port), metrics_port=0,
      inputs={"x": ("float32", [-1, *map(int, shape.split("x"))])},
      outputs={"y": ("float32", [-1, 1])})
"""

TRITONS = """
import sys
sys.path[:0] = PLACES
import numpy as np
import triton_python_backend_utils as utils
from functions import MODELS

class TritonPythonModel:
    def initialize(self, args):
        self.function = MODELS[args["model_name"]]()

    def execute(self, requests):
        parts = [utils.get_input_tensor_by_name(r, "x").as_numpy() for r in requests]
        rows = self.function(np.concatenate(parts))
        answers, at = [], 0
        for part in parts:
            output = utils.Tensor("y", rows[at:at + len(part)])
            answers.append(utils.InferenceResponse(output_tensors=[output]))
            at += len(part)
        return answers
"""

SHAPES = {"noop": [10], "forest": [64], "net": [64], "image": [3, 224, 224]}


def of_ours(model):
    return f"""
[http]
query_addr = "127.0.0.1:0"
management_addr = "127.0.0.1:0"
metrics_addr = "127.0.0.1:0"
[grpc]
addr = "127.0.0.1:0"
[rpc]
addr = "tcp://127.0.0.1:0"
[[application]]
name = "{model}"
input_type = "tensors"
default_output = "null"
latency_slo_micros = 1000000
model = "{model}"
cache = false
[[model]]
name = "{model}"
version = "1"
input_type = "tensors"
cache = false
"""


def of_triton(model):
    dims = ", ".join(map(str, SHAPES[model]))
    return f"""
name: "{model}"
backend: "python"
max_batch_size: 64
input [{{ name: "x", data_type: TYPE_FP32, dims: [{dims}] }}]
output [{{ name: "y", data_type: TYPE_FP32, dims: [1] }}]
instance_group [{{ kind: KIND_CPU, count: 1 }}]
dynamic_batching {{ max_queue_delay_microseconds: 1000 }}
"""


class Side(Running):
    """A server with one model, and where it answers."""

    def __init__(self, processes, http, grpc):
        self.processes, self.http, self.grpc = processes, http, grpc


def ours(options, model, folder):
    config, script = folder / "clipper.toml", folder / "ours.py"
    config.write_text(of_ours(model))
    script.write_text(OURS)
    command = [options.clipper, "serve", "--config", config, "--data-dir", folder / "data"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    at = listening(server)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python/src"), "OMP_NUM_THREADS": "1"}
    shape = "x".join(map(str, SHAPES[model]))
    container = subprocess.Popen([sys.executable, script, folder, model, at["rpc"], shape],
                                 stdout=subprocess.DEVNULL, env=environment)
    side = Side([server, container], at["query"].removeprefix("http://"),
                at["grpc"].strip('"'))
    try:
        await_replica(at["metrics"])
    except BaseException:
        side.stop()
        raise
    return side


def triton(options, model, folder):
    home = Path(options.triton).resolve()
    repository = folder / "repository" / model
    (repository / "1").mkdir(parents=True)
    (repository / "config.pbtxt").write_text(of_triton(model))
    # Its Python is an embedded one, which does not find this one's packages by itself.
    places = [str(folder), sysconfig.get_path("purelib")]
    (repository / "1/model.py").write_text(TRITONS.replace("PLACES", repr(places)))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    backends = folder / "backends"
    subprocess.run(["cp", "-r", home / "backends", backends], check=True)
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    subprocess.run(["cp", stub, backends / "python"], check=True)
    libraries = [home.parent.parent / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1",
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
    }
    http, grpc, metrics = 28100, 28101, 28102
    command = [home / "bin/tritonserver", "--model-repository", repository.parent,
               "--backend-directory", backends, "--http-port", str(http), "--grpc-port", str(grpc),
               "--metrics-port", str(metrics), "--http-address", "127.0.0.1",
               "--grpc-address", "127.0.0.1"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL,
                              stderr=(folder / "triton.log").open("w"), env=environment)
    side = Side([server], f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://{side.http}/v2/models/{model}/ready")
            return side
        except OSError:
            time.sleep(0.1)
    side.stop()
    lines = (folder / "triton.log").read_text().splitlines()
    told = "\n".join(line for line in lines if not line.startswith(("I", "|", "+")))
    sys.exit(f"Triton does not start:\n{told[-3000:]}")


def asked(options, side, model, protocol, connections, folder):
    report = folder / "report.csv"
    command = [options.perf_analyzer, "-m", model, "-i", protocol, "-f", report,
               "-u", side.http if protocol == "http" else side.grpc,
               "--concurrency-range", str(connections), "--percentile", "99", "--sync",
               "--measurement-interval", str(int(options.seconds * 1000)), "-r", "3", "-s", "999"]
    before = side.cpu_us()
    told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    used = side.cpu_us() - before
    if not report.exists():
        sys.exit(told.stdout[-3000:])
    row = next(csv.DictReader(report.open()))
    report.unlink()
    rate = float(row["Inferences/Second"])
    seconds = options.seconds * 3
    return {"rate": rate, "p99_ms": float(row["p99 latency"]) / 1000,
            "cpu_us": used / (rate * seconds)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clipper", type=Path, default=ROOT / "target/dist/clipper")
    parser.add_argument("--triton", required=True, help="folder tritonserver of nvidia-pytriton")
    parser.add_argument("--perf-analyzer", required=True)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="*", default=list(SHAPES))
    parser.add_argument("--connections", nargs="*", type=int, default=[64, 1])
    options = parser.parse_args()
    sides = {"clipper": ours, "Triton": triton}
    seen = {}
    for _ in range(options.rounds):
        for model in options.models:
            for name, start in sides.items():
                with tempfile.TemporaryDirectory() as place:
                    folder = Path(place)
                    (folder / "functions.py").write_text(FUNCTIONS)
                    side = start(options, model, folder)
                    try:
                        for protocol in ("http", "grpc"):
                            for connections in options.connections:
                                case = (model, protocol, connections)
                                result = asked(options, side, *case, folder)
                                seen.setdefault((case, name), []).append(result)
                                print(name, *case, result, file=sys.stderr, flush=True)
                    finally:
                        side.stop()
    print(f"{'model':7} {'':5} {'conn.':>5}  {'clipper/s':>9} {'Triton/s':>9} {'times':>6}  "
          f"{'p99 ms':>7} {'p99 ms':>7} {'times':>6}")
    for case in dict.fromkeys(case for case, _ in seen):
        middle = {name: {key: statistics.median(r[key] for r in seen[case, name])
                         for key in ("rate", "p99_ms")} for name in sides}
        own, other = middle["clipper"], middle["Triton"]
        print(f"{case[0]:7} {case[1]:5} {case[2]:5}  {own['rate']:9.0f} {other['rate']:9.0f} "
              f"{own['rate'] / other['rate']:6.2f}  {own['p99_ms']:7.2f} {other['p99_ms']:7.2f} "
              f"{own['p99_ms'] / other['p99_ms']:6.2f}")


if __name__ == "__main__":
    main()
