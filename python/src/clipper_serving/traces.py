"""Which trace an input belongs to, for models that make spans of their own or call others.

A server hands on the W3C trace context of each query (``traceparent`` and ``tracestate``). While a
predict function runs, ``current_traces`` has that of each of its inputs; while the generator of a
streamed answer runs, ``current_trace`` has that of its one input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from typing import Optional

_FLAGS_SAMPLED = 1


@dataclass(frozen=True)
class Trace:
    """The place of a query in a trace: the span of the server that waits for this container.

    ``traceparent`` and ``tracestate`` are the headers as the W3C has them; ``tracestate`` is empty
    where there is none.
    """

    traceparent: str
    tracestate: str = ""

    @property
    def trace_id(self) -> str:
        """The trace, 32 hexadecimal digits."""
        return self.traceparent.split("-")[1]

    @property
    def span_id(self) -> str:
        """The span that the model's own spans are below, 16 hexadecimal digits."""
        return self.traceparent.split("-")[2]

    @property
    def is_sampled(self) -> bool:
        """Whether whoever has begun the trace records it."""
        return bool(int(self.traceparent.split("-")[3], 16) & _FLAGS_SAMPLED)

    def headers(self) -> dict[str, str]:
        """What a call that belongs to the trace is sent with.

        OpenTelemetry's propagators read it as well:
        ``TraceContextTextMapPropagator().extract(trace.headers())``.
        """
        headers = {"traceparent": self.traceparent}
        if self.tracestate:
            headers["tracestate"] = self.tracestate
        return headers


Traces = Sequence[Optional[Trace]]

NO_TRACES: Mapping[int, Trace] = {}
"""Of a batch whose inputs belong to none."""

_current: ContextVar[Traces] = ContextVar("clipper_traces", default=())


def current_traces() -> list[Trace | None]:
    """The trace of each input of this call of the predict function, in their order.

    ``None`` for an input that belongs to none; an empty list if none of them does, and outside of
    a call.
    """
    return list(_current.get())


def current_trace() -> Trace | None:
    """The trace of the first input of this call that belongs to one."""
    return next((trace for trace in _current.get() if trace is not None), None)


def of_positions(traces: Mapping[int, Trace], positions: Sequence[int]) -> Traces:
    """Those of some inputs of a batch; empty if none of the batch's belongs to any."""
    return [traces.get(position) for position in positions] if traces else ()


@contextmanager
def current(traces: Traces) -> Iterator[None]:
    """Let ``current_traces`` have these."""
    if not traces:
        yield
        return
    before = _current.set(traces)
    try:
        yield
    finally:
        _current.reset(before)


def context_of(trace: Trace | None) -> Context | None:
    """A context in which ``current_trace`` has this one, if it is one."""
    if trace is None:
        return None
    context = copy_context()
    context.run(_current.set, (trace,))
    return context
