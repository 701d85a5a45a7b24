"""Many streams at the same time: the time to the first piece, and the gaps between pieces.

    python examples/streaming/measure.py [--clipper PATH] [--streams 200] [--pieces 50]

Starts a server with one container whose asynchronous generator yields a piece every ``gap-ms``,
opens all streams at once over server-sent events, and prints one line of figures. The container
needs pyzmq and numpy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

MODEL = """
import asyncio
from clipper_serving import streams

@streams(STREAMS)
async def generate(text):
    for number in range(PIECES):
        await asyncio.sleep(GAP_MS / 1000)
        yield f" {number}"
"""

CONFIG = """
[[application]]
name = "chat"
input_type = "strings"
default_output = "none"
latency_slo_micros = 30000000
model = "chat"

[[model]]
name = "chat"
version = "1"
input_type = "strings"

[model.container]
runtime = "python"
function = '{file}:generate'
python = '{python}'
"""


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


async def stream(port: int, number: int) -> tuple[float, list[float], str]:
    """Seconds to the first piece, the gaps between pieces, and how it ended."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"input": str(number)})
    writer.write(
        "POST /chat/predict HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    first, last, gaps, ended = 0.0, 0.0, [], ""
    while not ended:
        line = (await reader.readline()).decode()
        if not line:
            break
        if line.startswith('data: {"output"'):
            now = time.perf_counter()
            if last:
                gaps.append(now - last)
            else:
                first = now - began
            last = now
        elif line.startswith('data: {"query_id"'):
            ended = json.loads(line[6:])["end"]
    writer.close()
    return first, gaps, ended


def at(values: list[float], share: float) -> float:
    values = sorted(values)
    return values[min(int(len(values) * share), len(values) - 1)] * 1e3


def table(what: str, values: list[float]) -> str:
    shares = ", ".join(f"p{int(s * 100)} {at(values, s):.1f}" for s in (0.5, 0.9, 0.99))
    return f"{what} ms: {shares}, max {max(values) * 1e3:.1f}"


async def all_streams(port: int, count: int) -> None:
    began = time.perf_counter()
    told = await asyncio.gather(*(stream(port, number) for number in range(count)))
    took = time.perf_counter() - began
    ends = {
        end: sum(1 for one in told if one[2] == end) for end in {one[2] for one in told}
    }
    gaps = [gap for one in told for gap in one[1]]
    print(f"{count} streams, {len(gaps) + count} pieces in {took:.2f} s; ended: {ends}")
    print(table("first piece", [one[0] for one in told]))
    print(table("gap", gaps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clipper", default="target/release/clipper")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--pieces", type=int, default=50)
    parser.add_argument("--gap-ms", type=float, default=20)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    model = MODEL.replace("STREAMS", str(options.streams)).replace(
        "PIECES", str(options.pieces)
    )
    (folder / "chat.py").write_text(model.replace("GAP_MS", str(options.gap_ms)))
    config = CONFIG.format(file=folder / "chat.py", python=sys.executable)
    (folder / "clipper.toml").write_text(config)
    query, management, metrics, rpc, grpc = free_ports(5)
    ports = {
        "query": query,
        "management": management,
        "metrics": metrics,
        "rpc": rpc,
        "grpc": grpc,
    }
    command = [options.clipper, "serve", "--config", str(folder / "clipper.toml")]
    for name, port in ports.items():
        scheme = "tcp://" if name == "rpc" else ""
        command += [f"--{name}-addr", f"{scheme}127.0.0.1:{port}"]
    command += ["--data-dir", str(folder / "data")]
    env = {
        **os.environ,
        "CLIPPER_HTTP__DRAIN_DELAY_MS": "0",
        "CLIPPER_RPC__LANES_MAX": "4096",
    }
    log = (folder / "log").open("wb")
    process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        for _ in range(600):
            try:
                url = f"http://127.0.0.1:{metrics}/metrics"
                if (
                    'clipper_replicas{model="chat",version="1"} 1'
                    in urllib.request.urlopen(url).read().decode()
                ):
                    break
            except OSError:
                pass
            time.sleep(0.05)
        asyncio.run(all_streams(query, options.streams))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


if __name__ == "__main__":
    main()
