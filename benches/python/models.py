"""Goodput of scikit-learn models with batches of one and with batches that the server chooses.

    python benches/python/models.py [--clipper target/dist/clipper] [--seconds 4]

Needs scikit-learn and the package in python/. For each model the script starts a server and one
container, then lets `clipper bench` search for the highest rate at which 99 % of the inputs are
answered by the model within the objective. Requests carry 100 inputs, so that HTTP is not the limit.
The rows of the two kinds alternate; medians over the rounds are printed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FEATURES = 64
KINDS = {"one by one": 1, "adaptive": -1}

MODEL = """
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import SVC, LinearSVC

def data(rows):
    random = np.random.default_rng(0)
    x = random.random((rows, 64))
    return x, (x[:, :32].sum(axis=1) > x[:, 32:].sum(axis=1)).astype(int)

MODELS = {
    "noop": lambda: None,
    "linear": lambda: LinearSVC(dual=False).fit(*data(2000)),
    "forest": lambda: RandomForestClassifier(n_estimators=50, random_state=0).fit(*data(2000)),
    "kernel": lambda: SVC(kernel="rbf", gamma=1.0).fit(*data(3000)),
}

def serve_one(name, address):
    from clipper_serving import serve
    model = MODELS[name]()
    predict = (lambda x: [0] * len(x)) if model is None else model.predict
    host, port = address.removeprefix("tcp://").split(":")
    serve(predict, name=name, version="1", input_type="doubles", stacked=True,
          host=host, port=int(port), metrics_port=0)

import sys
serve_one(sys.argv[1], sys.argv[2])
"""


def config(model, batch_size, slo_ms):
    return f"""
[http]
query_addr = "127.0.0.1:0"
management_addr = "127.0.0.1:0"
metrics_addr = "127.0.0.1:0"

[grpc]
enabled = false
[rpc]
addr = "tcp://127.0.0.1:0"
[[application]]
name = "bench"
input_type = "doubles"
default_output = "-1"
latency_slo_micros = {slo_ms * 1000}
model = "{model}"
[[model]]
name = "{model}"
version = "1"
input_type = "doubles"
batch_size = {batch_size}
"""


def listening(server):
    for line in server.stderr:
        if " listening " in line:
            return dict(word.split("=", 1) for word in line.split() if "=" in word)
    sys.exit("the server has ended")


def await_replica(metrics, deadline_s=120):
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        page = urllib.request.urlopen(metrics).read().decode()
        if any(line.startswith("clipper_replicas{") and line.endswith(" 1")
               for line in page.splitlines()):
            return
        time.sleep(0.1)
    sys.exit("the container does not connect")


def measure(options, model, batch_size, folder):
    path = folder / f"{model}{batch_size}.toml"
    path.write_text(config(model, batch_size, options.slo_ms))
    server = subprocess.Popen(
        [options.clipper, "serve", "--config", path, "--data-dir", folder / path.stem],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    container = None
    try:
        at = listening(server)
        (folder / "model.py").write_text(MODEL)
        container = subprocess.Popen(
            [sys.executable, folder / "model.py", model, at["rpc"]],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT / "python/src"), "OMP_NUM_THREADS": "1"})
        await_replica(at["metrics"])
        found = subprocess.run(
            [options.clipper, "bench", "--url", at["query"], "--app", "bench", "--json",
             "--input-len", str(FEATURES), "--batch", "100", "--find-goodput",
             "--slo-ms", str(options.slo_ms), "--duration", str(options.seconds)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return json.loads(found.stdout) if found.returncode == 0 else None
    finally:
        for process in (container, server):
            if process:
                process.terminate()
                process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clipper", default=ROOT / "target/dist/clipper")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slo-ms", type=int, default=100)
    parser.add_argument("--models", nargs="*", default=["noop", "linear", "forest", "kernel"])
    options = parser.parse_args()
    seen = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for model in options.models:
                for kind, batch_size in KINDS.items():
                    best = measure(options, model, batch_size, Path(folder))
                    seen.setdefault((model, kind), []).append(best)
                    print(model, kind, best and best["goodput_per_s"], file=sys.stderr, flush=True)
    print(f"{'model':8} {'one by one/s':>13} {'adaptive/s':>11} {'ratio':>6} {'p99 ms':>7}")
    for model in options.models:
        rate = {}
        for kind in KINDS:
            rate[kind] = statistics.median(b["goodput_per_s"] if b else 0.0
                                           for b in seen[model, kind])
        p99 = statistics.median(b["prediction_latency"]["p99_ms"] if b else float("nan")
                                for b in seen[model, "adaptive"])
        one, many = rate["one by one"], rate["adaptive"]
        ratio = many / one if one else float("nan")
        print(f"{model:8} {one:13.0f} {many:11.0f} {ratio:6.2f} {p99:7.1f}")


if __name__ == "__main__":
    main()
