"""Models over tensors: a batch of named arrays in, named arrays out, one row for each query.

A signature says which. On the wire, rows of equal shapes are one group, and each tensor of a
group is one piece of memory, which becomes an array without a copy (docs/container-protocol.md).
"""

from __future__ import annotations

import json
import logging
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Union

import numpy as np
import numpy.typing as npt

from .errors import ConfigurationError, ProtocolError
from .failures import INPUTS_FAILED, FailureLog
from .outputs import error_bytes
from .predictor import BISECT_BUDGET_SECONDS
from .traces import NO_TRACES, Trace, Traces, current, of_positions

_log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

TensorFn = Callable[[Arrays], Any]
"""Takes arrays by name, their first axis the rows; returns arrays of as many rows by name, or in
the order of the signature, or the one array of a single output."""

Buffer = Union[bytes, memoryview]

_DATATYPES = (
    "BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 BF16 BYTES".split()
)
"""By their number on the wire."""

_DTYPES = {
    "BOOL": "?",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    # Numpy has none: the bits.
    "BF16": "<u2",
}
_OF_DTYPES = {np.dtype(dtype).str: name for name, dtype in _DTYPES.items() if name != "BF16"}

_TEXT_KINDS = "OSU"

Specs = Union[Mapping[str, Any], Sequence[Mapping[str, Any]]]
"""Tensors as ``serve`` takes them: ``{"x": ("float32", [-1, 3])}``, ``{"x": example_array}``, or
the protocol's ``[{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]``."""


def datatype_of(dtype: Any) -> str:
    """The protocol's name of a datatype, from that name or from anything numpy knows.

    Raises ``ConfigurationError`` for what is none.
    """
    if isinstance(dtype, str) and dtype.upper() in _DATATYPES:
        return dtype.upper()
    if dtype in (str, bytes, object) or dtype in ("str", "bytes", "string", "object"):
        return "BYTES"
    try:
        known = np.dtype(dtype)
    except TypeError as error:
        raise ConfigurationError(f"{dtype!r} is not a datatype") from error
    if known.kind in _TEXT_KINDS:
        return "BYTES"
    name = _OF_DTYPES.get(known.newbyteorder("<").str)
    if name is None:
        raise ConfigurationError(f"{known} is not a datatype of tensors")
    return name


@dataclass(frozen=True)
class TensorSpec:
    """One tensor: its first dimension is the rows (-1), of the others -1 is any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    labels: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As the protocol has it."""
        found: dict[str, Any] = {
            "name": self.name,
            "datatype": self.datatype,
            "shape": list(self.shape),
        }
        if self.labels:
            found["labels"] = list(self.labels)
        return found

    def misfit(self, shape: Sequence[int]) -> bool:
        """Whether an array of this shape is none of this tensor."""
        return len(shape) != len(self.shape) or any(
            wanted not in (-1, found) for wanted, found in zip(self.shape, shape)
        )


