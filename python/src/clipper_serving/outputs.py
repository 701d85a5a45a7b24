"""What a model returns, as the texts that the server passes on.

docs/python-models.md has this as a table.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterable, Mapping, Sized
from itertools import islice
from typing import Any

from .errors import ClipperError


class WrongOutputCount(ClipperError):
    """The predict function did not return exactly one output for each input.

    ``of_function`` says that it is no list of outputs at all, whatever the inputs are.
    """

    def __init__(self, msg: str, of_function: bool = False) -> None:
        super().__init__(msg)
        self.of_function = of_function


def to_text(output: Any) -> str:
    """One output as text: strings as they are, bytes as UTF-8, anything else as JSON.

    Arrays, tensors and numpy scalars become JSON arrays and numbers, sets become arrays. JSON has
    no NaN and no infinity: they become ``null``. Raises ``TypeError`` or ``ValueError`` for what
    is no text and cannot be written as JSON.
    """
    if isinstance(output, str):
        if not output.isascii():
            _check_unicode(output)
        return output
    if isinstance(output, (bytes, bytearray, memoryview)):
        return _decoded(output)
    try:
        return _ENCODER.encode(output)
    except (TypeError, ValueError):
        # NaN, infinity, or a key of numpy: rare enough to be looked for only now.
        return _ENCODER.encode(_plain_values(output))


def to_texts(outputs: Any, count: int) -> list[str | Exception]:
    """All outputs of one call as texts; an output that cannot be one is its own error.

    ``outputs`` is any sequence, array, tensor or iterable with one entry for each of ``count``
    inputs, in order. Raises ``WrongOutputCount`` otherwise.
    """
    rows = _rows(outputs, count)
    if len(rows) != count:
        is_cut = not isinstance(outputs, Sized) and len(rows) > count
        number = f"more than {count}" if is_cut else str(len(rows))
        raise WrongOutputCount(f"the model returned {number} outputs for {count} inputs")
    return [_text_or_error(row) for row in rows]


def error_text(error: BaseException) -> str:
    """An error as an output, for a server that takes none: JSON with ``error`` and ``type``."""
    return json.dumps({"error": str(error), "type": type(error).__name__})


def error_bytes(error: BaseException, max_bytes: int) -> bytes:
    """The text of an error as UTF-8 of at most ``max_bytes`` bytes; no character is cut."""
    text = f"{type(error).__name__}: {error}".encode("utf-8", "replace")
    return text[:max_bytes].decode("utf-8", "ignore").encode("utf-8")


def _rows(outputs: Any, count: int) -> list[Any]:
    """The outputs one by one; at most one more than ``count``, as a generator may never end."""
    if inspect.iscoroutine(outputs):
        outputs.close()
        raise WrongOutputCount("the model returned a coroutine; it must not be async", True)
    if hasattr(outputs, "to_numpy"):
        # Pandas and the like, of which iterating a table would give the names of its columns.
        outputs = outputs.to_numpy()
    if hasattr(outputs, "tolist"):
        outputs = outputs.tolist()
    what = type(outputs).__name__
    if isinstance(outputs, (set, frozenset)):
        raise WrongOutputCount(f"the model returned a {what}, which has no order; {_MUST}", True)
    if isinstance(outputs, _SINGLE) or not isinstance(outputs, Iterable):
        what = "nothing (None)" if outputs is None else f"a single {what}"
        raise WrongOutputCount(f"the model returned {what} for {count} inputs; {_MUST}", True)
    return list(outputs if isinstance(outputs, Sized) else islice(outputs, count + 1))


_MUST = "it must return a list with one output for each input"
_SINGLE = (type(None), str, bytes, bytearray, memoryview, Mapping, int, float, complex)


def _text_or_error(output: Any) -> str | Exception:
    try:
        return to_text(output)
    except Exception as error:
        return error


def _check_unicode(text: str) -> None:
    """Half of a surrogate pair is a ``str`` of Python and no text of anybody else's."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"an output is no Unicode text: {error.reason}") from None


def _decoded(output: bytes | bytearray | memoryview) -> str:
    try:
        return bytes(output).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(
            "an output of bytes is not UTF-8 text: an output is text; encode bytes as base64"
        ) from None


def _plain(value: Any) -> Any:
    """What ``json`` does not know, as what it knows."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _decoded(value)
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if hasattr(value, "tolist"):
        return _plain_values(value.tolist())
    if isinstance(value, (set, frozenset)):
        return _plain_values(_in_order(value))
    if isinstance(value, Mapping):
        return _plain_values(dict(value))
    raise TypeError(f"an output of type {type(value).__name__} cannot be written as JSON")


def _in_order(members: Iterable[Any]) -> list[Any]:
    """Sorted where the members can be compared, so that equal sets are equal texts."""
    try:
        return sorted(members)
    except TypeError:
        return list(members)


def _plain_values(value: Any) -> Any:
    """A copy with ``None`` for NaN and infinity, and with keys that JSON knows."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [_plain_values(item) for item in value]
    if isinstance(value, dict):
        return {_plain_key(key): _plain_values(item) for key, item in value.items()}
    return value


def _plain_key(key: Any) -> Any:
    if isinstance(key, (bytes, bytearray)):
        return _decoded(key)
    # A scalar of numpy, such as a label of np.unique.
    return key.item() if hasattr(key, "item") else key


# One encoder for all outputs: json.dumps would make one for each.
_ENCODER = json.JSONEncoder(default=_plain, allow_nan=False)
