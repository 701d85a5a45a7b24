"""The command line as a process: serving, signals, the lifeline, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import DEADLINE_SECONDS, FakeServer, wait_until

MODEL = """
import sys, time
from clipper_serving import container

@container(name="decorated", version=5, input_type="strings")
def upper(texts):
    return [text.upper() for text in texts]

def total(xs):
    return [x.sum() for x in xs]

def shape(xs):
    return [str(type(xs).__name__)] * len(xs)

def stuck(xs):
    print("stuck now", file=sys.stderr, flush=True)
    while True:
        time.sleep(1)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    return path


class Processes:
    """Starts the command line; ends what is left when the test ends."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("CLIPPER_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "clipper_serving", *arguments],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**clean, "CLIPPER_CONTAINER_METRICS_PORT": "0", **env},
        )
        self.running.append(process)
        return process

    def run(self, *arguments: str, **env: str) -> tuple[int, str]:
        process = self.start(*arguments, **env)
        _, errors = process.communicate(timeout=DEADLINE_SECONDS)
        return process.returncode, errors


@pytest.fixture
def cli() -> Iterator[Processes]:
    processes = Processes()
    yield processes
    for process in processes.running:
        with process:
            process.kill()


def ended(process: subprocess.Popen[Any]) -> int:
    return process.wait(DEADLINE_SECONDS)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """The first line on standard error that holds ``text``."""
    assert process.stderr is not None
    # One that says nothing and does not end must not hold up all tests.
    late = threading.Timer(DEADLINE_SECONDS, process.kill)
    late.start()
    try:
        for line in iter(process.stderr.readline, ""):
            if text in line:
                return line
    finally:
        late.cancel()
    raise AssertionError(f"the process ended without saying {text!r}")


def test_options_of_the_command_line(cli: Processes, server: FakeServer, model: Path) -> None:
    options = ["--name", "m", "--version", "2", "--port", str(server.port)]
    cli.start("serve", f"{model}:total", *options)
    replica = server.handshake()
    assert (replica.name, replica.version, replica.input_type) == ("m", "2", "3")
    assert server.predict(replica.identity, 3, [[1, 2], [3]]) == ["3.0", "3.0"]


def test_the_environment_of_clipper(cli: Processes, server: FakeServer, model: Path) -> None:
    cli.start(
        "serve",
        CLIPPER_MODEL_NAME="m",
        CLIPPER_MODEL_VERSION="9",
        CLIPPER_IP="127.0.0.1",
        CLIPPER_PORT=str(server.port),
        CLIPPER_INPUT_TYPE="ints",
        CLIPPER_MODEL_PATH=f"{model}:total",
    )
    replica = server.handshake()
    assert (replica.name, replica.version, replica.input_type) == ("m", "9", "1")
    assert server.predict(replica.identity, 1, [[1, 2]]) == ["3"]


def test_the_decorator_gives_what_the_options_do_not(
    cli: Processes, server: FakeServer, model: Path
) -> None:
    cli.start("serve", f"{model}:upper", "--port", str(server.port), "--version", "6")
    replica = server.handshake()
    assert (replica.name, replica.version, replica.input_type) == ("decorated", "6", "4")
    assert server.predict(replica.identity, 4, [b"abc"]) == ["ABC"]


def test_stacking_by_option(cli: Processes, server: FakeServer, model: Path) -> None:
    options = ["--name", "m", "--version", "1", "--port", str(server.port), "--stacked"]
    cli.start("serve", f"{model}:shape", *options)
    replica = server.handshake()
    assert server.predict(replica.identity, 3, [[1]]) == ["ndarray"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly(
    cli: Processes, server: FakeServer, model: Path, number: signal.Signals
) -> None:
    process = cli.start("serve", f"{model}:upper", "--port", str(server.port))
    server.handshake()
    process.send_signal(number)
    assert ended(process) == 0


def test_it_ends_while_no_server_is_there(cli: Processes, model: Path) -> None:
    with socket.socket() as silent:
        # Bound, and not listening: nobody else gets the port meanwhile.
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        process = cli.start("serve", f"{model}:upper", "--port", str(port))
        read_until(process, "cannot connect")
        process.send_signal(signal.SIGTERM)
        assert ended(process) == 0


def test_a_signal_at_any_moment_of_waiting_is_heard() -> None:
    """Thousands of moments: with an ``Event`` a few of them hang for ever."""
    script = """
import signal, threading, os
from clipper_serving.stopping import StopSignal
for _ in range(3000):
    stop = StopSignal()
    signal.signal(signal.SIGALRM, lambda *_: stop.set())
    signal.setitimer(signal.ITIMER_REAL, 0.00005)
    while not stop.wait(0):
        pass
    stop._reader.close(), stop._writer.close()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=DEADLINE_SECONDS)


def test_a_second_signal_ends_a_stuck_model(
    cli: Processes, server: FakeServer, model: Path
) -> None:
    options = ["--name", "m", "--version", "1", "--port", str(server.port)]
    process = cli.start("serve", f"{model}:stuck", *options)
    server.send_batch(server.handshake().identity, 3, [[1]])
    read_until(process, "stuck now")

    def terminated() -> bool:
        process.send_signal(signal.SIGTERM)
        return process.poll() is not None

    wait_until(terminated, "its end")
    assert process.returncode == -signal.SIGTERM


def test_it_ends_with_its_parent(cli: Processes, server: FakeServer, model: Path) -> None:
    process = cli.start(
        "serve", f"{model}:upper", "--port", str(server.port), CLIPPER_LIFELINE="stdin"
    )
    server.handshake()
    assert process.stdin is not None
    process.stdin.close()
    assert ended(process) == 0


