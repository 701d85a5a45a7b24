"""Signatures that are not written down: from type hints, from an example."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

import numpy as np
import numpy.typing as npt
import pytest

from clipper_serving import container
from clipper_serving.errors import ConfigurationError
from clipper_serving.serving import Settings


class Inputs(TypedDict):
    image: Annotated[npt.NDArray[np.float32], (-1, 3, None)]
    question: Annotated[npt.NDArray[np.object_], [-1]]


class Outputs(TypedDict):
    scores: Annotated[npt.NDArray[np.float16], (-1, 2)]


def hinted(arrays: Inputs) -> Outputs:
    rows = len(arrays["image"])
    return {"scores": np.zeros((rows, 2), np.float16)}


class Model:
    def __call__(self, arrays: Inputs) -> Outputs:
        return hinted(arrays)


HINTED = (
    b'{"inputs":[{"name":"image","datatype":"FP32","shape":[-1,3,-1]},'
    b'{"name":"question","datatype":"BYTES","shape":[-1]}],'
    b'"outputs":[{"name":"scores","datatype":"FP16","shape":[-1,2]}]}'
)


def encoded(fn: Any, settings: Settings) -> bytes:
    signature = settings.completed(fn).signature()
    assert signature is not None
    return signature.encode()


@pytest.mark.parametrize("fn", [hinted, Model(), container()(hinted)])
def test_type_hints_are_a_signature(fn: Any) -> None:
    assert encoded(fn, Settings()) == HINTED
    assert encoded(fn, Settings(input_type="tensors")) == HINTED
    env = {"CLIPPER_MODEL_NAME": "m", "CLIPPER_MODEL_VERSION": "1"}
    assert Settings().completed(fn).replica(env).input_type.name == "TENSORS"
    # A function that is served as another type is what it was.
    assert Settings(input_type="doubles").completed(fn).signature() is None


class Shapeless(TypedDict):
    x: npt.NDArray[np.float32]


class Kindless(TypedDict):
    x: Annotated[Any, (-1, 3)]


@pytest.mark.parametrize("wrong", [Shapeless, Kindless])
def test_hints_that_say_too_little_are_refused(wrong: Any) -> None:
    def fn(arrays: Any) -> Any:
        return arrays

    fn.__annotations__ = {"arrays": wrong, "return": Outputs}
    with pytest.raises(ConfigurationError, match=r"inputs\['x'\].*Annotated"):
        Settings().completed(fn)


def test_other_hints_say_nothing() -> None:
    def plain(inputs: list[Any]) -> list[Any]:
        return inputs

    def unknown(inputs: "Nowhere") -> "Outputs":  # type: ignore[name-defined]  # noqa: F821
        return inputs

    for fn in (plain, unknown, print, lambda inputs: inputs):
        assert Settings().completed(fn).signature() is None


EXAMPLE = {"x": np.ones((2, 3), np.float32), "t": np.array(["a", "b"])}


@pytest.mark.parametrize(
    ("returns", "names"),
    [
        (lambda arrays: {"y": arrays["x"] * 2}, ["y"]),
        (lambda arrays: arrays["x"] * 2, ["output"]),
        (lambda arrays: (arrays["x"], ["c", "d"]), ["output_0", "output_1"]),
    ],
)
def test_an_example_says_what_comes_out(returns: Any, names: list[str]) -> None:
    signature = Settings(inputs=EXAMPLE).completed(returns).signature()
    assert signature is not None
    assert [spec.name for spec in signature.outputs] == names
    assert (signature.outputs[0].datatype, signature.outputs[0].shape) == ("FP32", (-1, 3))
    if len(names) > 1:
        assert (signature.outputs[1].datatype, signature.outputs[1].shape) == ("BYTES", (-1,))
    assert [spec.datatype for spec in signature.inputs] == ["FP32", "BYTES"]


def fails(_: Any) -> Any:
    raise ValueError("no such thing")


@pytest.mark.parametrize(
    ("fn", "inputs", "says"),
    [
        (fails, EXAMPLE, "ValueError: no such thing"),
        (lambda arrays: arrays["x"][:1], EXAMPLE, r"'output'.*\[1, 3\].*2 rows"),
        (lambda arrays: arrays, {"x": ("float32", [-1, 3])}, "an example array for each"),
        (lambda arrays: arrays, {**EXAMPLE, "u": np.ones(3)}, "different numbers of rows"),
        (lambda arrays: arrays, {"x": np.array(1.0)}, "different numbers of rows"),
    ],
)
def test_an_example_that_does_not_work_is_refused(fn: Any, inputs: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Settings(inputs=inputs).completed(fn)
