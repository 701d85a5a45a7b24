"""This server and mosec, or this server with the original's Python container, under wrk.

    python benches/python/peers.py --original clipper/containers/python --mosec PYTHON

--original names the folder of the original's rpc.py and noop_container.py (ucbrise/clipper), which
run as they are; --mosec a Python that has mosec. Needs wrk, and numpy and pyzmq for the
original's container. Kinds alternate; medians are printed. CPU is that of all processes of a kind, server
and container, by the operating system, divided by the requests; wrk's is not in it.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from models import ROOT, await_replica, config, listening

LUA = """
local n, base = 0, 0
math.randomseed(SEED)
base = math.random()
request = function()
  n = n + 1
  local x = SAME and 0.5 or base + n * 1e-6
  local body = string.format('{"KEY":[%.9f,2.5,3.5,4.5,5.5,6.5,7.5,8.5,9.5,10.5]}', x)
  return wrk.format("POST", "PATH", {["Content-Type"] = "application/json"}, body)
end
"""

MOSEC = """
from mosec import Server, Worker

class Noop(Worker):
    def forward(self, data):
        return [{"y": 0} for _ in data]

server = Server()
server.append_worker(Noop, num=1, max_batch_size=64, max_wait_time=WAIT_MS)
server.run()
"""


class Running:
    """A server with its model, its processes and how it is asked."""

    def __init__(self, processes, url, key, path):
        self.processes, self.url, self.key, self.path = processes, url, key, path

    def cpu_us(self):
        return sum(cpu_us(process.pid) for process in self.processes)

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()


def cpu_us(pid):
    """CPU time of a process, its threads and its descendants, microseconds."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        total += int((thread / "schedstat").read_text().split()[0]) / 1000
        for child in (thread / "children").read_text().split():
            total += cpu_us(int(child))
    return total


def ours(options, folder, command, name):
    data = folder / f"{name}-{time.monotonic_ns()}"
    path = folder / f"{name}.toml"
    path.write_text(config("noop", -1, 100))
    server = subprocess.Popen([options.clipper, "serve", "--config", path, "--data-dir", data],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    at = listening(server)
    host, port = at["rpc"].removeprefix("tcp://").split(":")
    env = {**os.environ, "CLIPPER_IP": host, "CLIPPER_PORT": port, "CLIPPER_MODEL_NAME": "noop",
           "CLIPPER_MODEL_VERSION": "1", "CLIPPER_INPUT_TYPE": "doubles",
           "CLIPPER_MODEL_PATH": str(folder)}
    container = subprocess.Popen([*command, *([at["rpc"]] if command[0] == str(options.clipper)
                                              else [])],
                                 env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    running = Running([server, container], at["query"], "input", "/bench/predict")
    try:
        await_replica(at["metrics"], 20)
    except BaseException:
        running.stop()
        raise
    return running


def with_original(options, folder):
    script = Path(options.original).resolve()
    # The container's own endpoint for metrics is off, as it is where several run on one host.
    start = ("import sys; sys.path.insert(0, sys.argv[1]); import rpc, noop_container as n;"
             "s = rpc.RPCService(collect_metrics=False); s.start(n.NoopContainer())")
    return ours(options, folder, [sys.executable, "-c", start, str(script)], "original")


def native(options, folder):
    command = [str(options.clipper), "container", "noop", "--name=noop", "--version=1", "--connect"]
    return ours(options, folder, command, "native")


def mosec(options, folder, wait_ms):
    (folder / "app.py").write_text(MOSEC.replace("WAIT_MS", str(wait_ms)))
    port = 28000 + wait_ms
    server = subprocess.Popen([options.mosec, folder / "app.py", "--port", str(port),
                               "--address", "127.0.0.1"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urllib.request.urlopen(url)
            break
        except OSError:
            time.sleep(0.1)
    return Running([server], url, "x", "/inference")


def wrk(running, connections, seconds, same, folder):
    script = (LUA.replace("SEED", str(time.monotonic_ns() % 1_000_000)).replace("KEY", running.key)
              .replace("PATH", running.path).replace("SAME", "true" if same else "false"))
    (folder / "load.lua").write_text(script)
    before = running.cpu_us()
    text = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s",
                           folder / "load.lua", running.url], stdout=subprocess.PIPE, text=True,
                          check=True).stdout
    used = running.cpu_us() - before
    requests = int(re.search(r"(\d+) requests in", text).group(1))
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    p99, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", text).groups()
    p99 = float(p99) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1))
    return {"rate": rate, "p99_ms": p99, "cpu_us": used / requests,
            "bad": int(bad.group(1)) if bad else 0}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clipper", type=Path, default=ROOT / "target/dist/clipper")
    parser.add_argument("--original", help="folder of the original's rpc.py")
    parser.add_argument("--mosec", help="a Python that has mosec")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    kinds = {"clipper, native no-op": lambda f: native(options, f)}
    if options.original:
        kinds["clipper, original's container"] = lambda f: with_original(options, f)
    if options.mosec:
        kinds["mosec, 64 or 1 ms"] = lambda f: mosec(options, f, 1)
        kinds["mosec, 64 or 2 ms"] = lambda f: mosec(options, f, 2)
    cases = [("miss", 64, False), ("miss", 1, False), ("hit", 64, True)]
    seen = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for kind, start in kinds.items():
                running = start(Path(folder))
                try:
                    wrk(running, 64, 2, False, Path(folder))
                    for case, connections, same in cases:
                        if not (same and kind.startswith("mosec")):
                            result = wrk(running, connections, options.seconds, same, Path(folder))
                            seen.setdefault((kind, case, connections), []).append(result)
                            print(kind, case, connections, result, file=sys.stderr, flush=True)
                finally:
                    running.stop()
    print(f"{'':30} {'case':>8} {'req/s':>8} {'min':>7} {'max':>7} {'p99 ms':>7} {'CPU us':>7} "
          f"{'not 200':>7}")
    for (kind, case, connections), results in sorted(seen.items(), key=lambda s: s[0][1:]):
        rates = [result["rate"] for result in results]
        middle = {key: statistics.median(r[key] for r in results) for key in results[0]}
        print(f"{kind:30} {case:>4} c{connections:<3} {middle['rate']:8.0f} {min(rates):7.0f} "
              f"{max(rates):7.0f} {middle['p99_ms']:7.2f} {middle['cpu_us']:7.1f} "
              f"{sum(r['bad'] for r in results):7}")


if __name__ == "__main__":
    main()
