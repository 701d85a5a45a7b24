"""What a model returns, as the texts that the server passes on."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from .errors import ClipperError


class WrongOutputCount(ClipperError):
    """The predict function did not return exactly one output for each input."""


def to_text(output: Any) -> str:
    """One output as text: strings as they are, anything else as JSON.

    Arrays, tensors and numpy scalars become JSON arrays and numbers. JSON has no NaN and no
    infinity: they become ``null``. Raises ``TypeError`` for objects that JSON cannot hold.
    """
    if isinstance(output, str):
        return output
    if isinstance(output, (bytes, bytearray)):
        return output.decode("utf-8")
    try:
        return _ENCODER.encode(output)
    except ValueError:
        return _ENCODER.encode(_finite(output))


def to_texts(outputs: Any, count: int) -> list[str]:
    """All outputs of one call as texts.

    ``outputs`` is any sequence, array or iterable with one entry for each of ``count`` inputs.
    Raises ``WrongOutputCount`` otherwise, ``TypeError`` as ``to_text`` does.
    """
    if isinstance(outputs, np.ndarray):
        outputs = outputs.tolist() if outputs.ndim else None
    if outputs is None or isinstance(outputs, (str, bytes, dict, int, float)):
        raise WrongOutputCount(
            f"the model returned a single {type(outputs).__name__} for {count} inputs; "
            "it must return a list with one output for each input"
        )
    rows = list(outputs)
    if len(rows) != count:
        raise WrongOutputCount(f"the model returned {len(rows)} outputs for {count} inputs")
    return [to_text(row) for row in rows]


def error_text(error: BaseException) -> str:
    """An error as an output, for a server that takes no errors: JSON with ``error`` and ``type``."""
    return json.dumps({"error": str(error), "type": type(error).__name__})


def error_bytes(error: BaseException, max_bytes: int) -> bytes:
    """The text of an error as UTF-8 of at most ``max_bytes`` bytes; never cut inside a character."""
    text = f"{type(error).__name__}: {error}".encode("utf-8", "replace")
    return text[:max_bytes].decode("utf-8", "ignore").encode("utf-8")


def _plain(value: Any) -> Any:
    """Turn numpy and tensor objects into what ``json`` knows."""
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8")
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    if isinstance(value, (set, frozenset)):
        return list(value)
    raise TypeError(f"an output of type {type(value).__name__} cannot be written as JSON")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return value


# One encoder for all outputs: json.dumps would make one for each.
_ENCODER = json.JSONEncoder(default=_plain, allow_nan=False)
