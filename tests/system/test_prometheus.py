"""A real Prometheus with the shipped config scrapes the server and its containers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import (
    ROOT,
    SUM_CONFIG,
    SUM_SOURCE,
    Server,
    container,
    get,
    process,
    server,
    until,
)
from ports import free_port

PROMETHEUS = ROOT / "deploy" / "prometheus"
TEXT = "text/plain;version=0.0.4"
APP = "simple-example"

FILE_SD = """
[metrics]
file_sd_path = "prometheus/containers/clipper.json"
"""

CONFIG = FILE_SD + SUM_CONFIG.replace("APPLICATION", APP)

pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="prometheus and promtool are not installed (Debian: the package prometheus)",
)


def promtool(*arguments: str | Path, page: str = "") -> tuple[int, str]:
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, input=page, text=True, capture_output=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


@contextmanager
def load(served: Server) -> Iterator[None]:
    """Predictions flow; every second one has been asked before."""
    stop = threading.Event()

    def ask() -> None:
        number = 0
        while not stop.wait(0.01):
            number += 1
            served.predict(APP, [float(number // 2)])

    asking = threading.Thread(target=ask)
    asking.start()
    yield
    stop.set()
    asking.join()


def shipped_config(folder: Path, served: Server) -> Path:
    """The shipped files with this server's ports and shorter intervals."""
    shutil.copytree(PROMETHEUS, folder, dirs_exist_ok=True)
    (folder / "containers" / "none.json").unlink()
    config = folder / "prometheus.yml"
    text = config.read_text()
    for port, address in (("1390", served.metrics), ("1337", served.query)):
        assert f'"127.0.0.1:{port}"' in text
        text = text.replace(f"127.0.0.1:{port}", address.removeprefix("http://"))
    text, intervals = re.subn(r"(scrape|evaluation)_interval: 10s", r"\1_interval: 1s", text)
    assert intervals == 2
    config.write_text(text)
    return config


def test_the_shipped_files_are_clean() -> None:
    for kind, file in (("config", "prometheus.yml"), ("rules", "rules/clipper.yml")):
        code, said = promtool("check", kind, PROMETHEUS / file)
        assert code == 0 and "SUCCESS" in said and "WARN" not in said, said


def test_targets_are_up_and_every_expression_has_data(tmp_path: Path) -> None:
    folder = tmp_path / "prometheus"
    with server(tmp_path, CONFIG) as served, load(served):
        config = shipped_config(folder, served)
        web, metrics_port = free_port(), free_port()
        # Both want the same port: the second finds another one and announces that.
        asked_for = {"CLIPPER_CONTAINER_METRICS_PORT": str(metrics_port)}
        arguments = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
        arguments += [f"--web.listen-address=127.0.0.1:{web}", "--log.level=warn"]
        with (
            container(served, tmp_path, "sum", SUM_SOURCE, **asked_for),
            process("prometheus", *arguments) as prometheus,
        ):
            url = f"http://127.0.0.1:{web}"

            def jobs() -> dict[str, list[str]]:
                assert prometheus.poll() is None, "prometheus ended"
                try:
                    page = json.loads(get(f"{url}/api/v1/targets"))
                except OSError:
                    return {}
                found: dict[str, list[str]] = {}
                for target in page["data"]["activeTargets"]:
                    up = found.setdefault(target["scrapePool"], [])
                    if target["health"] == "up":
                        up.append(target["labels"].get("replica", target["scrapeUrl"]))
                return found

            def up(containers: int) -> bool:
                found = jobs()
                sizes = [len(found.get(job, [])) for job in ("clipper", "clipper-query")]
                return [*sizes, len(found.get("clipper-containers", []))] == [1, 1, containers]

            until("three targets are up", lambda: up(1))
            with container(served, tmp_path, "sum", SUM_SOURCE, **asked_for):
                until("the container that joins is scraped", lambda: up(2))
                command = [sys.executable, str(ROOT / "deploy" / "check.py"), url, "--original"]
                done = subprocess.run(command, text=True, capture_output=True, timeout=90)
                assert done.returncode == 0, done.stdout + done.stderr
                assert re.match(r"\d\d+ targets and expressions asked, 0 faults", done.stdout)
            until("the one that left is not", lambda: jobs().get("clipper-containers") == ["0"])


def test_promtool_accepts_what_is_really_shown(tmp_path: Path) -> None:
    port = free_port()
    asked_for = {"CLIPPER_CONTAINER_METRICS_PORT": str(port)}
    with (
        server(tmp_path, CONFIG) as served,
        load(served),
        container(served, tmp_path, "sum", SUM_SOURCE, **asked_for),
    ):
        page = f"http://127.0.0.1:{port}/metrics"
        until("a target", lambda: "replica" in (tmp_path / CONFIG.split('"')[1]).read_text())
        until("a prediction", lambda: served.predict(APP, [1.5])["output"] == 1.5)
        code, said = promtool("check", "metrics", page=get(f"{served.query}/metrics", TEXT))
        assert (code, said) == (0, "")
        # Names of the original break rules of naming; nothing else may, and all of it parses.
        allowed = re.compile(r"(app|model|internal)_\S+ |clipper_mc_\S+_ms ")
        for url in (f"{served.metrics}/metrics", page):
            code, said = promtool("check", "metrics", page=get(url))
            wrong = [line for line in said.splitlines() if not allowed.match(line)]
            assert code in (0, 3) and not wrong, said


SCRAPING = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: clipper
    static_configs: [{{targets: ["{target}"]}}]
"""


def test_a_real_prometheus_keeps_a_request_of_each_bucket(tmp_path: Path) -> None:
    with server(tmp_path, CONFIG) as served, container(served, tmp_path, "sum", SUM_SOURCE):
        until("a prediction", lambda: served.predict(APP, [1.5])["output"] == 1.5)
        config = tmp_path / "scraping.yml"
        config.write_text(SCRAPING.format(target=served.query.removeprefix("http://")))
        web = free_port()
        arguments = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
        arguments += [f"--web.listen-address=127.0.0.1:{web}", "--log.level=warn"]
        arguments += ["--enable-feature=exemplar-storage"]
        with process("prometheus", *arguments), load(served):
            name = "clipper_prediction_duration_seconds_bucket"
            asked = f"http://127.0.0.1:{web}/api/v1/query_exemplars?query={name}&start=0&end=4e9"

            def kept() -> list[dict[str, dict[str, str]]]:
                try:
                    page = json.loads(get(asked))
                except OSError:
                    return []
                return [one for series in page["data"] for one in series["exemplars"]]

            found = until("an exemplar", kept)[0]
            request = found["labels"]["request_id"]
            assert re.fullmatch(r"[0-9a-f]{16}", request), found
            # It is the same text as for those who ask for no exemplars, with what makes the form.
            open_metrics = get(f"{served.query}/metrics", "application/openmetrics-text")
            assert open_metrics.endswith("# EOF\n") and f"{name}{{app=" in open_metrics
            assert " # {request_id=" in open_metrics
            assert " # {" not in get(f"{served.query}/metrics", TEXT)
