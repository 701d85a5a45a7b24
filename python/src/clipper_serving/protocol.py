"""Clipper's model RPC, version 3: frames to messages and back, without any IO.

All integers are little-endian. Each function takes or returns the frames of one ZeroMQ
multipart message as a DEALER socket sees it, the empty delimiter first.
"""

from __future__ import annotations

import enum
import itertools
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from .errors import ProtocolError
from .input_types import InputType
from .traces import Trace

Buffer = Union[bytes, memoryview]

RPC_VERSION = 3

QUERY_ERRORS = 1
"""The extension by which an answer may hold an error in place of an output; a bit."""

NOTICES = 2
"""The extension by which the server says what it thinks of this container; a bit."""

BUILD = 4
"""The extension by which the container says which code and files it runs; a bit."""

STREAMS = 16
"""The extension by which answers come in pieces; a bit. Only containers that stream know it."""
TENSORS = 8
"""The extension by which batches and answers are tensors; a bit."""

JOINED = 32
"""The extension by which the items of a message may be in one frame; a bit."""

COMPUTED = 64
"""The extension by which an answer says how long this container has computed; a bit."""

TRACES = 128
"""The extension by which the server says which trace an input belongs to; a bit."""

JOINED_MAX_BYTES = 16 << 10
"""Joined outputs have at most so many bytes together."""

_BUILD_MAX = 128

_NEW_CONTAINER = 0
_CONTENT = 1
_HEARTBEAT = 2
_BUILD = 3
_STREAMS = 4
_PIECE = 5
_END = 6
_SEND_METADATA = 1
_EXTENSIONS = 2
_NOTICE = 3
_OPEN = 4
_CREDIT = 5
_CANCEL = 6
_TRACES = 7
_PREDICT = 0
_FEEDBACK = 1

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")

_ERROR_MARK = 1 << 63
"""Marks the length of an output that is an error."""


@dataclass(frozen=True)
class Heartbeat:
    """The server's answer to a heartbeat.

    ``wants_metadata`` says that the server does not know this connection yet.
    """

    wants_metadata: bool


@dataclass(frozen=True)
class Extensions:
    """The extensions that the server accepts of those announced, as bits.

    ``error_max_bytes`` is the longest error text that it takes.
    """

    accepted: int
    error_max_bytes: int


class Level(enum.IntEnum):
    """How a notice of the server is meant."""

    INFORMATION = 0
    """This container is a replica from now on."""
    WARNING = 1
    """It stays connected, but gets no queries."""
    ERROR = 2
    """The server closes the connection."""


@dataclass(frozen=True)
class Notice:
    """What the server thinks of this container, in words for its log."""

    level: Level
    text: str


@dataclass(frozen=True)
class Open:
    """The batch with this id, which follows, is to be answered in pieces: at first so many."""

    message_id: int
    pieces: int
    piece_max_bytes: int


@dataclass(frozen=True)
class Credit:
    """Room for so many more pieces of an answer."""

    message_id: int
    pieces: int


@dataclass(frozen=True)
class Cancel:
    """Nobody wants the rest of an answer."""

    message_id: int


@dataclass(frozen=True)
class BatchTraces:
    """The traces that inputs of the batch with this id belong to, which follows, by position."""

    message_id: int
    traces: dict[int, Trace]


@dataclass(frozen=True)
class PredictRequest:
    """One batch: ``frames`` holds the raw bytes of each input, in order."""

    message_id: int
    input_type: InputType
    frames: list[Buffer]


@dataclass(frozen=True)
class FeedbackRequest:
    """A feedback message; it carries nothing that a container answers."""

    message_id: int


ServerMessage = Union[
    Heartbeat,
    Extensions,
    Notice,
    Open,
    Credit,
    Cancel,
    BatchTraces,
    PredictRequest,
    FeedbackRequest,
]


def heartbeat() -> list[bytes]:
    """The frames that say that this container is alive."""
    return [b"", _U32.pack(_HEARTBEAT)]


