"""The search for bad inputs, its budget, and the reading of settings."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from clipper_serving import ConfigurationError, InputType, container
from clipper_serving.input_types import decode_one, encode_one
from clipper_serving.predictor import Predictor
from clipper_serving.serving import Settings, _warn_of_misspelt


def frames(values: list[float]) -> list[bytes]:
    return [np.array([value], dtype=float).tobytes() for value in values]


def test_a_good_batch_takes_one_call() -> None:
    calls: list[int] = []

    def predict(xs: Any) -> Any:
        calls.append(len(xs))
        return [0] * len(xs)

    predictor = Predictor(predict, InputType.DOUBLES)
    predictor.run(predictor.decode(InputType.DOUBLES, frames(list(range(64)))))
    assert calls == [64]


def test_finding_one_bad_input_takes_few_calls() -> None:
    calls: list[int] = []

    def predict(xs: Any) -> Any:
        calls.append(len(xs))
        if any(x[0] == 40 for x in xs):
            raise RuntimeError
        return [0] * len(xs)

    predictor = Predictor(predict, InputType.DOUBLES)
    result = predictor.run(predictor.decode(InputType.DOUBLES, frames(list(range(64)))))
    assert result.errors == 1
    assert len(calls) == 1 + 2 * 6


def test_the_search_ends_with_its_budget() -> None:
    calls: list[int] = []

    def predict(xs: Any) -> Any:
        calls.append(len(xs))
        raise RuntimeError("broken")

    predictor = Predictor(predict, InputType.DOUBLES, bisect_budget_seconds=0)
    result = predictor.run(predictor.decode(InputType.DOUBLES, frames(list(range(64)))))
    assert calls == [64]
    assert result.errors == 64
    assert {json.loads(text)["error"] for text in result.texts} == {"broken"}


def test_failures_are_logged_but_do_not_flood(caplog: pytest.LogCaptureFixture) -> None:
    predictor = Predictor(lambda xs: [1 / 0 for _ in xs], InputType.DOUBLES)
    for _ in range(50):
        predictor.run(predictor.decode(InputType.DOUBLES, frames([1.0, 2.0])))
    assert "ZeroDivisionError" in caplog.text
    assert len(caplog.records) < 50


def test_mixed_lengths_keep_their_order() -> None:
    predictor = Predictor(lambda xs: [len(x) for x in xs], InputType.DOUBLES)
    lengths = [3, 1, 2, 3, 1]
    batch = predictor.decode(InputType.DOUBLES, [b"12345678" * n for n in lengths])
    assert predictor.run(batch).texts == [str(n) for n in lengths]


def test_the_end_of_the_process_is_not_an_error_of_the_input() -> None:
    def predict(xs: Any) -> Any:
        raise SystemExit

    predictor = Predictor(predict, InputType.STRINGS)
    with pytest.raises(SystemExit):
        predictor.run(predictor.decode(InputType.STRINGS, [b"x"]))


@pytest.mark.parametrize("spelling", ["d", "double", "doubles", "DOUBLES", " Doubles "])
def test_spellings_of_input_types(spelling: str) -> None:
    assert InputType.parse(spelling) is InputType.DOUBLES


def test_all_input_types_round_trip() -> None:
    for kind, value in (
        (InputType.BYTES, b"\x00\xff"),
        (InputType.STRINGS, "é"),
        (InputType.INTEGERS, [1, -2]),
        (InputType.FLOATS, [0.5]),
        (InputType.DOUBLES, []),
    ):
        back = decode_one(kind, encode_one(kind, value))
        assert (back if isinstance(back, (str, bytes)) else back.tolist()) == value


ENV = {
    "CLIPPER_MODEL_NAME": "m",
    "CLIPPER_MODEL_VERSION": "2",
    "CLIPPER_IP": "10.0.0.1",
    "CLIPPER_PORT": "7001",
    "CLIPPER_INPUT_TYPE": "strs",
    "CLIPPER_CONTAINER_METRICS_HOST": "0.0.0.0",
    "CLIPPER_CONTAINER_METRICS_PORT": "0",
}


def test_settings_come_from_the_environment() -> None:
    replica = Settings().replica(ENV)
    assert (replica.name, replica.version) == ("m", "2")
    assert (replica.input_type, replica.address) == (InputType.STRINGS, "tcp://10.0.0.1:7001")
    assert Settings().metrics_address(ENV) is None
    anywhere = {**ENV, "CLIPPER_CONTAINER_METRICS_PORT": "any"}
    assert Settings().metrics_address(anywhere) == ("0.0.0.0", None)


def test_arguments_go_before_the_environment() -> None:
    replica = Settings("n", 3, "ints", "h", 1).replica(ENV)
    assert (replica.name, replica.version) == ("n", "3")
    assert (replica.input_type, replica.address) == (InputType.INTEGERS, "tcp://h:1")


def test_defaults_are_those_of_clipper() -> None:
    replica = Settings("m", 1).replica({})
    assert (replica.input_type, replica.address) == (InputType.DOUBLES, "tcp://127.0.0.1:7000")
    assert Settings().metrics_address({}) == ("127.0.0.1", 1390)


@pytest.mark.parametrize(
    ("settings", "env", "reason"),
    [
        (Settings(version=1), {}, "CLIPPER_MODEL_NAME"),
        (Settings(name="m"), {}, "CLIPPER_MODEL_VERSION"),
        (Settings(name="a:b", version=1), {}, "':'"),
        (Settings("m", 1, "complex"), {}, "unknown input type"),
        (Settings("m", 1), {"CLIPPER_PORT": "seven"}, "CLIPPER_PORT"),
        (Settings("m", 1, port=70000), {}, "70000"),
    ],
)
def test_unusable_settings_are_named(settings: Settings, env: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        settings.replica(env)


@pytest.mark.parametrize("variable", ["CLIPPER_PORT", "CLIPPER_CONTAINER_METRICS_PORT"])
def test_variables_of_a_kubernetes_service_are_left_alone(
    variable: str, caplog: pytest.LogCaptureFixture
) -> None:
    env = {**ENV, variable: "tcp://10.0.0.1:1337", "CLIPPER_PORT_1337_TCP_ADDR": "10.0.0.1"}
    replica, metrics = Settings().replica(env), Settings().metrics_address(env)
    if variable == "CLIPPER_PORT":
        assert replica.address == "tcp://10.0.0.1:7000"
    else:
        assert metrics == ("0.0.0.0", 1390)
    assert f"{variable} is 'tcp://10.0.0.1:1337'" in caplog.text
    caplog.clear()
    assert Settings(port=1, metrics_port=2).replica(env).address == "tcp://10.0.0.1:1"
    assert caplog.text == ""


def test_a_misspelt_variable_is_named(caplog: pytest.LogCaptureFixture) -> None:
    env = {"CLIPPER_INPUT_TYP": "ints", "CLIPPER_SERVICE_PORT": "1", "CLIPPER_RPC_ADDR": "x", **ENV}
    _warn_of_misspelt(env)
    assert [record.getMessage() for record in caplog.records] == [
        "CLIPPER_INPUT_TYP is not read by a container; did you mean CLIPPER_INPUT_TYPE?"
    ]


def test_a_decorated_function_is_still_a_function() -> None:
    @container(name="m", version=1, stacked=True)
    def predict(xs: Any) -> Any:
        """Says what it does."""
        return [x * 2 for x in xs]

    assert predict([1, 2]) == [2, 4]
    assert predict.__name__ == "predict"
    assert predict.__doc__ == "Says what it does."
    assert predict.settings == Settings(name="m", version=1, stacked=True)


@pytest.mark.parametrize(
    "predict",
    [
        lambda x: x.sum(),
        lambda x: math.sqrt(x),
        lambda x: float(np.sum([row.sum() for row in x])),
        lambda x: None,
    ],
)
def test_a_function_of_one_input_is_told_what_it_gets(predict: Any) -> None:
    predictor = Predictor(predict, InputType.DOUBLES)
    (text,) = predictor.run(predictor.decode(InputType.DOUBLES, frames([4.0]))).texts
    assert "return [f(x) for x in xs]" in json.loads(text)["error"]


def test_a_function_that_has_answered_is_not_told_what_it_is() -> None:
    def predict(xs: Any) -> Any:
        if xs[0][0] == 13:
            raise TypeError("list of no use")
        return [0] * len(xs)

    predictor = Predictor(predict, InputType.DOUBLES)
    predictor.run(predictor.decode(InputType.DOUBLES, frames([1.0])))
    (text,) = predictor.run(predictor.decode(InputType.DOUBLES, frames([13.0]))).texts
    assert json.loads(text)["error"] == "list of no use"


def test_a_function_that_gives_no_list_is_asked_once() -> None:
    calls: list[int] = []

    def predict(xs: Any) -> Any:
        calls.append(len(xs))

    predictor = Predictor(predict, InputType.DOUBLES)
    assert predictor.run(predictor.decode(InputType.DOUBLES, frames([0.0] * 64))).errors == 64
    assert calls == [64]


def test_an_output_that_is_none_fails_alone_and_at_once() -> None:
    calls: list[int] = []

    def predict(xs: Any) -> Any:
        calls.append(len(xs))
        return [object() if x[0] == 5 else 0 for x in xs]

    predictor = Predictor(predict, InputType.DOUBLES)
    result = predictor.run(predictor.decode(InputType.DOUBLES, frames(list(range(8)))))
    assert list(result.failed) == [5]
    assert calls == [8]
