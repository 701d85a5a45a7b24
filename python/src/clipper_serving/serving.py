"""``serve`` and ``@container``: turn a predict function into a replica of a Clipper model."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Callable

from . import metrics as user_metrics
from . import protocol
from .building import BUILD_VARIABLE, FilesRead, build_of
from .container_metrics import ContainerMetrics
from .errors import ConfigurationError
from .input_types import InputType
from .loaders import model_being_loaded
from .metrics_server import MetricsServer
from .predictor import PredictFn, Predictor
from .rpc import Replica, RpcClient, Streaming, Timing
from .rpc_keys import VARIABLES as KEY_VARIABLES
from .rpc_keys import key_of
from .signatures import complete
from .stopping import (
    LIFELINE_VARIABLE,
    StopSignal,
    is_supervised,
    stop_on_signals,
    stop_with_parent,
)
from .streaming import DEFAULT_STREAMS, STREAMS_MAX, joined, streams_by_itself
from .tensors import Signature, Specs, TensorPredictor

_log = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_RPC_PORT = 7000
DEFAULT_METRICS_PORT = 1390
DEFAULT_INPUT_TYPE = "doubles"
ANY_PORT = "any"
"""In place of the metrics' port: one that is free."""

_MAX_PORT = 65535

_files_read = FilesRead()
"""From the import of this module on, which stands before a program loads its model."""


@dataclass(frozen=True)
class Settings:
    """How a container serves; ``None`` leaves a setting to the environment.

    ``name``, ``version`` (CLIPPER_MODEL_NAME, CLIPPER_MODEL_VERSION): the model, required.
    ``input_type`` (CLIPPER_INPUT_TYPE, default doubles).
    ``host``, ``port`` (CLIPPER_IP, CLIPPER_PORT, default 127.0.0.1:7000): the server.
    ``stacked``: numeric batches as arrays of shape (inputs, values) instead of lists; by
    default what the predict function says of itself, else no.
    ``metrics_host``, ``metrics_port`` (CLIPPER_CONTAINER_METRICS_HOST, default 127.0.0.1, and
    CLIPPER_CONTAINER_METRICS_PORT, default 1390; 0 turns metrics off, ``any`` takes a free port,
    as a container does that a server has started).
    ``build`` (CLIPPER_MODEL_BUILD): the code and files that answer, as one word without spaces;
    by default a hash of the program's files.
    ``streams`` (CLIPPER_STREAMS): the function takes one input and yields the pieces of its
    answer; so many of its generators run at the same time. By default what the function says of
    itself, else 16 if it is an asynchronous generator, else it does not stream (0).

    Keys for servers that ask for them are in the environment alone: CLIPPER_RPC_KEY_NAME and
    CLIPPER_RPC_KEY, or CLIPPER_RPC_SERVER_KEY and CLIPPER_RPC_SECRET_KEY for CURVE.
    """

    name: str | None = None
    version: str | int | None = None
    input_type: str | InputType | None = None
    host: str | None = None
    port: int | None = None
    stacked: bool | None = None
    metrics_host: str | None = None
    metrics_port: int | None = None
    build: str | None = None
    streams: int | None = None
    inputs: Specs | None = None
    outputs: Specs | None = None

    def signature(self) -> Signature | None:
        """Of a model over tensors. Raises ``ConfigurationError`` for what cannot be one."""
        if self.inputs is None and self.outputs is None:
            return None
        if self.inputs is None or self.outputs is None:
            raise ConfigurationError("give inputs and outputs, or neither")
        return Signature.of(self.inputs, self.outputs)

    def completed(self, fn: Any) -> Settings:
        """With the signature that type hints or an example say, where none was written."""
        if self.inputs is None and self.input_type is not None:
            if InputType.parse(self.input_type) is not InputType.TENSORS:
                return self
        of = fn.fn if isinstance(fn, Container) else fn
        inputs, outputs = complete(of, self.inputs, self.outputs)
        return replace(self, inputs=inputs, outputs=outputs)

    def replica(self, env: Mapping[str, str]) -> Replica:
        """The replica to serve. Raises ``ConfigurationError`` for what is missing or wrong."""
        name = _required(self.name, env, "CLIPPER_MODEL_NAME", "model name")
        version = _required(self.version, env, "CLIPPER_MODEL_VERSION", "model version")
        input_type = self.input_type
        is_tensors = self.inputs is not None
        if input_type is None and is_tensors:
            input_type = InputType.TENSORS
        if input_type is None:
            input_type = env.get("CLIPPER_INPUT_TYPE") or DEFAULT_INPUT_TYPE
        if (InputType.parse(input_type) is InputType.TENSORS) != is_tensors:
            raise ConfigurationError(
                "inputs and outputs are what a model of type tensors has, and no other: "
                "@container(inputs={...}, outputs={...}), or type hints"
            )
        host = self.host or env.get("CLIPPER_IP") or DEFAULT_HOST
        port = _port(self.port, env, "CLIPPER_PORT", DEFAULT_RPC_PORT)
        return Replica(name, version, InputType.parse(input_type), f"tcp://{host}:{port}")

    def generators(self, env: Mapping[str, str], fn: Any) -> int:
        """How many generators of ``fn`` run at the same time; 0 if it does not stream."""
        wanted: Any = self.streams
        if wanted is None:
            wanted = env.get("CLIPPER_STREAMS") or getattr(fn, "streams", None)
        if wanted is None:
            of = fn.fn if isinstance(fn, Container) else fn
            wanted = DEFAULT_STREAMS if streams_by_itself(of) else 0
        try:
            count = int(wanted)
        except ValueError as error:
            raise ConfigurationError(f"streams: {wanted!r} is no number") from error
        if not 0 <= count <= STREAMS_MAX:
            raise ConfigurationError(f"streams: {count} is not 0 to {STREAMS_MAX}")
        return count

    def metrics_address(self, env: Mapping[str, str]) -> tuple[str, int | None] | None:
        """Host and port of the metrics endpoint, port ``None`` for a free one; ``None``: off."""
        host = self.metrics_host or env.get("CLIPPER_CONTAINER_METRICS_HOST") or DEFAULT_HOST
        variable = "CLIPPER_CONTAINER_METRICS_PORT"
        text = env.get(variable) or (ANY_PORT if is_supervised(env) else None)
        if self.metrics_port is None and text == ANY_PORT:
            return host, None
        port = _port(self.metrics_port, env, variable, DEFAULT_METRICS_PORT)
        return (host, port) if port else None