def new_container(
    name: str,
    version: str,
    input_type: InputType,
    more_extensions: int = 0,
    signature: bytes | None = None,
) -> list[bytes]:
    """The frames that register this container as a replica of ``name``:``version``.

    The extensions are announced behind the RPC version, in a frame of which the original server
    reads the first four bytes; ``more_extensions`` are those that not every container knows.
    ``signature`` is what a container for tensors takes and gives.
    """
    extensions = QUERY_ERRORS | NOTICES | BUILD | JOINED | COMPUTED | TRACES | more_extensions
    if signature is not None:
        extensions |= TENSORS
    frames = [
        b"",
        _U32.pack(_NEW_CONTAINER),
        name.encode("utf-8"),
        version.encode("utf-8"),
        str(int(input_type)).encode("ascii"),
        _U32.pack(RPC_VERSION) + _U32.pack(extensions),
    ]
    return frames if signature is None else [*frames, signature]


def build(text: str) -> list[bytes]:
    """The frames that state which build this container runs.

    Only for a server that has accepted ``BUILD``. Raises ``ValueError`` for what is no build.
    """
    visible = text.isascii() and all("!" <= letter <= "~" for letter in text)
    if not visible or not 1 <= len(text) <= _BUILD_MAX:
        raise ValueError(
            f"a build is 1 to {_BUILD_MAX} visible ASCII characters without spaces, not {text!r}"
        )
    return [b"", _U32.pack(_BUILD), text.encode("ascii")]


def lanes(count: int) -> list[bytes]:
    """The frames that say how many queries this container answers at the same time.

    Only for a server that has accepted ``STREAMS``, as the next two.
    """
    return [b"", _U32.pack(_STREAMS), _U32.pack(count)]


def piece(message_id: int, text: bytes) -> list[bytes]:
    """The frames of a piece of the answer to ``message_id``."""
    return [b"", _U32.pack(_PIECE), _U32.pack(message_id), text]


def end(message_id: int, error: bytes | None = None) -> list[bytes]:
    """The frames that end the answer to ``message_id``, with an error or as it should."""
    frames = [b"", _U32.pack(_END), _U32.pack(message_id)]
    return frames if error is None else [*frames, error]


def prediction_response(
    message_id: int,
    outputs: Sequence[str],
    errors: Mapping[int, bytes] | None = None,
    joined: bool = False,
    computed: float | None = None,
) -> list[bytes]:
    """The frames that answer batch ``message_id``, one output text for each input.

    ``errors`` has the texts that go out as errors in place of outputs, by position; only for a
    server that has accepted ``QUERY_ERRORS``. ``joined``: it has accepted ``JOINED``.
    ``computed``: how long this container has computed, in seconds, where it has accepted
    ``COMPUTED``.
    """
    frames = [output.encode("utf-8") for output in outputs]
    lengths = [len(frame) for frame in frames]
    for position, error in (errors or {}).items():
        frames[position] = error
        lengths[position] = len(error) | _ERROR_MARK
    if joined and len(frames) > 1 and sum(map(len, frames)) <= JOINED_MAX_BYTES:
        frames = [b"".join(frames)]
    return [*_answer_head(message_id, lengths, computed), *frames]


def tensor_response(
    message_id: int, parts: Sequence[Buffer], computed: float | None = None
) -> list[Buffer]:
    """The frames that answer batch ``message_id`` of tensors (``tensors.encode_answer``)."""
    return [*_answer_head(message_id, [len(part) for part in parts], computed), *parts]


def _answer_head(
    message_id: int, lengths: Sequence[int], computed: float | None
) -> list[bytes]:
    header = struct.pack(f"<{len(lengths) + 1}Q", len(lengths), *lengths)
    if computed is not None:
        header += _U64.pack(max(0, int(computed * 1e6)))
    return [
        b"",
        _U32.pack(_CONTENT),
        _U32.pack(message_id),
        _U64.pack(len(header)),
        header,
    ]


HEAD_FRAMES = 8
"""Of a batch: those before its inputs, and the description of a batch of tensors."""