@dataclass(frozen=True)
class Signature:
    """What goes into a model and what comes out."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @classmethod
    def of(cls, inputs: Specs, outputs: Specs) -> Signature:
        """Read what ``serve`` takes. Raises ``ConfigurationError`` for what cannot be one."""
        return cls(_specs("inputs", inputs), _specs("outputs", outputs))

    def encode(self) -> bytes:
        """As the container announces it."""
        sides = {
            "inputs": [spec.as_json() for spec in self.inputs],
            "outputs": [spec.as_json() for spec in self.outputs],
        }
        return json.dumps(sides, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _specs(side: str, given: Specs) -> tuple[TensorSpec, ...]:
    if isinstance(given, Mapping):
        specs = tuple(_spec(f"{side}[{name!r}]", name, value) for name, value in given.items())
    else:
        specs = tuple(_written(f"{side}[{at}]", value) for at, value in enumerate(given))
    if not specs:
        raise ConfigurationError(f"{side}: there has to be one tensor at least")
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise ConfigurationError(f"{side}: two tensors have one name")
    return specs


def _spec(place: str, name: str, value: Any) -> TensorSpec:
    if isinstance(value, Mapping):
        return _written(place, {"name": name, **value})
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        # An example: its rows are any number, its other dimensions are what they are.
        return _checked(place, TensorSpec(name, datatype_of(value.dtype), (-1, *value.shape[1:])))
    try:
        dtype, shape = value
        dims = tuple(-1 if n is None else int(n) for n in shape)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{place}: give (datatype, shape), an example array, or a mapping with datatype and "
            "shape"
        ) from error
    return _checked(place, TensorSpec(name, datatype_of(dtype), dims))


def _written(place: str, value: Mapping[str, Any]) -> TensorSpec:
    try:
        spec = TensorSpec(
            str(value["name"]),
            datatype_of(value["datatype"]),
            tuple(int(n) for n in value["shape"]),
            tuple(str(label) for label in value.get("labels", ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{place}: it needs name, datatype and shape") from error
    return _checked(place, spec)


def _checked(place: str, spec: TensorSpec) -> TensorSpec:
    is_shape = spec.shape[:1] == (-1,) and all(n == -1 or n > 0 for n in spec.shape)
    if not is_shape:
        raise ConfigurationError(
            f"{place}: the shape {list(spec.shape)} does not begin with the rows, which are -1, or "
            "has a dimension that is neither -1 nor more than 0"
        )
    return spec


@dataclass(frozen=True)
class TensorGroup:
    """Rows of one shape, or, where ``error`` is there, rows that have failed."""

    rows: int
    arrays: list[Array]
    error: Exception | None = None


def decode_batch(signature: Signature, frames: Sequence[Buffer]) -> list[TensorGroup]:
    """The groups of a batch; their arrays are the frames' memory.

    Raises ``ProtocolError`` for what is no batch of this signature.
    """
    if not frames or len(frames[0]) % 8:
        raise ProtocolError("a batch of tensors without its description")
    words = iter(struct.unpack(f"<{len(frames[0]) // 8}Q", frames[0]))
    parts = iter(frames[1:])
    groups = []
    try:
        for _ in range(next(words)):
            rows, count = next(words), next(words)
            if count != len(signature.inputs):
                raise ProtocolError(f"a batch of {count} tensors, not {len(signature.inputs)}")
            arrays = []
            for spec in signature.inputs:
                datatype, rank = next(words), next(words)
                shape = tuple(next(words) for _ in range(rank))
                if datatype >= len(_DATATYPES) or _DATATYPES[datatype] != spec.datatype:
                    raise ProtocolError(f"tensor {spec.name!r} has another datatype")
                if spec.misfit(shape) or shape[0] != rows:
                    raise ProtocolError(f"tensor {spec.name!r} has the shape {shape}")
                arrays.append(_array(spec, shape, next(parts)))
            groups.append(TensorGroup(rows, arrays))
    # A generator would make a RuntimeError of it; these are plain iterators.
    except StopIteration as error:
        raise ProtocolError("a batch of tensors that ends early") from error
    return groups


def _array(spec: TensorSpec, shape: tuple[int, ...], data: Buffer) -> Array:
    try:
        return array_of(spec.datatype, shape, data)
    except (ValueError, struct.error) as error:
        raise ProtocolError(f"tensor {spec.name!r} is not as long as its shape says") from error


def array_of(datatype: str, shape: tuple[int, ...], data: Buffer) -> Array:
    """The array that these bytes are. Raises ``ValueError`` where they are not as long."""
    if datatype == "BYTES":
        return _texts(data, shape)
    array: Array = np.frombuffer(data, _DTYPES[datatype]).reshape(shape)
    # A message may begin anywhere in memory, and engines want numbers at their places.
    return array if array.flags.aligned else array.copy()


def _texts(data: Buffer, shape: tuple[int, ...]) -> Array:
    view = memoryview(data)
    texts = []
    at = 0
    while at < len(view):
        (length,) = struct.unpack_from("<I", view, at)
        at += 4 + length
        if at > len(view):
            raise ValueError("an element that ends early")
        texts.append(bytes(view[at - length : at]))
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    found: Array = array.reshape(shape)
    return found


def encode_answer(
    signature: Signature, groups: Sequence[TensorGroup], error_max_bytes: int
) -> list[Buffer]:
    """The frames that answer a batch: its description and the memory of its arrays."""
    words = [len(groups)]
    parts: list[Buffer] = []
    for group in groups:
        words.append(group.rows)
        if group.error is not None:
            words.append(0)
            parts.append(error_bytes(group.error, error_max_bytes))
            continue
        words.append(len(group.arrays))
        for spec, array in zip(signature.outputs, group.arrays):
            words += [_DATATYPES.index(spec.datatype), array.ndim, *array.shape]
            parts.append(memory_of(spec.datatype, array))
    return [struct.pack(f"<{len(words)}Q", *words), *parts]


def memory_of(datatype: str, array: Array) -> Buffer:
    """The bytes of an array as they are sent. Raises ``TypeError`` for elements that are none."""
    if datatype != "BYTES":
        plain = np.ascontiguousarray(array, _DTYPES[datatype])
        return memoryview(plain.reshape(-1).view(np.uint8)) if plain.size else b""
    pieces = []
    for element in array.reshape(-1):
        if not isinstance(element, (str, bytes)):
            raise TypeError(f"a {type(element).__name__} is no text")
        text = element.encode("utf-8") if isinstance(element, str) else element
        pieces += [struct.pack("<I", len(text)), text]
    return b"".join(pieces)


class TensorPredictor:
    """A predict function over arrays; rows that it fails on are found and answered alone."""

    def __init__(
        self,
        fn: TensorFn,
        signature: Signature,
        bisect_budget_seconds: float = BISECT_BUDGET_SECONDS,
    ) -> None:
        self._fn = fn
        self.signature = signature
        self._bisect_budget = bisect_budget_seconds
        self._failures = FailureLog(_log, INPUTS_FAILED)

    def run(
        self, groups: Sequence[TensorGroup], traces: Mapping[int, Trace] = NO_TRACES
    ) -> list[TensorGroup]:
        """Predict a whole batch. Raises nothing that the model raises.

        ``traces``: those that rows belong to, by their position in the batch.
        """
        answers = []
        first = 0
        for group in groups:
            deadline = time.monotonic() + self._bisect_budget
            rows = range(first, first + group.rows)
            first += group.rows
            of_rows = of_positions(traces, rows)
            answers += self._search(group.rows, group.arrays, deadline, of_rows)
        errors = [answer for answer in answers if answer.error is not None]
        if errors:
            self._failures.add(sum(answer.rows for answer in errors), errors[-1].error)
        return answers

    def _search(
        self, rows: int, arrays: list[Array], deadline: float, traces: Traces
    ) -> list[TensorGroup]:
        try:
            with current(traces):
                return [TensorGroup(rows, self._call(rows, arrays))]
        except Exception as error:
            # What a function returns wrongly it returns wrongly for all.
            is_searched = rows > 1 and not isinstance(error, WrongOutputs)
            if is_searched and time.monotonic() < deadline:
                half = rows // 2
                first, second = [a[:half] for a in arrays], [a[half:] for a in arrays]
                return [
                    *self._search(half, first, deadline, traces[:half]),
                    *self._search(rows - half, second, deadline, traces[half:]),
                ]
            return [TensorGroup(rows, [], error)]

    def _call(self, rows: int, arrays: list[Array]) -> list[Array]:
        names = (spec.name for spec in self.signature.inputs)
        outputs = self._fn(dict(zip(names, arrays)))
        specs = self.signature.outputs
        if isinstance(outputs, Mapping):
            missing = [spec.name for spec in specs if spec.name not in outputs]
            if missing:
                raise WrongOutputs(f"the model returned no output {missing[0]!r}")
            values = [outputs[spec.name] for spec in specs]
        elif isinstance(outputs, (tuple, list)) and len(specs) > 1:
            values = list(outputs)
        else:
            values = [outputs]
        if len(values) != len(specs):
            raise WrongOutputs(f"the model returned {len(values)} outputs, not {len(specs)}")
        return [_output(spec, value, rows) for spec, value in zip(specs, values)]


class WrongOutputs(ValueError):
    """The predict function did not return what its signature says."""


def _output(spec: TensorSpec, value: Any, rows: int) -> Array:
    if hasattr(value, "detach"):
        # A tensor of torch, which may hold a graph.
        value = value.detach().cpu()
    array = np.asarray(value)
    if spec.misfit(array.shape) or array.shape[0] != rows:
        raise WrongOutputs(
            f"output {spec.name!r} has the shape {list(array.shape)}, not {list(spec.shape)} with "
            f"{rows} rows"
        )
    if spec.datatype == "BYTES":
        if array.dtype.kind not in _TEXT_KINDS:
            raise WrongOutputs(f"output {spec.name!r} is {array.dtype} and no texts")
        if array.dtype.kind == "O":
            for element in array.reshape(-1):
                if not isinstance(element, (str, bytes)):
                    what = type(element).__name__
                    raise WrongOutputs(f"output {spec.name!r} has a {what} and no texts")
        return array
    try:
        cast = array.astype(_DTYPES[spec.datatype], casting="same_kind", copy=False)
    except TypeError as error:
        raise WrongOutputs(
            f"output {spec.name!r} is {array.dtype}, which is no {spec.datatype}"
        ) from error
    found: Array = np.ascontiguousarray(cast)
    return found
