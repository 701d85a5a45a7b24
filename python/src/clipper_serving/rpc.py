"""The container's side of the RPC connection: register, answer batches, stay connected.

One DEALER socket is one TCP connection: libzmq's own reconnecting is too far away to come, so that
an answer that comes late never reaches a server that did not ask. A closed connection is noticed at
once through the socket's monitor, a silent one by ``Timing.silence``.
"""

from __future__ import annotations

import enum
import logging
import math
import os
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zmq

from . import protocol
from .container_metrics import ContainerMetrics
from .errors import ProtocolError
from .input_types import InputType
from .outputs import error_bytes
from .predictor import Predictor
from .rpc_keys import CurveKeys, NamedKey
from .stopping import StopSignal
from .streaming import Batch, Generators, Outgoing, StreamFn, error_of
from .tensors import TensorPredictor, decode_batch, encode_answer
from .traces import NO_TRACES, Trace

_log = logging.getLogger(__name__)

NO_METRICS = "off"

ERROR_MAX_BYTES = 1024
"""Longest error of a row of tensors, where the server has not said what it takes."""

_LOST = (
    zmq.EVENT_CLOSED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_LEVELS = {
    protocol.Level.INFORMATION: logging.INFO,
    protocol.Level.WARNING: logging.WARNING,
    protocol.Level.ERROR: logging.ERROR,
}
_NEVER_MILLIS = 24 * 60 * 60 * 1000
"""With -1 libzmq would drop what came before a connection ended and has not been read."""
_MONITOR_EVENT = struct.Struct("=Hi")
_OTHER_MECHANISM = 0x11000001
"""ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH."""
# Plain numbers, because combining flags for each frame costs as much as sending it.
_LAST = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


@dataclass(frozen=True)
class Replica:
    """Which model version this container serves, and the server's address (``tcp://...``)."""

    name: str
    version: str
    input_type: InputType
    address: str


@dataclass(frozen=True)
class Timing:
    """The times of a connection, all in seconds.

    ``metadata_repeat``: a request for metadata this soon after the last one answers an older
    heartbeat and is ignored, else the server would count one container twice.
    ``linger``: how long the end waits for the last answer to leave.
    """

    idle_heartbeat: float = 5.0
    silence: float = 30.0
    connect: float = 10.0
    retry_min: float = 0.1
    retry_max: float = 2.0
    metadata_repeat: float = 1.0
    linger: float = 1.0


@dataclass(frozen=True)
class Streaming:
    """A function that streams, and how many of its generators run at the same time."""

    fn: StreamFn
    count: int


class End(enum.Enum):
    """Why a connection ended, in words for the log."""

    STOPPED = "stopped"
    CLOSED = "the server closed the connection"
    SILENT = "the server is silent"
    UNREACHABLE = "cannot connect"
    FOREIGN = (
        "the connection ended before it spoke ZeroMQ; is this the server's port for containers "
        "(7000 by default)?"
    )
    PROTOCOL = "the server does not follow the protocol"
    REFUSED = "the server refuses this container's key; its log says why"
    KEYLESS = (
        "the server takes another security mechanism: does it ask for a key "
        "(CLIPPER_RPC_KEY_NAME and CLIPPER_RPC_KEY, or those of CURVE)?"
    )


class RpcClient:
    """Keeps one replica connected and answers its batches, until ``stop`` is set.

    ``metrics_at`` is where this container's metrics are, ``IP:PORT``. ``build`` says what code and
    files it runs; the server forgets the answers of another build. ``streaming``: answers come in
    pieces, from a server that takes them.
    """

    def __init__(
        self,
        replica: Replica,
        predictor: Predictor | TensorPredictor,
        stop: StopSignal,
        metrics: ContainerMetrics,
        timing: Timing | None = None,
        metrics_at: str = NO_METRICS,
        build: str | None = None,
        streaming: Streaming | None = None,
        key: NamedKey | CurveKeys | None = None,
    ) -> None:
        self.key = key
        self.replica = replica
        self.predictor = predictor
        self.stop = stop
        self.metrics = metrics
        self.timing = timing or Timing()
        self.metrics_at = metrics_at
        self.build = build
        self.streaming = streaming
        self.last_notice: protocol.Notice | None = None
        self._connection: _Connection | None = None

    def is_ready(self) -> bool:
        """Whether the connection is up and the server takes this container for a replica.

        A server that says nothing of it has taken what it was told.
        """
        connection = self._connection
        return connection is not None and connection.is_registered()

    def run(self) -> None:
        """Connect, and reconnect whenever the connection ends, until ``stop`` is set."""
        retry = self.timing.retry_min
        warned = refused = False
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            while not self.stop.is_set():
                # A server that refuses this container is asked again; once said is enough.
                level = logging.DEBUG if refused else logging.INFO
                self._connection = connection = _Connection(context, self, level)
                end = connection.run()
                self._connection = None
                if end is End.STOPPED:
                    return
                if connection.was_useful():
                    retry, warned = self.timing.retry_min, False
                refused = connection.was_connected() and not connection.was_useful()
                level = logging.DEBUG if warned else logging.WARNING
                _log.log(level, "%s: %s; trying again", self.replica.address, end.value)
                warned = True
                self.stop.wait(retry)
                retry = min(retry * 2, self.timing.retry_max)
        finally:
            context.term()


def _identity(metrics_at: str) -> bytes:
    """The name of one connection, which tells a server that reads it where the metrics are.

    Unique, because the original's server refuses a second connection of the same name.
    """
    return f"clipper-metrics={metrics_at};{os.urandom(16).hex()}".encode("ascii")


class _Connection(Outgoing):
    """One TCP connection, from connecting to its end."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], client: RpcClient, log_level: int
    ) -> None:
        self._client = client
        self._log_level = log_level
        self._timing = client.timing
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, _NEVER_MILLIS)
        self._socket.setsockopt(zmq.ROUTING_ID, _identity(client.metrics_at))
        if client.key is not None:
            client.key.apply(self._socket)
        self._monitor = self._socket.get_monitor_socket(
            _LOST | zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED
        )
        self._poller = zmq.Poller()
        for source in (self._socket, self._monitor, client.stop.fileno()):
            self._poller.register(source, zmq.POLLIN)
        self._heard = self._spoke = time.monotonic()
        self._metadata_sent: float | None = None
        self._reached = False
        self._connected = False
        self._lost = False
        self._why_lost: End | None = None
        self._is_unwanted = False
        self._batches = 0
        self._error_max_bytes: int | None = None
        self._joined = False
        self._says_computed = False
        self._traces: protocol.BatchTraces | None = None
        self._generators: Generators | None = None
        self._listens_to: object = None
        if client.streaming is not None:
            # Bounded by what the server has given credits for.
            self._socket.setsockopt(zmq.SNDHWM, 0)

    def is_registered(self) -> bool:
        return self._metadata_sent is not None and not self._is_unwanted

    def was_connected(self) -> bool:
        return self._connected

    def was_useful(self) -> bool:
        """Whether it lived long enough, or did enough, to try again without delay."""
        return self._batches > 0 or (
            self._metadata_sent is not None
            and time.monotonic() - self._metadata_sent > self._timing.retry_max
        )

    def run(self) -> End:
        """Work until something ends this connection; says what it was."""
        try:
            self._socket.connect(self._client.replica.address)
            self._send(protocol.heartbeat())
            while True:
                end = self._step()
                if end is not None:
                    return end
        except ProtocolError as error:
            _log.error("%s", error)
            return End.PROTOCOL
        finally:
            if self._generators is not None:
                self._generators.close()
            self._socket.disable_monitor()
            self._monitor.close(0)
            self._socket.close()

    def _step(self) -> End | None:
        if self._client.stop.is_set():
            self._socket.setsockopt(zmq.LINGER, math.ceil(self._timing.linger * 1000))
            return End.STOPPED
        ready = dict(self._poller.poll(self._poll_millis()))
        if self._monitor in ready:
            self._read_monitor()
        if self._lost:
            self._hear_last_words()
            if self._connected:
                return End.CLOSED
            return self._why_lost or (End.FOREIGN if self._reached else End.UNREACHABLE)
        if self._socket in ready:
            self._receive()
            if self._generators is None:
                return None
        if self._generators is not None:
            self._step_generators(self._generators)
        return self._keep_alive(time.monotonic())

    def _step_generators(self, generators: Generators) -> None:
        # Whoever leaves must not wait for the others.
        while int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._receive()
        began = time.monotonic()
        generators.step()
        if time.monotonic() - began >= self._timing.idle_heartbeat:
            # A long step must not count as the server's silence.
            self._heard = time.monotonic()
        source = generators.fileno()
        if source is not None and source is not self._listens_to:
            self._poller.register(source, zmq.POLLIN)
            self._listens_to = source

    def _poll_millis(self) -> int:
        if self._lost or (self._generators is not None and self._generators.is_busy()):
            return 0
        now = time.monotonic()
        if not self._connected:
            due = self._heard + self._timing.connect
        else:
            idle = max(self._heard, self._spoke) + self._timing.idle_heartbeat
            due = min(idle, self._heard + self._timing.silence)
        return max(0, math.ceil((due - now) * 1000))

    def _keep_alive(self, now: float) -> End | None:
        if not self._connected:
            if now - self._heard < self._timing.connect:
                return None
            return End.FOREIGN if self._reached else End.UNREACHABLE
        if now - self._heard >= self._timing.silence:
            return End.SILENT
        if now - max(self._heard, self._spoke) >= self._timing.idle_heartbeat:
            self._send(protocol.heartbeat())
        return None

    def _read_monitor(self) -> None:
        while int(self._monitor.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            # What zmq.utils.monitor does, which brings all of asyncio.
            event, value = _MONITOR_EVENT.unpack(self._monitor.recv_multipart()[0])
            if event == zmq.EVENT_CONNECTED:
                self._reached = True
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._connected = True
                self._heard = time.monotonic()
                _log.log(self._log_level, "connected to %s", self._client.replica.address)
            elif event & _LOST:
                self._lost = True
                if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                    self._why_lost = End.REFUSED
                elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == _OTHER_MECHANISM:
                    self._why_lost = End.KEYLESS

    def _receive(self) -> None:
        began = time.monotonic()
        frames = self._read()
        message = protocol.decode_server_message(frames)
        self._heard = time.monotonic()
        if isinstance(message, protocol.Heartbeat):
            if message.wants_metadata:
                self._send_metadata(self._heard)
        elif isinstance(message, protocol.Extensions):
            self._agree(message)
        elif isinstance(message, protocol.Notice):
            self._hear(message)
        elif isinstance(message, protocol.BatchTraces):
            self._traces = message
        elif isinstance(message, protocol.PredictRequest):
            if self._generators is not None:
                self._begin(self._generators, message)
            else:
                self._answer(message, began, self._heard)
        elif isinstance(message, (protocol.Open, protocol.Credit, protocol.Cancel)):
            self._order(message)
        else:
            _log.debug("feedback message %d ignored", message.message_id)

    def _read(self) -> list[Any]:
        """One message; what may be long of a batch of tensors stays where it was received."""
        if self._client.replica.input_type is not InputType.TENSORS:
            return list(self._socket.recv_multipart())
        frames = self._socket.recv_multipart(copy=False)
        head = protocol.HEAD_FRAMES
        return [
            frame.bytes if at < head else frame.buffer for at, frame in enumerate(frames)
        ]

    def _send_metadata(self, now: float) -> None:
        sent = self._metadata_sent
        if sent is not None and now - sent < self._timing.metadata_repeat:
            return
        replica = self._client.replica
        self._metadata_sent = now
        predictor = self._client.predictor
        more = protocol.STREAMS if self._client.streaming is not None else 0
        signature = None
        if isinstance(predictor, TensorPredictor):
            signature = predictor.signature.encode()
        kind = replica.input_type
        self._send(
            protocol.new_container(replica.name, replica.version, kind, more, signature)
        )
        _log.log(
            self._log_level,
            "offered to the server as a replica of %s:%s for %s",
            replica.name,
            replica.version,
            replica.input_type.long_name,
        )

    def _agree(self, extensions: protocol.Extensions) -> None:
        takes_errors = extensions.accepted & protocol.QUERY_ERRORS
        self._error_max_bytes = extensions.error_max_bytes if takes_errors else None
        self._joined = bool(extensions.accepted & protocol.JOINED)
        self._says_computed = bool(extensions.accepted & protocol.COMPUTED)
        build = self._client.build
        if build is not None and extensions.accepted & protocol.BUILD:
            self._send(protocol.build(build))
        streaming = self._client.streaming
        if streaming is not None and extensions.accepted & protocol.STREAMS:
            self._generators = Generators(streaming.fn, self)
            self._send(protocol.lanes(streaming.count))

    def _hear(self, notice: protocol.Notice) -> None:
        """Log what the server thinks of this container, unless that is what it said before."""
        self._is_unwanted = notice.level is not protocol.Level.INFORMATION
        if notice != self._client.last_notice:
            text = "".join(letter if letter.isprintable() else "?" for letter in notice.text)
            _log.log(_LEVELS[notice.level], "the server says: %s", text)
        self._client.last_notice = notice

    def _hear_last_words(self) -> None:
        """Hear why the server has closed the connection.

        It says so right before, and on a busy machine both are noticed at once.
        """
        while int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            message = protocol.decode_server_message(self._read())
            if isinstance(message, protocol.Notice):
                self._hear(message)

    def _answer(self, request: protocol.PredictRequest, began: float, received: float) -> None:
        predictor, metrics = self._client.predictor, self._client.metrics
        if isinstance(predictor, TensorPredictor):
            return self._answer_tensors(predictor, request, began, received)
        batch = predictor.decode(request.input_type, request.frames)
        parsed = time.monotonic()
        result = predictor.run(batch, self._traces_of(request))
        handled = time.monotonic()
        self._read_monitor()
        if not self._lost:
            errors: dict[int, bytes] = {}
            if self._error_max_bytes is not None:
                for position, error in result.failed.items():
                    errors[position] = error_bytes(error, self._error_max_bytes)
            form = (self._joined, self._computed(began))
            answer = protocol.prediction_response(
                request.message_id, result.texts, errors, *form
            )
            self._send(answer)
        self._count(len(result.texts), result.errors, (began, received, parsed, handled))

    def _answer_tensors(
        self,
        predictor: TensorPredictor,
        request: protocol.PredictRequest,
        began: float,
        received: float,
    ) -> None:
        if request.input_type is not InputType.TENSORS:
            raise ProtocolError(f"a batch of {request.input_type.long_name} for tensors")
        groups = decode_batch(predictor.signature, request.frames)
        parsed = time.monotonic()
        answers = predictor.run(groups, self._traces_of(request))
        handled = time.monotonic()
        self._read_monitor()
        if not self._lost:
            max_bytes = self._error_max_bytes or ERROR_MAX_BYTES
            parts = encode_answer(predictor.signature, answers, max_bytes)
            computed = self._computed(began)
            self._send(protocol.tensor_response(request.message_id, parts, computed))
        rows = sum(answer.rows for answer in answers)
        errors = sum(answer.rows for answer in answers if answer.error is not None)
        self._count(rows, errors, (began, received, parsed, handled))

    def _traces_of(self, request: protocol.PredictRequest) -> Mapping[int, Trace]:
        """What the server has said of it right before."""
        said, self._traces = self._traces, None
        if said is None or said.message_id != request.message_id:
            return NO_TRACES
        return said.traces

    def _computed(self, began: float) -> float | None:
        """How long a batch has been computed, for a server that wants to know."""
        return time.monotonic() - began if self._says_computed else None

    def _count(self, rows: int, errors: int, times: tuple[float, float, float, float]) -> None:
        """Count one batch; ``times``: when it began, was received, parsed and handled."""
        began, received, parsed, handled = times
        metrics = self._client.metrics
        self._batches += 1
        metrics.predictions.inc(rows)
        metrics.errors.inc(errors)
        metrics.recv.observe((received - began) * 1000)
        metrics.parse.observe((parsed - received) * 1000)
        metrics.handle.observe((handled - parsed) * 1000)
        metrics.end_to_end.observe((time.monotonic() - began) * 1000)
        # A long batch must not count as the server's silence.
        self._heard = time.monotonic()

    def _begin(self, generators: Generators, request: protocol.PredictRequest) -> None:
        predictor = self._client.predictor
        if isinstance(predictor, TensorPredictor):
            raise ProtocolError("tensors have no answers in pieces")
        decode = predictor.decode
        inputs: list[object] = []
        for frame in request.frames:
            batch = decode(request.input_type, [frame])
            inputs.append(batch.failed[0] if batch.failed else batch.groups[0].inputs[0])
        generators.start(request.message_id, inputs, self._traces_of(request))

    def _order(self, order: protocol.Open | protocol.Credit | protocol.Cancel) -> None:
        generators = self._generators
        if generators is None:
            raise ProtocolError("the server wants answers in pieces without having said so")
        if isinstance(order, protocol.Open):
            generators.open(order.message_id, order.pieces, order.piece_max_bytes)
        elif isinstance(order, protocol.Credit):
            generators.credit(order.message_id, order.pieces)
        else:
            generators.cancel(order.message_id)

    def piece(self, message_id: int, text: bytes) -> None:
        self._send(protocol.piece(message_id, text))

    def end(self, message_id: int, error: Exception | None) -> None:
        text = None if error is None else error_of(error, self._error_max_bytes)
        self._send(protocol.end(message_id, text))
        self._ended(1, 0 if error is None else 1)

    def whole(self, batch: Batch) -> None:
        texts = [batch.texts[position] for position in range(batch.count)]
        errors: dict[int, bytes] = {}
        if self._error_max_bytes is not None:
            for position, error in batch.failed.items():
                errors[position] = error_bytes(error, self._error_max_bytes)
        self._send(protocol.prediction_response(batch.message_id, texts, errors))
        self._ended(batch.count, len(batch.failed))

    def _ended(self, answers: int, errors: int) -> None:
        self._batches += 1
        self._client.metrics.predictions.inc(answers)
        self._client.metrics.errors.inc(errors)

    def _send(self, frames: Sequence[protocol.Buffer]) -> None:
        try:
            for frame in frames[:-1]:
                self._socket.send(frame, _MORE)
            self._socket.send(frames[-1], _LAST)
            self._spoke = time.monotonic()
        except zmq.Again:
            self._lost = True
