#!/usr/bin/env python3
"""Many streams at the same time: the time to the first piece, and the gaps between pieces.

    python examples/streaming/measure.py [--clipper PATH] [--streams 200] [--pieces 50] [--rounds 1]

Starts a server with one container whose asynchronous generator yields a piece every ``gap-ms``,
opens all streams at once over server-sent events, and prints one line of figures. The container
needs pyzmq and numpy. Beside LitServe and mosec, one process of each on the same generator:

    python3 -m venv /tmp/peers
    /tmp/peers/bin/pip install litserve==0.2.19 mosec==0.9.8 pyzmq numpy
    /tmp/peers/bin/python examples/streaming/measure.py --beside litserve,mosec --rounds 3
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
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, NamedTuple

GENERATOR = """
import asyncio

async def pieces():
    for number in range(PIECES):
        await asyncio.sleep(GAP_MS / 1000)
        yield f" {number}"
"""

CLIPPER = """
from clipper_serving import streams
from generator import pieces

@streams(STREAMS)
async def generate(text):
    async for piece in pieces():
        yield piece
"""

LITSERVE = """
import sys
import litserve
from generator import pieces

class Chat(litserve.LitAPI):
    def setup(self, device):
        pass

    async def decode_request(self, request):
        return request["input"]

    async def predict(self, text):
        async for piece in pieces():
            yield piece

    async def encode_response(self, output):
        async for piece in output:
            yield f"data: {piece}\\n\\n"

if __name__ == "__main__":
    api = Chat(stream=True, enable_async=True)
    server = litserve.LitServer(api, accelerator="cpu", timeout=False)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
"""

# A batch of it begins together and ends together, so that it waits a moment for all.
MOSEC = """
import asyncio
from mosec import Server, SSEWorker
from generator import pieces

class Chat(SSEWorker):
    def forward(self, data):
        async def one(index):
            async for piece in pieces():
                self.send_stream_event(piece, index=index)

        async def each():
            await asyncio.gather(*(one(index) for index in range(len(data))))

        asyncio.run(each())
        return data

if __name__ == "__main__":
    server = Server()
    server.append_worker(Chat, max_batch_size=STREAMS, max_wait_time=WAIT_MS)
    server.run()
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

PATIENCE_SECONDS = 120.0


class Served(NamedTuple):
    """Where streams are asked for."""

    port: int
    path: str


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


async def stream(served: Served, number: int, pieces: int) -> tuple[float, list[float], str]:
    """Seconds to the first piece, the gaps between pieces, and how it ended."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    body = json.dumps({"input": str(number)})
    writer.write(
        f"POST {served.path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
        "Content-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    first, last, gaps, said = 0.0, 0.0, [], ""
    while line := (await reader.readline()).decode():
        said = said or line.strip()
        # Clipper's last event says how the answer ended.
        if not line.startswith("data:") or '"query_id"' in line:
            continue
        now = time.perf_counter()
        if last:
            gaps.append(now - last)
        else:
            first = now - began
        last = now
    writer.close()
    return first, gaps, "complete" if len(gaps) + 1 == pieces else said


def at(values: list[float], share: float) -> float:
    values = sorted(values)
    return values[min(int(len(values) * share), len(values) - 1)] * 1e3


def table(what: str, values: list[float]) -> str:
    shares = ", ".join(f"p{int(s * 100)} {at(values, s):.1f}" for s in (0.5, 0.9, 0.99))
    return f"{what} ms: {shares}, max {max(values) * 1e3:.1f}"


async def all_streams(name: str, served: Served, count: int, pieces: int) -> None:
    began = time.perf_counter()
    told = await asyncio.gather(*(stream(served, number, pieces) for number in range(count)))
    took = time.perf_counter() - began
    ends = {end: sum(1 for one in told if one[2] == end) for end in {one[2] for one in told}}
    gaps = [gap for one in told for gap in one[1]]
    print(f"{name}: {count} streams, {len(gaps) + count} pieces in {took:.2f} s; ended: {ends}")
    print(f"{name}: " + table("first piece", [one[0] for one in told]))
    print(f"{name}: " + table("gap", gaps), flush=True)


@contextmanager
def running(command: list[str], folder: Path, **env: str) -> Iterator[None]:
    """A process in a group of its own, which ends with the block."""
    with (folder / f"{Path(command[0]).name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **env},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def until_answered(url: str, text: str = "") -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if text in urllib.request.urlopen(url).read().decode():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"{url} does not answer")


@contextmanager
def clipper(folder: Path, program: str) -> Iterator[Served]:
    config = CONFIG.format(file=folder / "chat.py", python=sys.executable)
    (folder / "clipper.toml").write_text(config)
    query, management, metrics, rpc, grpc = free_ports(5)
    ports = {"query": query, "management": management, "metrics": metrics, "grpc": grpc}
    command = [program, "serve", "--config", str(folder / "clipper.toml")]
    for name, port in ports.items():
        command += [f"--{name}-addr", f"127.0.0.1:{port}"]
    command += ["--rpc-addr", f"tcp://127.0.0.1:{rpc}", "--data-dir", str(folder / "data")]
    env = {"CLIPPER_HTTP__DRAIN_DELAY_MS": "0", "CLIPPER_RPC__LANES_MAX": "4096"}
    with running(command, folder, **env):
        ready = 'clipper_replicas{model="chat",version="1"} 1'
        until_answered(f"http://127.0.0.1:{metrics}/metrics", ready)
        yield Served(query, "/chat/predict")


@contextmanager
def litserve(folder: Path) -> Iterator[Served]:
    (port,) = free_ports(1)
    with running([sys.executable, str(folder / "lit.py"), str(port)], folder):
        until_answered(f"http://127.0.0.1:{port}/health", "ok")
        yield Served(port, "/predict")


@contextmanager
def mosec(folder: Path) -> Iterator[Served]:
    (port,) = free_ports(1)
    command = [sys.executable, str(folder / "mos.py"), "--port", str(port), "--timeout", "600000"]
    with running([*command, "--address", "127.0.0.1"], folder):
        until_answered(f"http://127.0.0.1:{port}/metrics")
        yield Served(port, "/inference")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clipper", default="target/release/clipper")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--pieces", type=int, default=50)
    parser.add_argument("--gap-ms", type=float, default=20)
    parser.add_argument("--beside", default="", help="litserve, mosec")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--mosec-wait-ms", type=int, default=100)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    values = {
        "STREAMS": options.streams,
        "PIECES": options.pieces,
        "GAP_MS": options.gap_ms,
        "WAIT_MS": options.mosec_wait_ms,
    }
    sources = {"generator": GENERATOR, "chat": CLIPPER, "lit": LITSERVE, "mos": MOSEC}
    for name, source in sources.items():
        for word, value in values.items():
            source = source.replace(word, str(value))
        (folder / f"{name}.py").write_text(source)
    program = str(Path(options.clipper).resolve())
    servers = {
        "clipper": lambda: clipper(folder, program),
        "litserve": lambda: litserve(folder),
        "mosec": lambda: mosec(folder),
    }
    for _ in range(options.rounds):
        for name in ["clipper", *filter(None, options.beside.split(","))]:
            with servers[name]() as served:
                # What is made at the first stream is made.
                asyncio.run(stream(served, 0, options.pieces))
                asyncio.run(all_streams(name, served, options.streams, options.pieces))


if __name__ == "__main__":
    main()
