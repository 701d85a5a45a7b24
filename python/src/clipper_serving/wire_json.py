"""Inputs, requests and answers of the query frontend as JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Union

import numpy as np
import numpy.typing as npt

from .errors import (
    AccessDenied,
    BadInput,
    ModelError,
    Overloaded,
    ServerUnavailable,
    UnexpectedAnswer,
    UnknownApplication,
)
from .http import Answer

Inputs = Union[Sequence[Any], "npt.NDArray[Any]"]
"""Several inputs: a sequence of them, or a 2-D array with one in each row."""


@dataclass(frozen=True)
class Prediction:
    """One answer.

    ``output`` is the model's output, parsed where it was JSON. ``default`` says that it is the
    application's default output instead, and ``explanation`` then says why.

    ``error`` is set for one input of a batch that the model answered with an error, if the
    application passes errors on; there is no output then.
    """

    output: Any
    default: bool
    explanation: str | None
    query_id: int
    error: ModelError | None = None

    def array(self, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
        """The output as an array. Raises ``ValueError`` when it cannot be one of ``dtype``.

        Raises ``error`` if there is one.
        """
        if self.error is not None:
            raise self.error
        return np.asarray(self.output, dtype=dtype)


def encode_input(value: Any) -> Any:
    """One input as JSON takes it: arrays as lists, bytes as base64 text.

    Takes a 1-D array, a list or tuple of numbers, a string, or bytes; else ``BadInput``.
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, np.ndarray):
        if value.ndim != 1:
            raise BadInput(
                f"an input is an array of one dimension, not of {value.ndim}; several inputs go "
                "to predict_batch"
            )
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [item.item() if isinstance(item, np.generic) else item for item in value]
    what = "nothing (None)" if value is None else f"of type {type(value).__name__}"
    advice = f"; one number is a list of one: [{value}]" if _is_number(value) else ""
    raise BadInput(f"an input is a list of numbers, a string or bytes, not {what}{advice}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float, np.number))


def predict_body(value: Any, version: str | None) -> bytes:
    """The request for one input."""
    return _body({"input": encode_input(value)}, version)


def batch_body(values: Inputs, version: str | None) -> bytes:
    """The request for several inputs; a 2-D array counts as one input for each row."""
    if isinstance(values, (str, bytes, bytearray, Mapping)):
        raise BadInput(f"several inputs are a list of them, not a {type(values).__name__}")
    return _body({"input_batch": [encode_input(value) for value in values]}, version)


def update_body(uid: int, value: Any, label: float) -> bytes:
    """The request that reports the true ``label`` of an input."""
    return _dump({"uid": int(uid), "input": encode_input(value), "label": float(label)})


def read_predictions(answer: Answer) -> list[Prediction]:
    """The predictions in an answer, in input order.

    Raises what ``raise_for_status`` raises, and ``UnexpectedAnswer`` for anything else.
    """
    raise_for_status(answer)
    try:
        found = json.loads(answer.body)
        rows = found.get("batch_predictions", [found])
        return [_prediction(row) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnexpectedAnswer(f"not a prediction: {answer.text[:200]}", 200) from error


def _prediction(row: Mapping[str, Any]) -> Prediction:
    query_id = int(row["query_id"])
    if "error" in row:
        error = ModelError(str(row["cause"]), 422)
        return Prediction(None, False, None, query_id, error)
    return Prediction(
        output=row["output"],
        default=bool(row["default"]),
        explanation=row.get("default_explanation"),
        query_id=query_id,
    )


def raise_for_status(answer: Answer) -> None:
    """Raise the typed error of an answer that is not 200."""
    if answer.status != 200:
        _raise(answer, _cause(answer))


def _raise(answer: Answer, cause: str) -> NoReturn:
    status = answer.status
    if status in (404, 405) and not _is_of_query_frontend(answer):
        what = cause.partition(" Endpoints:")[0].strip().rstrip(".") or "nothing is there"
        raise UnexpectedAnswer(
            f"status {status}: {what}. Is this the query frontend, port 1337? Management is on "
            "1338, metrics on 1390.",
            status,
        )
    if status == 422:
        raise ModelError(cause, status)
    if status in (400, 413):
        raise BadInput(cause, status)
    if status in (401, 403):
        raise AccessDenied(cause, status)
    if status == 404:
        raise UnknownApplication(cause, status)
    if status == 429:
        raise Overloaded(cause, status, answer.retry_after)
    if status == 503:
        raise ServerUnavailable(cause, status, answer.retry_after)
    raise UnexpectedAnswer(f"status {status}: {cause}", status)


def _is_of_query_frontend(answer: Answer) -> bool:
    """Whether a 404 says that an application is unknown, and not that the address is wrong."""
    try:
        found = json.loads(answer.body)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("error") not in ("Not found", None)


def _cause(answer: Answer) -> str:
    """What the server says went wrong: the ``cause`` of a JSON body, else the text."""
    try:
        found = json.loads(answer.body)
    except ValueError:
        return answer.text
    if isinstance(found, dict):
        return str(found.get("cause") or found.get("error") or answer.text)
    return answer.text


def _body(content: Any, version: str | None) -> bytes:
    if version is not None:
        content["version"] = str(version)
    return _dump(content)


def _dump(content: Any) -> bytes:
    try:
        return json.dumps(content, allow_nan=False).encode("utf-8")
    except (TypeError, ValueError) as error:
        raise BadInput(f"the input cannot be sent as JSON: {error}") from error
