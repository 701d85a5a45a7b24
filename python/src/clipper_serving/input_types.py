"""The input types of Clipper, their spellings and their bytes on the wire.

Of the sixth, tensors, both are in ``tensors.py``.
"""

from __future__ import annotations

import enum
from typing import Any, Union

import numpy as np
import numpy.typing as npt

from .errors import ConfigurationError

Input = Union["npt.NDArray[Any]", str, bytes]
"""One input as a predict function sees it: a 1-D array, a text, or bytes."""


class InputType(enum.IntEnum):
    """What an application or a model takes; the value is the number on the wire."""

    BYTES = 0
    INTEGERS = 1
    FLOATS = 2
    DOUBLES = 3
    STRINGS = 4
    TENSORS = 5

    @property
    def long_name(self) -> str:
        """The spelling that the server stores, for example ``doubles``."""
        return self.name.lower()

    @classmethod
    def parse(cls, text: str | InputType) -> InputType:
        """Read any accepted spelling (``doubles``, ``double``, ``d``, ...), in any case.

        Raises ``ConfigurationError`` for anything else.
        """
        if isinstance(text, InputType):
            return text
        found = _SPELLINGS.get(text.strip().lower())
        if found is None:
            names = ", ".join(t.long_name for t in cls)
            raise ConfigurationError(f"unknown input type {text!r}; it is one of: {names}")
        return found


_SPELLINGS: dict[str, InputType] = {
    spelling: input_type
    for input_type, spellings in {
        InputType.BYTES: "bytes byte b",
        InputType.INTEGERS: "integers ints integer int i",
        InputType.FLOATS: "floats float f",
        InputType.DOUBLES: "doubles double d",
        InputType.STRINGS: "strings string strs str s",
        InputType.TENSORS: "tensors",
    }.items()
    for spelling in spellings.split()
}

_DTYPES: dict[InputType, str] = {
    InputType.INTEGERS: "<i4",
    InputType.FLOATS: "<f4",
    InputType.DOUBLES: "<f8",
}


def is_numeric(input_type: InputType) -> bool:
    """Whether inputs of this type are arrays of numbers."""
    return input_type in _DTYPES


def decode_rows(input_type: InputType, frames: list[bytes]) -> npt.NDArray[Any]:
    """Decode numeric frames of one length into a writable array of shape (inputs, values).

    Raises ``ValueError`` when a frame holds no whole number of values.
    """
    dtype = np.dtype(_DTYPES[input_type])
    size = len(frames[0])
    if size % dtype.itemsize:
        raise ValueError(
            f"an input of {size} bytes is no array of {input_type.long_name} "
            f"of {dtype.itemsize} bytes each"
        )
    # A bytearray, because arrays over bytes objects are read-only and models may write.
    flat = np.frombuffer(bytearray(b"".join(frames)), dtype=dtype)
    return flat.reshape(len(frames), size // dtype.itemsize)


def decode_one(input_type: InputType, frame: bytes) -> Input:
    """Decode one frame.

    Raises ``ValueError`` when it is no text in UTF-8 or no whole number of values.
    """
    if input_type is InputType.STRINGS:
        return frame.decode("utf-8")
    if input_type is InputType.BYTES:
        return frame
    row: npt.NDArray[Any] = decode_rows(input_type, [frame])[0]
    return row


def encode_one(input_type: InputType, value: Any) -> bytes:
    """The wire bytes of one input; the inverse of ``decode_one``.

    Raises ``ValueError`` or ``TypeError`` when ``value`` does not fit the type.
    """
    if input_type is InputType.STRINGS:
        if not isinstance(value, str):
            raise TypeError(f"expected a string, got {type(value).__name__}")
        return value.encode("utf-8")
    if input_type is InputType.BYTES:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError(f"expected bytes, got {type(value).__name__}")
        return bytes(value)
    if isinstance(value, (str, bytes)):
        raise TypeError(f"expected an array of {input_type.long_name}")
    array = np.asarray(value)
    if array.ndim != 1:
        raise ValueError(f"expected a flat array, got {array.ndim} dimensions")
    if input_type is InputType.INTEGERS and array.size and array.dtype.kind not in "iub":
        raise TypeError("expected whole numbers")
    return array.astype(_DTYPES[input_type]).tobytes()
