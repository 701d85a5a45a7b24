"""Runs a predict function over one batch so that one bad input fails alone.

When a call raises, the batch is halved and each half
tried again, until single inputs fail. A budget of time bounds this: a model that fails on
everything, slowly, answers the rest of its batch with the last error instead. A function that
does not answer one by one at all is not searched.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from .failures import INPUTS_FAILED, FailureLog
from .input_types import InputType, decode_one, decode_rows, is_numeric
from .outputs import WrongOutputCount, error_text, to_texts
from .traces import NO_TRACES, Trace, Traces, current, of_positions

_log = logging.getLogger(__name__)

PredictFn = Callable[[Any], Any]
"""Takes a list of inputs, or a 2-D array when stacked; returns one output for each."""

BISECT_BUDGET_SECONDS = 10.0
"""How long one batch may be searched for its bad inputs."""

ONE_BY_ONE_HINT = (
    "predict is called with a list of inputs and returns a list of outputs; a function f of one "
    "input is served as: def predict(xs): return [f(x) for x in xs]"
)
STACKED_HINT = (
    "predict is called with an array of shape (inputs, values) and returns one output for each "
    "row; a function of one input is served with stacked=False, as: "
    "def predict(xs): return [f(x) for x in xs]"
)


@dataclass(frozen=True)
class BatchResult:
    """One text for each input, in input order; ``failed`` has the errors by position.

    The text of an input that failed is its error as JSON, for servers that take no errors.
    """

    texts: list[str]
    failed: dict[int, Exception]

    @property
    def errors(self) -> int:
        """How many inputs failed."""
        return len(self.failed)


@dataclass(frozen=True)
class _Group:
    """Inputs that go to the predict function together; ``inputs`` can be sliced."""

    positions: list[int]
    inputs: Any


class DecodedBatch:
    """The inputs of one batch, and the errors of those that could not be decoded."""

    def __init__(self, count: int, groups: list[_Group], failed: dict[int, Exception]) -> None:
        self.count = count
        self.groups = groups
        self.failed = failed


class Predictor:
    """A predict function with the input type that it takes.

    With ``stacked``, numeric inputs of one length arrive together as an array of shape
    (inputs, values); a batch of mixed lengths takes one call for each length. Without it, and
    always for strings and bytes, the function gets a list.
    """

    def __init__(
        self,
        fn: PredictFn,
        input_type: InputType,
        stacked: bool = False,
        bisect_budget_seconds: float = BISECT_BUDGET_SECONDS,
    ) -> None:
        self._fn = fn
        self.input_type = input_type
        self._stacked = stacked and is_numeric(input_type)
        self._bisect_budget = bisect_budget_seconds
        self._has_answered = False
        self._failures = FailureLog(_log, INPUTS_FAILED)

    def decode(self, input_type: InputType, frames: Sequence[bytes]) -> DecodedBatch:
        """Decode a batch; inputs that cannot be decoded, or are of another type, are set apart."""
        if input_type is not self.input_type:
            wrong = TypeError(
                f"this model takes {self.input_type.long_name}, not {input_type.long_name}"
            )
            return DecodedBatch(len(frames), [], {at: wrong for at in range(len(frames))})
        if not is_numeric(input_type):
            return self._decode_each(frames)
        return self._decode_numeric(frames)

    def run(self, batch: DecodedBatch, traces: Mapping[int, Trace] = NO_TRACES) -> BatchResult:
        """Predict a whole batch. Raises nothing that the model raises.

        ``traces``: those that inputs belong to, by position.
        """
        texts: dict[int, str] = {}
        failed: dict[int, Exception] = {}

        def take(position: int, output: str | Exception) -> None:
            if isinstance(output, Exception):
                failed[position] = output
                output = error_text(output)
            texts[position] = output

        for position, error in batch.failed.items():
            take(position, error)
        search = _Search(self._fn, self._bisect_budget)
        for group in batch.groups:
            outputs = search.run(group.inputs, of_positions(traces, group.positions))
            self._explain(outputs)
            for position, output in zip(group.positions, outputs):
                take(position, output)
        if failed:
            self._failures.add(len(failed), next(reversed(failed.values())))
        return BatchResult([texts[position] for position in range(batch.count)], failed)

    def _explain(self, outputs: Sequence[str | Exception]) -> None:
        """Say what a predict function is, where the first calls look as if it were none.

        Most who meet these errors have given a function of one input.
        """
        if self._has_answered or any(isinstance(output, str) for output in outputs):
            self._has_answered = True
            return
        hint = STACKED_HINT if self._stacked else ONE_BY_ONE_HINT
        errors = {id(error): error for error in outputs if isinstance(error, Exception)}
        for error in errors.values():
            if _is_of_the_function(error) and hint not in str(error):
                error.args = (f"{error} ({hint})",)

    def _decode_each(self, frames: Sequence[bytes]) -> DecodedBatch:
        positions: list[int] = []
        inputs: list[Any] = []
        failed: dict[int, Exception] = {}
        for position, frame in enumerate(frames):
            try:
                inputs.append(decode_one(self.input_type, frame))
                positions.append(position)
            except ValueError as error:
                failed[position] = error
        groups = [_Group(positions, inputs)] if positions else []
        return DecodedBatch(len(frames), groups, failed)

    def _decode_numeric(self, frames: Sequence[bytes]) -> DecodedBatch:
        by_length: dict[int, list[int]] = {}
        for position, frame in enumerate(frames):
            by_length.setdefault(len(frame), []).append(position)
        groups: list[_Group] = []
        failed: dict[int, Exception] = {}
        for positions in by_length.values():
            try:
                rows = decode_rows(self.input_type, [frames[at] for at in positions])
                groups.append(_Group(positions, rows))
            except ValueError as error:
                failed.update((at, error) for at in positions)
        if not self._stacked and groups:
            groups = [_in_input_order(groups)]
        return DecodedBatch(len(frames), groups, failed)


def _in_input_order(groups: list[_Group]) -> _Group:
    if len(groups) == 1:
        return _Group(groups[0].positions, list(groups[0].inputs))
    pairs: list[tuple[int, Any]] = [
        pair for group in groups for pair in zip(group.positions, group.inputs)
    ]
    pairs.sort(key=lambda pair: pair[0])
    return _Group([position for position, _ in pairs], [row for _, row in pairs])


def _is_of_the_function(error: Exception) -> bool:
    """Whether it is what a function of one input fails with when it gets several."""
    if isinstance(error, WrongOutputCount):
        return error.of_function
    return isinstance(error, (AttributeError, TypeError)) and "list" in str(error)


class _Search:
    """One batch's calls to the model, with the time left for searching bad inputs."""

    def __init__(self, fn: PredictFn, budget_seconds: float) -> None:
        self._fn = fn
        self._deadline = time.monotonic() + budget_seconds

    def run(self, inputs: Any, traces: Traces) -> Sequence[str | Exception]:
        """One text or error for each input of the slice ``inputs``."""
        try:
            with current(traces):
                return to_texts(self._fn(inputs), len(inputs))
        except Exception as error:
            # A wrong count is no input's fault: which output belongs to which is not known.
            is_searched = not isinstance(error, WrongOutputCount) and len(inputs) > 1
            if is_searched and time.monotonic() < self._deadline:
                half = len(inputs) // 2
                return [
                    *self.run(inputs[:half], traces[:half]),
                    *self.run(inputs[half:], traces[half:]),
                ]
            return [error] * len(inputs)
