"""The table of docs/migrate-from-clipper.md, tried: the original's tools and ours on one server.

Needs clipper_admin 0.4.1 in this interpreter, or in the one that CLIPPER_TEST_ORIGINAL_PYTHON
names. What a replica on the original's own rpc.py shows is skipped unless CLIPPER_TEST_ORIGINAL_RPC
names the folder containers/python of ucbrise/clipper, which is in no package.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from clipper_serving import Admin, Client

from harness import ROOT, SUM_SOURCE, Server, container, get, post, process, server, until

HERE = Path(__file__).parent
HAS_ADMIN = importlib.util.find_spec("clipper_admin") is not None
PYTHON = os.environ.get("CLIPPER_TEST_ORIGINAL_PYTHON") or (sys.executable if HAS_ADMIN else "")
RPC = os.environ.get("CLIPPER_TEST_ORIGINAL_RPC", "")

pytestmark = pytest.mark.skipif(
    not PYTHON, reason="clipper_admin 0.4.1 is not installed (scripts/test-requirements-alone.txt)"
)
needs_rpc = pytest.mark.skipif(
    not RPC, reason="CLIPPER_TEST_ORIGINAL_RPC does not name the original's containers/python"
)


class Original:
    """The original's ClipperConnection, in its own process."""

    def __init__(self, running: subprocess.Popen[bytes]) -> None:
        self._process = running

    def __getattr__(self, method: str) -> Any:
        def call(*arguments: Any) -> Any:
            assert self._process.stdin and self._process.stdout
            self._process.stdin.write(json.dumps([method, *arguments]).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            assert line, f"clipper_admin ended at {method}"
            result = json.loads(line)
            assert not (isinstance(result, dict) and "raised" in result), (method, result)
            return result

        return call


@contextmanager
def original_admin(served: Server) -> Iterator[Original]:
    addresses = [url.removeprefix("http://") for url in (served.query, served.management)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with process(PYTHON, HERE / "original_admin.py", *addresses, **pipes) as running:
        yield Original(running)


Replica = Callable[[Server, Path], Any]
"""Starts a replica of ``sum:1``."""


def our_container(served: Server, folder: Path) -> Any:
    return container(served, folder, "sum", SUM_SOURCE)


def original_container(served: Server, _folder: Path) -> Any:
    env = {
        "CLIPPER_MODEL_NAME": "sum",
        "CLIPPER_MODEL_VERSION": "1",
        "CLIPPER_IP": "127.0.0.1",
        "CLIPPER_PORT": str(served.rpc_port),
        "CLIPPER_INPUT_TYPE": "doubles",
        "CLIPPER_MODEL_PATH": "/",
        "PYTHONUNBUFFERED": "1",
    }
    script = HERE / "original_container.py"
    return process(PYTHON, script, RPC, env={**os.environ, **env}, stdout=subprocess.DEVNULL)


def answer(served: Server, app: str, value: list[float]) -> Any:
    """The model's answer; on a busy machine a first one may miss its objective."""

    def asked() -> Any:
        found = served.predict(app, value)
        return None if found["default"] else found

    return until(f"{app} answers", asked)["output"]


def same(old: Any, new: Any) -> None:
    """Both administrations see the same, whatever was done by which."""
    for method, *arguments in (
        ("get_all_apps", True),
        ("get_all_apps",),
        ("get_all_models", True),
        ("get_all_models",),
        ("get_all_model_replicas", True),
        ("get_all_model_replicas",),
        ("get_app_info", "old"),
        ("get_app_info", "new"),
        ("get_app_info", "none"),
        ("get_linked_models", "old"),
        ("get_linked_models", "new"),
        ("get_model_info", "sum", "1"),
        ("get_model_info", "none", "1"),
        ("get_current_model_version", "sum"),
        ("get_model_replica_info", "sum", "1", 0),
        ("get_query_addr",),
    ):
        ours, theirs = getattr(new, method)(*arguments), getattr(old, method)(*arguments)
        assert ours == theirs, (method, arguments)


replicas = pytest.mark.parametrize(
    "replica",
    [our_container, pytest.param(original_container, marks=needs_rpc)],
    ids=["beside the package", "beside rpc.py"],
)


@replicas
def test_both_administrations_on_one_server(tmp_path: Path, replica: Replica) -> None:
    with server(tmp_path, "") as served, original_admin(served) as old:
        new = Admin(served.management, query_url=served.query)
        old.register_application("old", "doubles", "-1.0", 2000000)
        new.register_application("new", "doubles", "-1.0", 2000000)
        old.register_model("sum", "1", "doubles")
        new.register_model("sum", "2", "doubles")
        new.link_model_to_app("old", "sum")
        old.link_model_to_app("new", "sum")
        with replica(served, tmp_path), our_container(served, tmp_path):
            until("two replicas", lambda: new.get_num_replicas("sum", "1") == 2)
            same(old, new)
            assert old.get_current_model_version("sum") == "2"
            old.set_model_version("sum", "1")
            assert new.get_current_model_version("sum") == "1"
            for number in range(50):
                assert answer(served, "old", [number, 0.5]) == number + 0.5
                assert answer(served, "new", [number, 0.25]) == number + 0.25
            update = {"uid": 0, "input": [1.0], "label": 1.0}
            assert post(f"{served.query}/old/update", update) is not None
            assert Client(served.query).predict("old", [3.0, 4.0]).output == 7
            busy = [line for line in get(f"{served.metrics}/metrics").splitlines()
                    if line.startswith("clipper_replica_predictions_total{")]  # fmt: skip
            assert len(busy) == 2, "both kinds of replica answered"
            assert old.inspect_instance().keys() == new.inspect_instance().keys()
        same(old, new)
        new.stop_models(["sum"])
        assert old.get_all_models() == []
        old.unlink_model_from_app("old", "sum")
        new.unregister_application("new")
        old.delete_application("old")
        assert new.get_all_apps() == old.get_all_apps() == []


@replicas
def test_a_stopped_model_ends_its_connections(tmp_path: Path, replica: Replica) -> None:
    with server(tmp_path, "") as served, original_admin(served) as old:
        new = Admin(served.management)
        old.register_model("sum", "1", "doubles")
        with replica(served, tmp_path), our_container(served, tmp_path):
            until("two replicas", lambda: new.get_num_replicas("sum", "1") == 2)
            new.stop_models(["sum"])
            until("no replicas are listed", lambda: new.get_all_model_replicas() == [])


def test_a_closure_of_clipper_admin_is_served(tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    with server(tmp_path, "") as served, original_admin(served) as old:
        folder = old.save_python_function()
        old.register_application("closure", "doubles", "-1.0", 2000000)
        old.register_model("closure", "1", "doubles")
        old.link_model_to_app("closure", "closure")
        command = [sys.executable, "-m", "clipper_serving", "serve", folder]
        command += ["--name", "closure", "--version", "1", "--metrics-port", "0"]
        env = {"PYTHONPATH": str(ROOT / "python" / "src"), "CLIPPER_PORT": str(served.rpc_port)}
        with process(*command, env={**os.environ, **env}):
            assert answer(served, "closure", [1.0, 2.5]) == 3.5
