"""Arrays in requests and answers of the Open Inference Protocol, binary both ways."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from .errors import BadInput, ConfigurationError, UnexpectedAnswer
from .http import LENGTH_HEADER, Answer
from .tensors import array_of, datatype_of, memory_of
from .wire_json import raise_for_status

Array = npt.NDArray[Any]


def infer_path(name: str, version: str | None) -> str:
    """Where a model or an application is asked."""
    of_version = "" if version is None else f"/versions/{quote(str(version), safe='')}"
    return f"/v2/models/{quote(name, safe='')}{of_version}/infer"


def infer_body(
    inputs: Mapping[str, Any], outputs: Sequence[str] | None
) -> tuple[bytes, dict[str, str]]:
    """A request and its headers; the memory of the arrays is joined to it once.

    Raises ``BadInput`` for what is no array of tensors.
    """
    described = []
    parts = []
    for name, value in inputs.items():
        array = np.asarray(value)
        try:
            datatype = datatype_of(array.dtype)
            part = memory_of(datatype, array)
        except (ConfigurationError, TypeError) as error:
            raise BadInput(f"input {name!r}: {error}") from error
        described.append(
            {
                "name": name,
                "datatype": datatype,
                "shape": list(array.shape),
                "parameters": {"binary_data_size": len(part)},
            }
        )
        parts.append(part)
    request: dict[str, Any] = {
        "inputs": described,
        "parameters": {"binary_data_output": True},
    }
    if outputs is not None:
        request["outputs"] = [{"name": name} for name in outputs]
    head = json.dumps(request).encode("utf-8")
    headers = {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(len(head))}
    return b"".join([head, *parts]), headers


def read_outputs(answer: Answer) -> dict[str, Array]:
    """The arrays of an answer by name; they are the memory of its body, and not to be changed.

    Raises what ``raise_for_status`` raises, and ``UnexpectedAnswer`` for anything else.
    """
    raise_for_status(answer)
    length = len(answer.body) if answer.json_bytes is None else answer.json_bytes
    found: dict[str, Array] = {}
    try:
        page = json.loads(answer.body[:length])
        at = length
        for output in page["outputs"]:
            datatype, shape = output["datatype"], tuple(output["shape"])
            size = output.get("parameters", {}).get("binary_data_size")
            if size is None:
                dtype = object if datatype == "BYTES" else None
                found[output["name"]] = np.array(output["data"], dtype=dtype).reshape(shape)
                continue
            part = memoryview(answer.body)[at : at + size]
            at += size
            found[output["name"]] = array_of(datatype, shape, part)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise UnexpectedAnswer(f"not the answer of an inference: {error}", 200) from error
    return found
