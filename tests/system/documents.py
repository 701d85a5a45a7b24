"""The fenced blocks of the documents, and a terminal that runs them.

Commands run as they are written, by bash, in a folder that looks like the repository. Only what
belongs to one machine is put in the place of what a reader has: free ports for the usual ones, a
temporary folder for /var/lib/clipper, the debug build for the release build, short measurements
for long ones, and packages that are here already for those that pip would fetch.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import BINARY, ROOT, get, post, until
from leaks import Secrets, check, files_below
from ports import free_port

BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
FILE_NAME = re.compile(r"`(\w+\.(?:py|toml))`")
SERVICE = re.compile(
    r"\bclipper serve\b|-- serve\b|\bclipper_serving serve\b|^prometheus |\bpython (sum|iris)\.py"
)


@dataclass(frozen=True)
class Block:
    """One fenced block: where it is, its language, its text, the paragraph above it."""

    document: str
    line: int
    language: str
    text: str
    above: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"

    def commands(self) -> list[str]:
        """Its lines, continued ones joined, comments left out."""
        joined = self.text.replace("\\\n", " ").splitlines()
        lines = [line.split("  #", 1)[0].strip() for line in joined]
        return [line for line in lines if line and not line.startswith("#")]


def blocks(document: str) -> Iterator[Block]:
    text = (ROOT / document).read_text()
    for found in BLOCK.finditer(text):
        indent, language, body = found.groups()
        body = re.sub(f"^{indent}", "", body, flags=re.MULTILINE)
        above = text[: found.start()].rstrip().rsplit("\n\n", 1)[-1]
        yield Block(document, text.count("\n", 0, found.start()) + 1, language, body, above)


SHIM = """#!/bin/bash
# What the documents call {name}.
{body}
"""

SHIMS = {
    "clipper": """
if [ "$1" = bench ]; then
    arguments=("$@" --url "http://127.0.0.1:$PORT_1337" --warmup 0.1)
    for n in "${!arguments[@]}"; do
        [ "${arguments[n]}" = --duration ] && arguments[n+1]=0.3 && short=1
    done
    [ "${short:-}" ] || arguments+=(--duration 0.3)
    said=$("$BINARY" "${arguments[@]}" 2>&1) && code=0 || code=$?
    printf '%s\n' "$said"
    # A slow machine may have no rate that is fast enough, which is an answer as well.
    [[ $said == *"no rate had 99 %"* ]] && exit 0
    exit "$code"
fi
if [ "$1" = top ]; then
    arguments=("$@" --query-url "http://127.0.0.1:$PORT_1337"
        --management-url "http://127.0.0.1:$PORT_1338")
    for n in "${!arguments[@]}"; do
        [ "${arguments[n]}" = --interval ] && arguments[n+1]=0.3
    done
    [[ $* == *--* ]] && exec "$BINARY" "${arguments[@]}"
    # It draws in a terminal of its own until the key that ends it.
    (sleep 1; printf q; sleep 1) | "$PYTHON" "$IN_TERMINAL" "$BINARY" "${arguments[@]}"
    exit
fi
exec "$BINARY" "$@"
""",
    "cargo": """
[ "$1 $2 $3" = "run --release --" ] || { echo "not: cargo $*" >&2; exit 1; }
shift 3
exec clipper "$@"
""",
    "pip": """
[ "$1" = install ] && shift
exec "$PYTHON" -m pip install -q --no-deps --no-index --no-build-isolation --no-cache-dir \\
    --disable-pip-version-check --upgrade --target "$SITE" "$@"
""",
    "python": 'exec "$PYTHON" "$@"',
    "python3": 'exec "$PYTHON" "$@"',
    "prometheus": """
exec "$PROMETHEUS" "$@" --web.listen-address="127.0.0.1:$PORT_9090" \\
    --storage.tsdb.path="$SITE/../tsdb" --log.level=warn