def decode_server_message(frames: Sequence[Any]) -> ServerMessage:
    """Read one message of the server.

    Raises ``ProtocolError`` for every message that the protocol does not know.
    """
    if len(frames) < 4 or frames[0] != b"":
        raise ProtocolError(f"a message of {len(frames)} frames without its parts")
    version = _u32(frames[1], "RPC version")
    if version != RPC_VERSION:
        raise ProtocolError(f"the server speaks RPC version {version}, not {RPC_VERSION}")
    kind = _u32(frames[2], "message type")
    if kind == _HEARTBEAT:
        return _decode_heartbeat(frames)
    if kind != _CONTENT:
        raise ProtocolError(f"unknown message type {kind}")
    return _decode_content(frames)


def _decode_heartbeat(frames: Sequence[Any]) -> ServerMessage:
    kind = _u32(frames[3], "heartbeat kind")
    if kind == _EXTENSIONS:
        if len(frames) != 6:
            raise ProtocolError(f"extensions in {len(frames)} frames instead of 6")
        return Extensions(_u32(frames[4], "extensions"), _u32(frames[5], "error length"))
    if kind == _NOTICE:
        if len(frames) != 6:
            raise ProtocolError(f"a notice in {len(frames)} frames instead of 6")
        level = min(_u32(frames[4], "level"), Level.ERROR)
        return Notice(Level(level), frames[5].decode("utf-8", "replace"))
    if kind in (_OPEN, _CREDIT, _CANCEL):
        return _decode_stream_order(kind, frames)
    if kind == _TRACES:
        return _decode_traces(frames)
    return Heartbeat(kind == _SEND_METADATA)


def _decode_stream_order(kind: int, frames: Sequence[Any]) -> ServerMessage:
    if len(frames) != (5 if kind == _CANCEL else 6):
        raise ProtocolError(f"a message about a stream in {len(frames)} frames")
    message_id = _u32(frames[4], "message id")
    if kind == _CANCEL:
        return Cancel(message_id)
    if kind == _CREDIT:
        return Credit(message_id, _u32(frames[5], "credit"))
    if len(frames[5]) != 8:
        raise ProtocolError(f"an opened stream with {len(frames[5])} bytes instead of 8")
    pieces, piece_max_bytes = struct.unpack("<2I", frames[5])
    return Open(message_id, pieces, piece_max_bytes)


def _decode_traces(frames: Sequence[Any]) -> BatchTraces:
    if len(frames) != 6:
        raise ProtocolError(f"traces in {len(frames)} frames instead of 6")
    traces = {}
    for line in bytes(frames[5]).decode("utf-8", "replace").splitlines():
        try:
            position, parent, *state = line.split(" ", 2)
            traces[int(position)] = Trace(parent, *state)
        except ValueError as error:
            raise ProtocolError(f"{line!r} is no trace of an input") from error
    return BatchTraces(_u32(frames[4], "message id"), traces)


def _decode_content(frames: Sequence[Any]) -> ServerMessage:
    message_id = _u32(frames[3], "message id")
    if len(frames) < 5:
        raise ProtocolError("a request without its type")
    request = _u32(frames[4], "request type")
    if request == _FEEDBACK:
        return FeedbackRequest(message_id)
    if request != _PREDICT:
        raise ProtocolError(f"unknown request type {request}")
    if len(frames) < 7:
        raise ProtocolError("a prediction request without its header")
    header = frames[6]
    if len(header) < 16 or len(header) % 8:
        raise ProtocolError(f"a request header of {len(header)} bytes")
    kind, count, *sizes = struct.unpack(f"<{len(header) // 8}Q", header)
    inputs = list(frames[7:])
    if count > 1 and len(inputs) == 1 and count == len(sizes) and sum(sizes) == len(inputs[0]):
        ends = list(itertools.accumulate(sizes))
        joined = inputs[0]
        inputs = [joined[end - size : end] for size, end in zip(sizes, ends)]
    if count != len(inputs) or sizes != [len(frame) for frame in inputs]:
        raise ProtocolError("a request header that does not describe its inputs")
    try:
        return PredictRequest(message_id, InputType(kind), inputs)
    except ValueError as error:
        raise ProtocolError(f"unknown input type {kind}") from error


def _u32(frame: bytes, what: str) -> int:
    if len(frame) != _U32.size:
        raise ProtocolError(f"{what} of {len(frame)} bytes instead of {_U32.size}")
    value: int = _U32.unpack(frame)[0]
    return value
