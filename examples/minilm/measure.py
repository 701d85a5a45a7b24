"""Throughput and latency of a text model with batching and without, in one table.

Starts a server and one container of embed.py for each kind and loads it with `clipper bench`, in a
closed loop of different texts of 24 characters. Everything runs on this machine, the generator
included.
"""

import argparse
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

HERE = Path(__file__).resolve().parent

CONFIG = """
[[application]]
name = "minilm"
input_type = "strings"
default_output = "null"
latency_slo_micros = {slo}
model = "minilm"

[[model]]
name = "minilm"
version = "1"
input_type = "strings"
batch_size = {batch_size}
"""


def free_ports(number):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def process(command, **options):
    running = subprocess.Popen(command, **options)
    try:
        yield running
    finally:
        running.terminate()
        running.wait()


def metrics(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
            return page.read().decode()
    except OSError:
        return ""


def metric(port, name):
    found = re.search(rf"^{name}{{[^}}]*}} (\S+)$", metrics(port), re.M)
    return float(found[1]) if found else 0.0


def await_replica(port, *running):
    while metric(port, "clipper_replicas") < 1:
        if any(one.poll() is not None for one in running):
            raise SystemExit("the server or the container ended")
        time.sleep(0.1)


def measure(options, batch_size):
    """One row for each number of connections."""
    query, management, exporter, rpc = free_ports(4)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        config = Path(folder) / "clipper.toml"
        config.write_text(CONFIG.format(slo=options.slo_ms * 1000, batch_size=batch_size))
        serve = [options.clipper, "serve", "--config", str(config), "--data-dir", f"{folder}/data"]
        serve += ["--query-addr", f"127.0.0.1:{query}"]
        serve += ["--management-addr", f"127.0.0.1:{management}"]
        serve += ["--metrics-addr", f"127.0.0.1:{exporter}"]
        serve += ["--grpc-addr", "127.0.0.1:0"]
        serve += ["--rpc-addr", f"tcp://127.0.0.1:{rpc}"]
        log = stack.enter_context(open(Path(folder) / "log", "w"))
        server = stack.enter_context(process(serve, stderr=log))
        container = [sys.executable, "-m", "clipper_serving", "serve", f"{HERE}/embed.py:predict"]
        container += ["--name", "minilm", "--version", "1", "--input-type", "strings"]
        container += ["--port", str(rpc), "--metrics-port", "0", "--log-level", "warning"]
        # One core is the generator's and the server's.
        threads = str(max(1, (os.cpu_count() or 1) - 1))
        env = {"OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false", **os.environ}
        await_replica(
            exporter, server, stack.enter_context(process(container, env=env, stderr=log))
        )
        for connections in options.connections:
            before = [metric(exporter, f"clipper_model_batch_size_{n}") for n in ("sum", "count")]
            bench = [options.clipper, "bench", "--url", f"http://127.0.0.1:{query}", "--json"]
            bench += ["--app", "minilm", "--input-type", "strings", "--input-len", "24"]
            bench += ["--connections", str(connections), "--slo-ms", str(options.slo_ms)]
            bench += [
                "--timeout",
                "60",
                "--duration",
                str(options.seconds),
                "--warmup",
                str(options.warmup),
            ]
            report = json.loads(subprocess.run(bench, check=True, capture_output=True).stdout)
            after = [metric(exporter, f"clipper_model_batch_size_{n}") for n in ("sum", "count")]
            queries, batches = (b - a for a, b in zip(before, after))
            yield connections, queries / max(batches, 1), report


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clipper", default="clipper", help="the binary (clipper)")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=15, help="of each measurement (15)")
    parser.add_argument("--warmup", type=float, default=5, help="before each, seconds (5)")
    parser.add_argument("--slo-ms", type=int, default=20000, help="the objective (20000)")
    options = parser.parse_args()
    print("| batches | connections | mean batch | answers/s | p50, ms | p99, ms | defaults |")
    print("|---|---|---|---|---|---|---|")
    for name, batch_size in (("of one", 1), ("adaptive", -1)):
        for connections, mean, report in measure(options, batch_size):
            latency = report["prediction_latency"]
            rate = report["predictions"] / report["duration_s"]
            defaults = sum(report["defaults"].values())
            row = [name, connections, f"{mean:.1f}", f"{rate:.0f}"]
            row += [f"{latency['p50_ms']:.1f}", f"{latency['p99_ms']:.1f}", defaults]
            print("|", " | ".join(map(str, row)), "|", flush=True)


if __name__ == "__main__":
    main()
