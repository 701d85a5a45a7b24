"""The real server with a config file of its own, for the examples of this folder."""

import http.client
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def application(name, models, policy, slo_ms=20_000):
    """Its part of a config file; the policy as lines of TOML."""
    return (
        f'[[application]]\nname = "{name}"\ninput_type = "doubles"\ndefault_output = "-1"\n'
        f"latency_slo_micros = {slo_ms * 1000}\nmodels = {json.dumps(models)}\n"
        f"[application.policy]\n{policy}\n\n"
    )


def model(name, function):
    """Its part of a config file: a function of a file of this folder, in a container."""
    return (
        f'[[model]]\nname = "{name}"\nversion = "1"\ninput_type = "doubles"\ncache = false\n'
        f'[model.container]\nruntime = "python"\nfunction = "{FOLDER}/{function}"\n'
        f"python = {json.dumps(sys.executable)}\n\n"
    )


class Server:
    """A server with its folder, and the environment of its containers."""

    def __init__(self, clipper, folder, config, environment):
        self.folder = folder
        passed = json.dumps([*environment, "PATH"])
        file = folder / "clipper.toml"
        file.write_text(f"{config}\n[containers]\npass_environment = {passed}\n")
        command = [clipper, "serve", "--config", str(file), "--data-dir", str(folder / "data")]
        for flag in ("--query-addr", "--management-addr", "--metrics-addr", "--grpc-addr"):
            command += [flag, "127.0.0.1:0"]
        command += ["--rpc-addr", "tcp://127.0.0.1:0"]
        self.log = open(folder / "log", "w+")
        environment = {**os.environ, **environment}
        self.process = subprocess.Popen(command, stderr=self.log, env=environment)
        self.address = None
        self.connection = None

    def line(self, text):
        return next((line for line in Path(self.log.name).open() if text in line), None)

    def wait(self, what, condition, limit=300):
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end or self.process.poll() is not None:
                sys.exit(f"{what}: not in {limit} s\n" + Path(self.log.name).read_text()[-4000:])
            time.sleep(0.05)

    def start(self, replicas):
        """Waits until so many models have a replica."""
        self.wait("the server listens", lambda: self.line("listening"))
        address = re.search(r"query=(?:http://)?([\d.]+):(\d+)", self.line("listening"))
        self.address = (address[1], int(address[2]))
        self.connection = self.connect()
        self.wait("all models serve", lambda: self.replicas() == replicas)

    def connect(self):
        return http.client.HTTPConnection(*self.address, timeout=60)

    def replicas(self):
        return len(re.findall(r'clipper_replicas\{model="\w+",version="1"\} 1', self.metrics()))

    def metrics(self):
        # By a connection of its own: the server closes those that are silent for a while.
        connection = self.connect()
        connection.request("GET", "/metrics", headers={"Accept": "text/plain"})
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def post(self, path, body, connection=None):
        connection = connection or self.connection
        headers = {"Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read().decode()
        if response.status != 200:
            sys.exit(f"{path}: {response.status} {text}")
        return json.loads(text) if text.startswith("{") else text

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()
