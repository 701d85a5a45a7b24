"""A signature that was not written down: from a function's type hints, or from an example."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any, Callable

import numpy as np

from .errors import ConfigurationError
from .tensors import Specs

_DIMENSIONS = (int, type(None))


def complete(
    fn: Callable[..., Any], inputs: Specs | None, outputs: Specs | None
) -> tuple[Specs | None, Specs | None]:
    """What ``serve`` was given, with what is missing taken from the function.

    Without inputs, the type hints say both, if they are dictionaries of arrays. Without outputs,
    a function whose inputs are example arrays is called with them. Raises
    ``ConfigurationError`` for what cannot be completed.
    """
    if inputs is not None and outputs is None:
        return inputs, _called(fn, inputs)
    if inputs is None and outputs is None:
        return _hinted(fn) or (None, None)
    return inputs, outputs


def _hinted(fn: Callable[..., Any]) -> tuple[Specs, Specs] | None:
    """``def predict(arrays: Inputs) -> Outputs``, both of them classes of ``TypedDict``."""
    described = fn if hasattr(fn, "__code__") else getattr(type(fn), "__call__", fn)  # noqa: B004
    try:
        hints = typing.get_type_hints(described, include_extras=True)
    except Exception:
        # Names that only a type checker knows: they say nothing here.
        return None
    gives = hints.pop("return", None)
    takes = next(iter(hints.values()), None)
    if not (_is_typed_dict(takes) and _is_typed_dict(gives)):
        return None
    return _tensors("inputs", takes), _tensors("outputs", gives)


def _is_typed_dict(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, dict) and hasattr(hint, "__total__")


def _tensors(side: str, typed: Any) -> dict[str, Any]:
    fields = typing.get_type_hints(typed, include_extras=True)
    return {name: _tensor(f"{side}[{name!r}]", hint) for name, hint in fields.items()}


def _tensor(place: str, hint: Any) -> tuple[Any, tuple[int | None, ...]]:
    """``Annotated[NDArray[np.float32], (-1, 3)]``"""
    array, *notes = typing.get_args(hint) or (hint,)
    shapes = [note for note in notes if _is_shape(note)]
    # NDArray[T] is ndarray[shape, dtype[T]].
    dtypes = [kind for arg in typing.get_args(array) for kind in typing.get_args(arg)]
    dtypes = [kind for kind in dtypes if isinstance(kind, type) and issubclass(kind, np.generic)]
    if len(shapes) != 1 or len(dtypes) != 1:
        raise ConfigurationError(
            f"{place}: the type hint of a tensor says its datatype and its shape, the rows first: "
            "Annotated[NDArray[np.float32], (-1, 3)]"
        )
    return dtypes[0], tuple(shapes[0])


def _is_shape(note: Any) -> bool:
    return isinstance(note, (tuple, list)) and all(isinstance(n, _DIMENSIONS) for n in note)


def _called(fn: Callable[..., Any], inputs: Specs) -> dict[str, Any]:
    """What it returns for an example of its inputs."""
    arrays = inputs.items() if isinstance(inputs, Mapping) else ()
    example = {name: value for name, value in arrays if isinstance(value, np.ndarray)}
    if not example or len(example) != len(inputs):
        raise ConfigurationError(
            "give outputs as well, or an example array for each of the inputs: the outputs are "
            "then those that the function returns for it"
        )
    rows = {array.shape[:1] for array in example.values()}
    if len(rows) != 1 or rows == {()}:
        raise ConfigurationError("the arrays of the example have different numbers of rows")
    (count,) = next(iter(rows))
    try:
        returned = fn(dict(example))
    except Exception as error:
        raise ConfigurationError(
            f"the function failed on the example of its inputs: {type(error).__name__}: {error}"
        ) from error
    if isinstance(returned, Mapping):
        named = dict(returned)
    elif isinstance(returned, tuple) and len(returned) > 1:
        named = {f"output_{at}": value for at, value in enumerate(returned)}
    else:
        named = {"output": returned}
    outputs = {str(name): _plain(value) for name, value in named.items()}
    for name, array in outputs.items():
        if array.shape[:1] != (count,):
            raise ConfigurationError(
                f"output {name!r} has the shape {list(array.shape)} for an example of {count} rows"
            )
    return outputs


def _plain(value: Any) -> np.ndarray[Any, Any]:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return np.asarray(value)