def test_a_stuck_model_ends_with_its_parent(
    cli: Processes, server: FakeServer, model: Path
) -> None:
    options = ["--name", "m", "--version", "1", "--port", str(server.port)]
    process = cli.start("serve", f"{model}:stuck", *options, CLIPPER_LIFELINE="stdin")
    server.send_batch(server.handshake().identity, 3, [[1]])
    read_until(process, "stuck now")
    assert process.stdin is not None
    process.stdin.close()
    assert ended(process) == 1


def test_the_end_of_input_means_nothing_without_a_lifeline(
    cli: Processes, server: FakeServer, model: Path
) -> None:
    process = cli.start("serve", f"{model}:upper", "--port", str(server.port))
    assert process.stdin is not None
    process.stdin.close()
    replica = server.handshake()
    assert server.predict(replica.identity, 4, [b"a"]) == ["A"]


def test_metrics_are_on_by_default_and_say_where(
    cli: Processes, server: FakeServer, model: Path
) -> None:
    process = cli.start(
        "serve",
        f"{model}:upper",
        "--port",
        str(server.port),
        CLIPPER_CONTAINER_METRICS_PORT="",
    )
    line = read_until(process, "metrics on")
    assert re.search(r"http://127\.0\.0\.1:\d+/metrics", line)


@pytest.mark.parametrize(
    ("source", "code", "reason"),
    [
        ("import a_module_nobody_has\n", 3, "-m pip install a_module_nobody_has"),
        ("import yaml_nobody_has.part\n", 3, "-m pip install yaml_nobody_has"),
        ("raise RuntimeError('on import')\n", 1, "RuntimeError: on import"),
        ("import sys\nsys.exit(7)\n", 7, ""),
        ("other = 1\n", 1, "no function 'predict'"),
    ],
)
def test_models_that_cannot_be_loaded(
    cli: Processes, tmp_path: Path, source: str, code: int, reason: str
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    returned, errors = cli.run("serve", f"{path}:predict", "--name", "m", "--version", "1")
    assert returned == code
    assert reason in errors


def test_missing_settings_are_named(cli: Processes, model: Path) -> None:
    code, errors = cli.run("serve", f"{model}:total", "--name", "m")
    assert (code, "CLIPPER_MODEL_VERSION" in errors) == (1, True)
    saved = model.with_name("iris.joblib")
    saved.write_text("not one that could be loaded")
    code, errors = cli.run("serve", str(saved), "--name", "m")
    assert (code, "CLIPPER_MODEL_VERSION" in errors, "loading" in errors) == (1, True, False)
    code, errors = cli.run("serve")
    assert (code, "CLIPPER_MODEL_PATH" in errors) == (1, True)
    assert cli.run()[0] == 2


def test_a_supervised_container_is_what_the_server_has_started(
    cli: Processes, server: FakeServer, model: Path
) -> None:
    cli.start(
        "serve",
        f"{model}:upper",
        CLIPPER_LIFELINE="stdin",
        CLIPPER_MODEL_NAME="m",
        CLIPPER_MODEL_VERSION="9",
        CLIPPER_INPUT_TYPE="strings",
        CLIPPER_PORT=str(server.port),
        CLIPPER_CONTAINER_METRICS_PORT="",
    )
    replica = server.handshake()
    assert (replica.name, replica.version, replica.input_type) == ("m", "9", "4")
    found = re.match(rb"clipper-metrics=127\.0\.0\.1:(\d+);", replica.identity)
    assert found and int(found[1]) != 1390


SLOW = """
import time
time.sleep(0.6)
def predict(xs):
    return xs
"""


def test_a_slow_import_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "slow.py"
    path.write_text(SLOW)
    script = (
        "import sys\nfrom clipper_serving import cli\ncli.PROGRESS_SECONDS = 0.1\n"
        f"sys.exit(cli.main(['serve', {str(path)!r} + ':nothing']))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert done.returncode == 1
    assert f"loading {path}:nothing" in done.stderr
    assert f"still loading {path}:nothing after " in done.stderr


HELPERS = """
import multiprocessing, os, subprocess, sys

def forever():
    import time
    while True:
        time.sleep(1)

helper = multiprocessing.get_context("fork").Process(target=forever)
helper.start()
other = subprocess.Popen(["sleep", "600"])

def predict(xs):
    return [[helper.pid, other.pid]] * len(xs)
"""


def test_what_a_model_has_started_ends_with_its_parent(
    cli: Processes, server: FakeServer, tmp_path: Path
) -> None:
    path = tmp_path / "helpers.py"
    path.write_text(HELPERS)
    options = ["--name", "m", "--version", "1", "--port", str(server.port)]
    process = cli.start("serve", f"{path}:predict", *options, CLIPPER_LIFELINE="stdin")
    (answer,) = server.predict(server.handshake().identity, 3, [[1]])
    pids = json.loads(answer)
    assert process.stdin is not None
    process.stdin.close()
    ended(process)
    wait_until(lambda: not any(is_running(pid) for pid in pids), "the end of the helpers")


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return not stat.rpartition(") ")[2].startswith("Z")


@pytest.mark.parametrize("module", ["zmq", "numpy"])
def test_a_python_without_what_it_needs(module: str) -> None:
    script = (
        f"import sys\nsys.modules[{module!r}] = None\n"
        "from clipper_serving.__main__ import start\nsys.exit(start())"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert done.returncode == 1
    assert f"{sys.executable} -m pip install pyzmq numpy" in done.stderr
