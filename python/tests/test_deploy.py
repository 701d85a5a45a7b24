"""Registering twice, and deploying, against recorded answers of the management frontend."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeHttp
from test_admin import APP, MODELS, model, replica

from clipper_serving import Admin, AdminError

EXISTS = "An application with this name already exists"
DONE = {"stage": "done", "model": "m:3", "app": "app"}



def steps(*lines: dict[str, Any]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_an_equal_application_may_exist(http: FakeHttp) -> None:
    http.answer(EXISTS, 400)
    http.answer(APP)
    Admin(http.url).register_application("app", "double", "-1", 100000, exist_ok=True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("strings", "-1", 100000), "its input_type is 'doubles', not 'strings'"),
        (("doubles", "0", 100000), "its default_output is '-1', not '0'"),
        (("doubles", "-1", 5), "its latency_slo_micros is 100000, not 5"),
    ],
)
def test_another_application_may_not(http: FakeHttp, arguments: Any, reason: str) -> None:
    http.answer(EXISTS, 400)
    http.answer(APP)
    with pytest.raises(AdminError, match=reason):
        Admin(http.url).register_application("app", *arguments, exist_ok=True)


def test_without_exist_ok_it_is_as_in_clipper_admin(http: FakeHttp) -> None:
    http.answer(EXISTS, 400)
    with pytest.raises(AdminError, match="already exists"):
        Admin(http.url).register_application("app", "doubles", "-1", 100000)
    assert len(http.seen) == 1


def test_what_is_refused_for_another_reason_is_refused(http: FakeHttp) -> None:
    http.answer("the objective must be positive", 400)
    http.answer({})
    with pytest.raises(AdminError, match="positive"):
        Admin(http.url).register_application("new", "doubles", "-1", 0, exist_ok=True)


def test_models_and_links_may_exist(http: FakeHttp) -> None:
    admin = Admin(http.url)
    http.answer("exists", 400)
    http.answer(MODELS[0])
    admin.register_model("m", "1", "doubles", exist_ok=True)
    http.answer("exists", 400)
    http.answer(MODELS[0])
    with pytest.raises(AdminError, match=r"model m:1 exists, and its input_type is 'doubles'"):
        admin.register_model("m", "1", "strings", exist_ok=True)
    http.answer("linked", 400)
    http.answer(["m"])
    admin.link_model_to_app("app", "m", exist_ok=True)
    http.answer("linked", 400)
    http.answer(["n"])
    with pytest.raises(AdminError, match="linked"):
        admin.link_model_to_app("app", "m", exist_ok=True)


def test_a_new_version_of_what_the_application_queries(
    http: FakeHttp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    http.answer(APP)
    http.answer(["m"])
    http.answer(MODELS)
    http.answer(steps({"stage": "started"}, DONE))
    example = np.array([1.0, 2.0])
    assert Admin(http.url).deploy("new.py:predict", "app", replicas=2, example=example) == DONE
    assert http.seen[-1].path == "/admin/deploy_model"
    assert http.seen[-1].body == {
        "model_name": "m",
        "model_version": "3",
        "app_name": "app",
        "input_type": "doubles",
        "replicas": 2,
        "batch_size": -1,
        "runtime": {
            "runtime": "python",
            "function": f"{tmp_path}/new.py:predict",
            "python": sys.executable,
        },
        "timeout_ms": 60000,
        "input": [1.0, 2.0],
    }


def test_a_new_application(http: FakeHttp) -> None:
    http.answer({})
    http.answer([])
    http.answer(steps(DONE))
    admin = Admin(http.url)
    admin.deploy("/a/digits.onnx", "app", slo_micros=5, default_output="-1", input_type="floats")
    body = http.seen[-1].body
    assert (body["model_name"], body["model_version"]) == ("digits", "1")
    assert body["runtime"] == {"runtime": "onnx", "path": "/a/digits.onnx"}
    assert body["new_app"] == {"default_output": "-1", "latency_slo_micros": 5}


def test_a_deployment_that_fails_says_why(http: FakeHttp) -> None:
    http.answer(APP)
    http.answer(["m"])
    http.answer(MODELS)
    http.answer(steps({"stage": "failed", "cause": "it ended", "output": ["Boom", "at x"]}))
    with pytest.raises(AdminError, match=r"(?s)not deployed: it ended.*\n  Boom\n  at x"):
        Admin(http.url).deploy(["serve", "me"], "app")
    assert http.seen[-1].body["runtime"] == {"runtime": "command", "command": ["serve", "me"]}


@pytest.mark.parametrize("last", ["", steps({"stage": "connected"})])
def test_a_deployment_that_is_cut_off(http: FakeHttp, last: str) -> None:
    for answer in (APP, ["m"], MODELS, last):
        http.answer(answer)
    with pytest.raises(AdminError):
        Admin(http.url).deploy("m.onnx", "app")


@pytest.mark.parametrize(
    ("model", "app", "reason"),
    [
        ("iris.joblib", APP, "'-m', 'clipper_serving', 'serve', 'iris.joblib'"),
        (["a", "command"], {}, "needs a name"),
        ("m.onnx", {}, "slo_micros and default_output"),
    ],
)
def test_what_cannot_be_deployed(http: FakeHttp, model: Any, app: Any, reason: str) -> None:
    for answer in (app, [], MODELS) if app else (app, MODELS):
        http.answer(answer)
    with pytest.raises(AdminError, match=reason):
        Admin(http.url).deploy(model, "app")


@pytest.mark.parametrize("version", [None, 2])
def test_another_number_of_replicas_deploys_nothing(http: FakeHttp, version: int | None) -> None:
    http.answer("Keeping 3 replicas of model m:2")
    Admin(http.url).set_num_replicas("m", 3, version)
    (request,) = http.seen
    assert request.path == "/admin/set_replicas"
    chosen = {} if version is None else {"model_version": "2"}
    assert request.body == {"model_name": "m", "num_replicas": 3, **chosen}