""",
}


class Terminal:
    """Runs the commands of one document and remembers what the last one printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "here"
        self.site = folder / "site"
        shims = folder / "shims"
        for new in (self.folder, self.site, shims):
            new.mkdir()
        for part in ("config", "examples"):
            (self.folder / part).symlink_to(ROOT / part)
        shutil.copytree(ROOT / "deploy", self.folder / "deploy")
        # Building a package leaves files in its folder.
        without = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "tests")
        shutil.copytree(ROOT / "python", self.folder / "python", ignore=without)
        for name, body in SHIMS.items():
            (shims / name).write_text(SHIM.format(name=name, body=body.strip()))
            (shims / name).chmod(0o755)
        names = (1337, 1338, 1390, 7000, 9090, 6379)
        self.ports = {name: free_port() for name in names}
        self.places = {
            "/var/lib/clipper": str(folder / "lib"),
            "/var/backups/clipper": str(folder / "backup"),
            **{f"127.0.0.1:{usual}": f"127.0.0.1:{port}" for usual, port in self.ports.items()},
        }
        config = self.folder / "deploy" / "prometheus" / "prometheus.yml"
        text = self.here(config.read_text())
        config.write_text(re.sub(r"_interval: 10s", "_interval: 1s", text))
        port = {name: str(number) for name, number in self.ports.items()}
        self.env = {
            **os.environ,
            "PATH": f"{shims}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.site),
            "PYTHON": sys.executable,
            "BINARY": str(BINARY),
            "PROMETHEUS": shutil.which("prometheus") or "",
            "SITE": str(self.site),
            "PORT_1337": port[1337],
            "PORT_1338": port[1338],
            "PORT_9090": port[9090],
            "IN_TERMINAL": str(ROOT / "tests" / "e2e" / "terminal.py"),
            "CLIPPER_QUERY_ADDR": f"127.0.0.1:{port[1337]}",
            "CLIPPER_MANAGEMENT_ADDR": f"127.0.0.1:{port[1338]}",
            "CLIPPER_METRICS_ADDR": f"127.0.0.1:{port[1390]}",
            "CLIPPER_GRPC_ADDR": "127.0.0.1:0",
            "CLIPPER_RPC_ADDR": f"tcp://127.0.0.1:{port[7000]}",
            "CLIPPER_PORT": port[7000],
            "CLIPPER_MANAGEMENT_URL": f"http://127.0.0.1:{port[1338]}",
            "CLIPPER_LOG_FORMAT": "text",
        }
        self.running: dict[str, list[subprocess.Popen[str]]] = {}
        self.log = folder / "log"
        self.printed = ""
        self.last = ""

    def here(self, text: str) -> str:
        """The text with this terminal's places and ports."""
        for usual, own in self.places.items():
            text = text.replace(usual, own)
        return text

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(self.here(text))

    def run(self, command: str) -> str:
        """Runs it to its end, which has to be a good one; a service only until it serves."""
        self.last = command
        if SERVICE.search(command):
            self.start(command)
            return ""
        done = subprocess.run(
            ["bash", "-ec", self.here(command)],
            cwd=self.folder, env=self.env, text=True, capture_output=True, timeout=90,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert "does not provide the extra" not in done.stderr, done.stderr
        self.printed = done.stdout
        return done.stdout

    def succeeds(self, command: str) -> bool:
        """Whether it does by now; it is asked again if not."""
        done = subprocess.run(
            ["bash", "-ec", self.here(command)],
            cwd=self.folder, env=self.env, capture_output=True, timeout=90,
        )  # fmt: skip
        return done.returncode == 0

    def start(self, command: str) -> None:
        replicas = None if "serve" in command and "clipper_serving" not in command else 0
        if command.startswith("prometheus"):
            ready = lambda: "Ready" in self.page(f"http://127.0.0.1:{self.ports[9090]}/-/ready")  # noqa: E731
        elif replicas is None:
            ready = self.server_is_ready
        else:
            replicas = len(self.replicas())
            ready = lambda: len(self.replicas()) > replicas  # noqa: E731
        with self.log.open("a") as log:
            running = subprocess.Popen(
                ["bash", "-ec", f"exec env {self.here(command)}"],
                cwd=self.folder, env=self.env, stdout=log, stderr=log, start_new_session=True,
                text=True, preexec_fn=hear_interrupts,
            )  # fmt: skip
        self.running.setdefault(command, []).append(running)

        def serves() -> bool:
            assert running.poll() is None, f"{command} ended:\n{self.log.read_text()[-3000:]}"
            return ready()

        until(command, serves)

    def page(self, url: str) -> str:
        try:
            return get(url)
        except OSError:
            return ""

    def server_is_ready(self) -> bool:
        """It takes queries, and the containers that its config names have joined."""
        if not self.page(f"http://127.0.0.1:{self.ports[1337]}/readyz"):
            return False
        wanted = 0
        for config in re.findall(r"--config (\S+)", self.last):
            found = re.findall(r"^replicas = (\d+)|replicas = (\d+) }", self.config(config), re.M)
            wanted = sum(int(one or other) for one, other in found)
        return len(self.replicas()) >= wanted

    def config(self, name: str) -> str:
        return (self.folder / name).read_text()

    def replicas(self) -> list[str]:
        found: list[str] = self.admin("get_all_containers", {"verbose": False})
        return found

    def admin(self, verb: str, body: Any) -> Any:
        return post(f"http://127.0.0.1:{self.ports[1338]}/admin/{verb}", body)

    def stop(self, command: str) -> None:
        """As Ctrl-C in its terminal does."""
        for running in self.running.pop(command, []):
            os.killpg(running.pid, signal.SIGINT)
            try:
                running.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()

    def end(self) -> None:
        for command in reversed(list(self.running)):
            self.stop(command)
        # What is in the folder beside them the commands have put there.
        kept = [file for file in files_below(self.folder) if "journal" in file.parts]
        written = [*kept, *files_below(Path(self.places["/var/lib/clipper"]))]
        if self.log.exists():
            written.append(self.log)
        check({str(file): file.read_bytes() for file in written}, Secrets())

    def expect(self, block: Block) -> None:
        """What was printed is what the document shows.

        A busy machine may miss an objective; asked again, the answer is in the cache. The number
        of the query is another one then.
        """
        wanted = json.loads(block.text)
        found = json.loads(self.printed)
        deadline = time.monotonic() + 20
        asked_again = False
        while '"default":true' in self.printed and '"default":true' not in block.text:
            assert time.monotonic() < deadline, f"{block}: {self.printed}"
            found, asked_again = json.loads(self.run(self.last)), True
        if asked_again:
            wanted, found = without_query_ids(wanted), without_query_ids(found)
        assert found == wanted, f"{block}: {self.last} gives {self.printed}"


def hear_interrupts() -> None:
    """Ctrl-C ends what is started, also where these tests run in a background that ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def without_query_ids(answer: Any) -> Any:
    if isinstance(answer, list):
        return [without_query_ids(part) for part in answer]
    if isinstance(answer, dict):
        return {k: without_query_ids(v) for k, v in answer.items() if k != "query_id"}
    return answer


def words(command: str) -> list[str]:
    return shlex.split(command)
