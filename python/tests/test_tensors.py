"""Signatures, batches and answers of models over tensors."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from clipper_serving.errors import ConfigurationError, ProtocolError
from clipper_serving.serving import Settings
from clipper_serving.tensors import (
    Signature,
    TensorGroup,
    TensorPredictor,
    decode_batch,
    encode_answer,
)

SIGNATURE = Signature.of(
    {"x": ("float32", [-1, 2]), "t": (str, [None])},
    {"y": ("FP32", [-1]), "l": (bytes, [-1, 1])},
)
NUMBERS = np.array([[1, 2], [3, 4]], "<f4")
TEXTS = b"\x01\0\0\0a\0\0\0\0"


def words(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


BATCH = [words(1, 2, 2, 10, 2, 2, 2, 13, 1, 2), NUMBERS.tobytes(), TEXTS]


def predictor(fn: Any) -> TensorPredictor:
    return TensorPredictor(fn, SIGNATURE)


def test_a_signature_from_names_and_from_examples() -> None:
    signature = Signature.of(
        {"a": np.zeros((5, 3), np.int16), "b": {"datatype": "BF16", "shape": [-1]}},
        [{"name": "c", "datatype": "bool", "shape": [-1, 2], "labels": ["no", "yes"]}],
    )
    assert signature.encode() == (
        b'{"inputs":[{"name":"a","datatype":"INT16","shape":[-1,3]},'
        b'{"name":"b","datatype":"BF16","shape":[-1]}],'
        b'"outputs":[{"name":"c","datatype":"BOOL","shape":[-1,2],"labels":["no","yes"]}]}'
    )


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"a": ("float31", [-1])},
        {"a": ("complex64", [-1])},
        {"a": ("float32", [3])},
        {"a": ("float32", [-1, 0])},
        {"a": "float32"},
        [{"name": "a", "shape": [-1]}],
        [{"name": "a", "datatype": "FP32", "shape": [-1]}] * 2,
    ],
)
def test_what_cannot_be_a_signature(inputs: Any) -> None:
    with pytest.raises(ConfigurationError):
        Signature.of(inputs, {"y": ("float32", [-1])})


def test_settings_of_tensors() -> None:
    settings = Settings("m", 1, inputs={"x": ("float32", [-1])}, outputs={"y": ("int8", [-1])})
    assert settings.replica({}).input_type.long_name == "tensors"
    for wrong in (
        Settings("m", 1, input_type="tensors"),
        Settings("m", 1, input_type="doubles", inputs={"x": ("float32", [-1])}),
    ):
        with pytest.raises(ConfigurationError):
            wrong.replica({})
    with pytest.raises(ConfigurationError):
        Settings("m", 1, inputs={"x": ("float32", [-1])}).signature()


def test_a_batch_is_read_without_a_copy() -> None:
    (group,) = decode_batch(SIGNATURE, BATCH)
    x, t = group.arrays
    np.testing.assert_array_equal(x, NUMBERS)
    assert t.tolist() == [b"a", b""]
    assert x.base is not None and group.rows == 2


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b"1234567"],
        [words(2, 2, 2, 10, 2, 2, 2, 13, 1, 2), *BATCH[1:]],
        [words(1, 2, 3, 10, 2, 2, 2, 13, 1, 2), *BATCH[1:]],
        [words(1, 2, 2, 11, 2, 2, 2, 13, 1, 2), *BATCH[1:]],
        [words(1, 2, 2, 99, 2, 2, 2, 13, 1, 2), *BATCH[1:]],
        [words(1, 2, 2, 10, 2, 2, 3, 13, 1, 2), *BATCH[1:]],
        [words(1, 3, 2, 10, 2, 2, 2, 13, 1, 2), *BATCH[1:]],
        [BATCH[0], NUMBERS.tobytes()[:-1], TEXTS],
        [BATCH[0], NUMBERS.tobytes(), TEXTS[:-1]],
        [BATCH[0], NUMBERS.tobytes(), b"\xff\xff\xff\xffa"],
        BATCH[:2],
    ],
)
def test_a_batch_that_is_none(frames: Any) -> None:
    with pytest.raises(ProtocolError):
        decode_batch(SIGNATURE, frames)


def test_outputs_become_the_answer() -> None:
    def predict(arrays: Any) -> Any:
        return {"y": arrays["x"].sum(axis=1).astype(np.float64), "l": [["a"], [b"bc"]]}

    answers = predictor(predict).run(decode_batch(SIGNATURE, BATCH))
    description, y, texts = encode_answer(SIGNATURE, answers, 100)
    assert description == words(1, 2, 2, 10, 1, 2, 13, 2, 2, 1)
    assert bytes(y) == np.array([3, 7], "<f4").tobytes()
    assert texts == b"\x01\0\0\0a\x02\0\0\0bc"


def test_a_bad_row_is_found_and_answered_alone() -> None:
    def predict(arrays: Any) -> Any:
        if (arrays["x"] == 3).any():
            raise ValueError("no threes")
        return np.zeros(len(arrays["x"]), np.float32), [["ok"]] * len(arrays["x"])

    answers = predictor(predict).run(decode_batch(SIGNATURE, BATCH))
    assert [answer.rows for answer in answers] == [1, 1]
    frames = encode_answer(SIGNATURE, answers, 12)
    assert frames[0] == words(2, 1, 2, 10, 1, 1, 13, 2, 1, 1, 1, 0)
    assert frames[-1] == b"ValueError: "


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (None, "returned 1 outputs"),
        ({"y": [0, 0]}, "no output 'l'"),
        (([0.0, 0.0],), "returned 1 outputs"),
        (([0.0], [["a"], ["b"]]), "'y' has the shape [1]"),
        (([0.0, 0.0], ["a", "b"]), "'l' has the shape [2]"),
        (([0.0, 0.0], [[1], [2]]), "'l' is int64"),
        (([0.0, 0.0], np.array([["a"], [None]], dtype=object)), "'l' has a NoneType"),
        ((["a", "b"], [["a"], ["b"]]), "'y' is <U1"),
        (([1j, 0], [["a"], ["b"]]), "'y' is complex128"),
    ],
)
def test_wrong_outputs_are_errors_of_all_rows(outputs: Any, said: str) -> None:
    (answer,) = predictor(lambda arrays: outputs).run(decode_batch(SIGNATURE, BATCH))
    assert answer.rows == 2 and said in str(answer.error)


def test_one_output_may_be_the_array_itself() -> None:
    signature = Signature.of({"x": ("int64", [-1])}, {"y": ("int64", [-1, -1])})
    group = TensorGroup(2, [np.array([1, 2])])
    (answer,) = TensorPredictor(lambda arrays: [[1], [2]], signature).run([group])
    assert answer.error is None and answer.arrays[0].tolist() == [[1], [2]]
