"""The tables of docs/python-models.md: what a function may return, and what becomes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import table_of

from clipper_serving.outputs import WrongOutputCount, to_text, to_texts

PAGE = Path(__file__).parents[2] / "docs" / "python-models.md"
OUTPUTS = table_of(PAGE, "output")
RESULTS = table_of(PAGE, "result")


def evaluated(expression: str) -> Any:
    return eval(expression, {"np": np})


def seen_by_a_client(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def test_the_tables_are_there() -> None:
    assert len(OUTPUTS) > 20 and len(RESULTS) > 10


@pytest.mark.parametrize(("expression", "answer"), OUTPUTS)
def test_one_output(expression: str, answer: str) -> None:
    if answer.startswith("error: "):
        with pytest.raises((TypeError, ValueError), match=answer.removeprefix("error: ")):
            to_text(evaluated(expression))
    else:
        assert seen_by_a_client(to_text(evaluated(expression))) == json.loads(answer)


@pytest.mark.parametrize(("expression", "answer"), RESULTS)
def test_a_whole_result(expression: str, answer: str) -> None:
    if answer.startswith("error: "):
        with pytest.raises(WrongOutputCount) as caught:
            to_texts(evaluated(expression), 2)
        assert answer.removeprefix("error: ") in str(caught.value)
    else:
        texts = to_texts(evaluated(expression), 2)
        assert [seen_by_a_client(str(text)) for text in texts] == json.loads(answer)


def test_an_output_that_is_none_is_its_own_error() -> None:
    first, second, third = to_texts([1, object(), "x"], 3)
    assert (first, third) == ("1", "x")
    assert isinstance(second, TypeError)


def test_a_generator_that_never_ends() -> None:
    def for_ever() -> Any:
        while True:
            yield 1

    with pytest.raises(WrongOutputCount, match="more than 2 outputs"):
        to_texts(for_ever(), 2)


def test_a_table_of_pandas_is_its_rows() -> None:
    class Frame:
        """Iterating it gives the names of its columns, as many as there are inputs here."""

        def __iter__(self) -> Any:
            return iter(["a", "b"])

        def to_numpy(self) -> Any:
            return np.array([[1, 2], [3, 4]])

    assert to_texts(Frame(), 2) == ["[1, 2]", "[3, 4]"]


def test_an_async_function() -> None:
    async def later() -> Any:
        return [1]

    with pytest.raises(WrongOutputCount, match="async"):
        to_texts(later(), 1)


def test_what_refers_to_itself() -> None:
    outputs: list[Any] = [1]
    outputs.append(outputs)
    first, second = to_texts([0, outputs], 2)
    assert first == "0"
    assert isinstance(second, (ValueError, RecursionError))
