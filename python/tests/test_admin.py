"""The management commands: what they send, and what they make of recorded answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakes import FakeHttp

from clipper_serving import Admin, AdminError, BadInput, ClipperException, ServerUnavailable

APP = {
    "input_type": "doubles",
    "default_output": "-1",
    "latency_slo_micros": 100000,
    "name": "app",
    "linked_models": [],
}


def model(name: str, version: str, current: bool) -> dict[str, Any]:
    return {
        "model_name": name,
        "model_version": version,
        "input_type": "doubles",
        "labels": ["a", "b"],
        "container_name": "noop:1",
        "model_data_path": "/models/x",
        "is_current_version": current,
    }


def replica(name: str, version: str, number: int) -> dict[str, Any]:
    return {
        "model_id": f"{name}:{version}",
        "model_name": name,
        "model_version": version,
        "model_replica_id": number,
        "input_type": "doubles",
    }


MODELS = [model("m", "1", False), model("m", "2", True), model("n", "1", True)]


@pytest.mark.parametrize(
    ("command", "path", "body"),
    [
        (
            lambda a: a.register_application("app", "ints", "-1", 5, on_model_error="error"),
            "add_app",
            {
                "name": "app",
                "input_type": "ints",
                "default_output": "-1",
                "latency_slo_micros": 5,
                "on_model_error": "error",
            },
        ),
        (
            lambda a: a.register_application("app", "doubles", "-1", 100000),
            "add_app",
            {
                "name": "app",
                "input_type": "doubles",
                "default_output": "-1",
                "latency_slo_micros": 100000,
            },
        ),
        (lambda a: a.delete_application("app"), "delete_app", {"name": "app"}),
        (lambda a: a.unregister_application("app"), "delete_app", {"name": "app"}),
        (
            lambda a: a.register_model("m", 1, "doubles"),
            "add_model",
            {
                "model_name": "m",
                "model_version": "1",
                "labels": [],
                "input_type": "doubles",
                "container_name": "NO_CONTAINER",
                "model_data_path": "DEPRECATED",
                "batch_size": -1,
            },
        ),
        (
            lambda a: a.register_model("m", 2, "doubles", make_current=False, cache=False),
            "add_model",
            {
                "model_name": "m",
                "model_version": "2",
                "labels": [],
                "input_type": "doubles",
                "container_name": "NO_CONTAINER",
                "model_data_path": "DEPRECATED",
                "batch_size": -1,
                "make_current": False,
                "cache": False,
            },
        ),
        (
            lambda a: a.update_application("app", slo_micros=7, cache=False, weight=3),
            "update_app",
            {"name": "app", "latency_slo_micros": 7, "cache": False, "weight": 3},
        ),
        (
            lambda a: a.update_application("app", limits={"rate": 100, "priority": "low"}),
            "update_app",
            {"name": "app", "limits": {"rate": 100, "priority": "low"}},
        ),
        (
            lambda a: a.update_model("m", 1, batch_size=8, labels=["x"], cache=False),
            "update_model",
            {
                "model_name": "m",
                "model_version": "1",
                "batch_size": 8,
                "labels": ["x"],
                "cache": False,
            },
        ),
        (
            lambda a: a.unregister_model("m", 1),
            "delete_versioned_model",
            {"model_name": "m", "model_version": "1"},
        ),
        (
            lambda a: a.link_model_to_app("app", "m"),
            "add_model_links",
            {"app_name": "app", "model_names": ["m"]},
        ),
        (
            lambda a: a.unlink_model_from_app("app", "m"),
            "delete_model_links",
            {"app_name": "app", "model_names": ["m"]},
        ),
        (
            lambda a: a.set_model_version("m", 2),
            "set_model_version",
            {"model_name": "m", "model_version": "2"},
        ),
    ],
)
def test_commands(
    http: FakeHttp, command: Callable[[Admin], None], path: str, body: dict[str, Any]
) -> None:
    http.answer("Success!")
    command(Admin(http.url))
    seen = http.seen[0]
    assert (seen.method, seen.path, seen.body) == ("POST", f"/admin/{path}", body)


@pytest.mark.parametrize(
    ("question", "path", "body", "answer"),
    [
        (lambda a: a.get_all_apps(), "get_all_applications", {"verbose": False}, ["app"]),
        (lambda a: a.get_all_apps(True), "get_all_applications", {"verbose": True}, [APP]),
        (lambda a: a.get_app_info("app"), "get_application", {"name": "app"}, APP),
        (lambda a: a.get_linked_models("app"), "get_linked_models", {"app_name": "app"}, ["m"]),
        (lambda a: a.get_all_models(), "get_all_models", {"verbose": False}, ["m:1"]),
        (
            lambda a: a.get_model_info("m", 1),
            "get_model",
            {"model_name": "m", "model_version": "1"},
            MODELS[0],
        ),
        (lambda a: a.get_all_model_replicas(), "get_all_containers", {"verbose": False}, ["m:1:0"]),
        (
            lambda a: a.get_model_replica_info("m", 1, 0),
            "get_container",
            {"model_name": "m", "model_version": "1", "replica_id": 0},
            replica("m", "1", 0),
        ),
    ],
)
def test_questions(
    http: FakeHttp, question: Callable[[Admin], Any], path: str, body: Any, answer: Any
) -> None:
    http.answer(answer)
    assert question(Admin(http.url)) == answer
    assert (http.seen[0].path, http.seen[0].body) == (f"/admin/{path}", body)


@pytest.mark.parametrize(
    "question",
    [
        lambda a: a.get_app_info("zzz"),
        lambda a: a.get_model_info("m", "77"),
        lambda a: a.get_model_replica_info("m", 1, 7),
    ],
)
def test_what_is_unknown_is_none(http: FakeHttp, question: Callable[[Admin], Any]) -> None:
    http.answer("{}")
    assert question(Admin(http.url)) is None


def test_a_refused_command_says_why(http: FakeHttp) -> None:
    http.answer("application 'app' already exists", 400)
    with pytest.raises(ClipperException) as raised:
        Admin(http.url).register_application("app", "doubles", "-1", 100000)
    assert isinstance(raised.value, AdminError)
    assert raised.value.status == 400
    assert raised.value.msg == (
        "Received error status code: 400 and message: application 'app' already exists"
    )


def test_a_server_that_cannot_change_anything_now(http: FakeHttp) -> None:
    http.answer("Redis is away", 503)
    with pytest.raises(ServerUnavailable, match="Redis is away"):
        Admin(http.url).delete_application("app")


def test_connect_checks_the_server(http: FakeHttp) -> None:
    http.answer("PONG")
    Admin(http.url).connect()
    assert (http.seen[0].method, http.seen[0].path) == ("GET", "/admin/ping")
    http.close()
    with pytest.raises(ServerUnavailable):
        Admin(http.url).connect()


def test_the_current_version(http: FakeHttp) -> None:
    http.answer(MODELS)
    assert Admin(http.url).get_current_model_version("m") == "2"
    http.answer(MODELS)
    with pytest.raises(AdminError, match="No versions of model zzz"):
        Admin(http.url).get_current_model_version("zzz")


def test_the_number_of_replicas(http: FakeHttp) -> None:
    http.answer(MODELS)
    http.answer([replica("m", "2", 0), replica("m", "2", 1), replica("m", "1", 0)])
    assert Admin(http.url).get_num_replicas("m") == 2


@pytest.mark.parametrize(
    ("command", "removed"),
    [
        (lambda a: a.stop_models(["m"]), [("m", "1"), ("m", "2")]),
        (lambda a: a.stop_inactive_model_versions(["m", "n"]), [("m", "1")]),
        (lambda a: a.stop_all_model_containers(), [("m", "1"), ("m", "2"), ("n", "1")]),
    ],
)
def test_removing_several_versions(
    http: FakeHttp, command: Callable[[Admin], None], removed: list[tuple[str, str]]
) -> None:
    http.answer(MODELS)
    for _ in removed:
        http.answer("Successfully deleted")
    command(Admin(http.url))
    bodies = [seen.body for seen in http.seen[1:]]
    assert [(body["model_name"], body["model_version"]) for body in bodies] == removed


def test_removing_named_versions(http: FakeHttp) -> None:
    http.answer("Successfully deleted")
    http.answer("Successfully deleted")
    Admin(http.url).stop_versioned_models({"m": [1, "2"]})
    assert [seen.body["model_version"] for seen in http.seen] == ["1", "2"]


def test_metrics_of_the_query_frontend(http: FakeHttp) -> None:
    http.answer({"counters": [{"internal:prediction_cache_lookups": {"count": "0"}}]})
    admin = Admin(query_url=http.url)
    assert "counters" in admin.inspect_instance()
    assert http.seen[0].path == "/metrics"
    assert f"http://{admin.get_query_addr()}" == http.url


@pytest.mark.parametrize(
    ("query", "kind", "expected"),
    [
        ({"input": [1.0, 2.0]}, "doubles", [3.0]),
        ({"input_batch": [[1, 2], [3]]}, "integers", [3, 3]),
    ],
)
def test_trying_a_function(query: dict[str, Any], kind: str, expected: list[float]) -> None:
    found = Admin().test_predict_function(query, lambda xs: [np.sum(x) for x in xs], kind)
    assert found == expected


def test_trying_a_function_on_text_and_bytes() -> None:
    admin = Admin()
    assert admin.test_predict_function({"input": "abc"}, list, "strings") == ["abc"]
    assert admin.test_predict_function({"input": "YQ=="}, list, "bytes") == [b"a"]


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ({"inputs": [1]}, "doubles"),
        ({"input": "text"}, "doubles"),
        ({"input": [1.5]}, "integers"),
        ({"input": ["a"]}, "strings"),
        ({"input": "not base64!"}, "bytes"),
        ({"input_batch": [1.0]}, "doubles"),
    ],
)
def test_trying_a_function_on_what_the_server_refuses(query: dict[str, Any], kind: str) -> None:
    with pytest.raises(BadInput):
        Admin().test_predict_function(query, list, kind)