def serve(
    fn: PredictFn,
    *,
    name: str | None = None,
    version: str | int | None = None,
    input_type: str | InputType | None = None,
    host: str | None = None,
    port: int | None = None,
    stacked: bool | None = None,
    metrics_host: str | None = None,
    metrics_port: int | None = None,
    build: str | None = None,
    streams: int | None = None,
    inputs: Specs | None = None,
    outputs: Specs | None = None,
    stop: StopSignal | None = None,
    timing: Timing | None = None,
) -> None:
    """Serve ``fn`` until SIGTERM, SIGINT or ``stop``; see ``Settings`` for the arguments.

    ``fn`` takes a list of inputs (1-D arrays, strings or bytes; one 2-D array when
    ``stacked``) and returns one output for each, in order. Outputs that are not strings are
    sent as JSON. If it raises, the batch is searched for the inputs at fault, and only these
    are answered with the error. With ``streams``, or if it is an asynchronous generator, ``fn``
    takes one input and yields the pieces of its answer; so many of its generators run at the
    same time. With ``inputs`` and ``outputs``, each ``{name: (datatype, shape)}`` or
    ``{name: example array}``, ``fn`` takes arrays by name, their first axis the rows, and
    returns arrays by name; without ``outputs`` they are what it returns for the example, without
    both what its type hints say. Raises ``ConfigurationError`` before connecting.
    """
    settings = Settings(
        name,
        version,
        input_type,
        host,
        port,
        stacked,
        metrics_host,
        metrics_port,
        build,
        streams,
        inputs,
        outputs,
    )
    run(fn, settings, stop=stop, timing=timing)


def run(
    fn: PredictFn,
    settings: Settings,
    *,
    stop: StopSignal | None = None,
    timing: Timing | None = None,
    env: Mapping[str, str] = os.environ,
    spec: str | None = None,
) -> None:
    """``serve`` with its settings in one value; ``spec`` names the model for its build.

    With a ``stop`` of the caller, signals and the lifeline are the caller's as well. Without,
    a process that has no log yet gets one on standard error.
    """
    _files_read.stop()
    loading = model_being_loaded()
    if loading is not None:
        raise ConfigurationError(
            f"serve() is called while {loading} is being loaded; put it below "
            "if __name__ == '__main__':"
        )
    settings = settings.completed(fn)
    replica = settings.replica(env)
    signature = settings.signature()
    metrics_at = settings.metrics_address(env)
    stacked = settings.stacked
    if stacked is None:
        stacked = bool(getattr(fn, "stacked", False))
    if stop is None:
        logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
        stop = StopSignal()
        stop_on_signals(stop)
        stop_with_parent(stop, env)
    _warn_of_misspelt(env)
    predictor: Predictor | TensorPredictor
    streaming = None
    if signature is None:
        count = settings.generators(env, fn)
        streaming = Streaming(fn, count) if count else None
        predict = joined(fn) if streaming else fn
        predictor = Predictor(predict, replica.input_type, stacked and not streaming)
    else:
        predictor = TensorPredictor(fn, signature)
    client = RpcClient(
        replica,
        predictor,
        stop,
        ContainerMetrics(user_metrics.REGISTRY),
        timing,
        build=_build(settings.build or env.get(BUILD_VARIABLE), spec),
        streaming=streaming,
        key=key_of(env),
    )
    try:
        with ExitStack() as stack:
            if metrics_at is not None:
                server = MetricsServer(user_metrics.REGISTRY, *metrics_at, client.is_ready)
                client.metrics_at = stack.enter_context(server).address
            client.run()
    finally:
        stop.finish()


class Container:
    """A predict function with its settings; still callable as the function it wraps."""

    def __init__(self, fn: PredictFn, settings: Settings) -> None:
        self.fn = fn
        self.settings = settings
        self.stacked = bool(settings.stacked)
        self.streams = settings.streams
        self.__doc__ = fn.__doc__
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)

    def __call__(self, inputs: Any) -> Any:
        return self.fn(inputs)

    def serve(self, **changes: Any) -> None:
        """Serve it; keyword arguments are those of ``serve`` and replace the decorator's."""
        stop, timing = changes.pop("stop", None), changes.pop("timing", None)
        run(self.fn, replace(self.settings, **changes), stop=stop, timing=timing)


def container(
    *,
    name: str | None = None,
    version: str | int | None = None,
    input_type: str | InputType | None = None,
    host: str | None = None,
    port: int | None = None,
    stacked: bool | None = None,
    metrics_host: str | None = None,
    metrics_port: int | None = None,
    build: str | None = None,
    streams: int | None = None,
    inputs: Specs | None = None,
    outputs: Specs | None = None,
) -> Callable[[PredictFn], Container]:
    """Declare a predict function's settings where it is written; ``.serve()`` serves it.

    The command line reads them as well: ``python -m clipper_serving serve file.py:function``.
    """
    settings = Settings(
        name,
        version,
        input_type,
        host,
        port,
        stacked,
        metrics_host,
        metrics_port,
        build,
        streams,
        inputs,
        outputs,
    )
    return lambda fn: Container(fn, settings)


VARIABLES = (
    "CLIPPER_MODEL_NAME",
    "CLIPPER_MODEL_VERSION",
    "CLIPPER_MODEL_PATH",
    BUILD_VARIABLE,
    "CLIPPER_INPUT_TYPE",
    "CLIPPER_STREAMS",
    "CLIPPER_IP",
    "CLIPPER_PORT",
    "CLIPPER_CONTAINER_METRICS_HOST",
    "CLIPPER_CONTAINER_METRICS_PORT",
    LIFELINE_VARIABLE,
    *KEY_VARIABLES,
)
"""Those that a container reads."""

_ALIKE = 0.85


def _warn_of_misspelt(env: Mapping[str, str]) -> None:
    """Name the variables that look like a container's and are none; others are somebody else's."""
    foreign = [name for name in env if name.startswith("CLIPPER_") and name not in VARIABLES]
    if not foreign:
        return
    # Only now: it costs memory.
    from difflib import get_close_matches

    for name in foreign:
        for meant in get_close_matches(name, VARIABLES, 1, _ALIKE):
            _log.warning("%s is not read by a container; did you mean %s?", name, meant)


def _required(value: str | int | None, env: Mapping[str, str], variable: str, what: str) -> str:
    text = str(value) if value is not None else env.get(variable, "")
    if not text:
        raise ConfigurationError(f"no {what}: give it, or set {variable}")
    if "," in text or ":" in text:
        raise ConfigurationError(f"the {what} {text!r} contains ',' or ':'")
    return text


def _build(given: str | None, spec: str | None) -> str:
    if given is None or given == "":
        return build_of(spec, _files_read.paths)
    try:
        protocol.build(given)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    return given


def _port(value: int | None, env: Mapping[str, str], variable: str, default: int) -> int:
    text = env.get(variable) or default
    if value is None and isinstance(text, str) and "://" in text:
        # Kubernetes sets CLIPPER_PORT=tcp://10.0.0.1:1337 beside a Service of the name "clipper".
        _log.warning(
            "%s is %r, an address and not a port (Kubernetes sets such variables for a Service); "
            "it is left alone, and the port is %d",
            variable,
            text,
            default,
        )
        text = default
    try:
        port = int(text) if value is None else value
    except ValueError as error:
        raise ConfigurationError(f"{variable} is {text!r}, which is no port") from error
    if not 0 <= port <= _MAX_PORT:
        raise ConfigurationError(f"{port} is no port")
    return port
