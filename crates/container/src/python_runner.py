"""Serves a Python function as a model container.

Started as `python3 -c <this text> FILE.py:function` with CLIPPER_MODEL_NAME, CLIPPER_MODEL_VERSION,
CLIPPER_IP, CLIPPER_PORT and CLIPPER_INPUT_TYPE in the environment. The function is called with a
list of inputs (numpy arrays for numbers, str for strings, bytes for bytes) and returns a list with
one output per input: a str goes out as it is, anything else as JSON. What the function prints goes
to the server's log. Needs Python 3.9, pyzmq and numpy.
"""

import importlib.util
import json
import os
import signal
import struct
import sys
import threading
import time
import traceback

try:
    import numpy
    import zmq
except ImportError as error:
    sys.exit(f"cannot serve a Python model: {error}; install pyzmq and numpy for {sys.executable}")

RPC_VERSION = 3
NEW_CONTAINER, CONTENT, HEARTBEAT = 0, 1, 2
SEND_METADATA, EXTENSIONS = 1, 2
# The extension by which an answer may hold an error in place of an output, and what marks its
# length.
QUERY_ERRORS = 1
ERROR_MARK = 1 << 63
PREDICT = 0
INPUT_TYPES = ["bytes", "integers", "floats", "doubles", "strings"]
DTYPES = {"integers": "<i4", "floats": "<f4", "doubles": "<f8"}

HEARTBEAT_SECONDS = 5.0
SILENCE_SECONDS = 30.0
RECONNECT_MILLIS = 100
RECONNECT_MAX_MILLIS = 500
# How long one batch may be searched for the inputs that the function fails on.
SEARCH_SECONDS = 10.0
# A server that refuses this container closes at once: do not ask it all the time. The pause after
# a connection that ended young doubles; one that lived long enough starts again at the shortest.
PAUSE_SECONDS = 0.05
PAUSE_MAX_SECONDS = 2.0
SETTLED_SECONDS = 5.0


class WrongOutputs(Exception):
    """The function did not return a list with one output for each input."""


class BrokenMessage(Exception):
    """The server sent something that is not protocol version 3."""


def log(text):
    print(text, file=sys.stderr, flush=True)


def exit_with_server():
    """Ends the process at once when stdin ends: the server at its other end is gone."""

    def watch():
        while os.read(0, 256):
            pass
        os._exit(0)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def load_function(spec):
    """Imports `FILE.py:function`; a message and exit code 1 where that fails."""
    path, _, name = spec.rpartition(":")
    if not path or not name:
        sys.exit(f"'{spec}' is not FILE.py:function")
    path = os.path.abspath(path)
    # As with `python FILE.py`, the model may import what lies beside it.
    sys.path[0:0] = [os.path.dirname(path)]
    module_name = os.path.splitext(os.path.basename(path))[0]
    try:
        module_spec = importlib.util.spec_from_file_location(module_name, path)
        if module_spec is None:
            sys.exit(f"cannot import {path}: its name does not end in .py")
        module = importlib.util.module_from_spec(module_spec)
        # Registered, so that pickles and dataclasses of the model find their module.
        sys.modules[module_name] = module
        module_spec.loader.exec_module(module)
    except Exception:
        traceback.print_exc()
        sys.exit(f"cannot import {path}")
    function = getattr(module, name, None)
    if not callable(function):
        sys.exit(f"{path} has no function '{name}'")
    return function


def to_json(value):
    """Turns what `json` does not know into what it knows: numpy's scalars and arrays, bytes."""
    if isinstance(value, (numpy.generic, numpy.ndarray)):
        return value.tolist()
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", "replace")
    raise TypeError(f"an output of type {type(value).__name__} cannot be written as JSON")


def output_text(value):
    return value if isinstance(value, str) else json.dumps(value, default=to_json)


class Failure:
    """In place of an output: why there is none."""

    def __init__(self, why, error=None):
        self.why = why
        self.error = error


def decode_input(input_type, frame):
    if input_type == "bytes":
        return frame
    if input_type == "strings":
        return frame.decode("utf-8")
    # A copy, because a view of the frame would be read-only.
    return numpy.frombuffer(frame, dtype=DTYPES[input_type]).copy()


def call(function, inputs):
    """The function's outputs, one for each input."""
    results = function(inputs)
    if isinstance(results, numpy.ndarray):
        results = list(results)
    if not isinstance(results, (list, tuple)):
        raise WrongOutputs(f"the function returned a {type(results).__name__}, not a list")
    if len(results) != len(inputs):
        counts = f"{len(results)} outputs for {len(inputs)} inputs"
        raise WrongOutputs(f"the function returned {counts}")
    return list(results)


def search(function, inputs, deadline):
    """One output or failure per input: a batch that fails is halved until bad inputs are alone."""
    try:
        return call(function, inputs)
    except Exception as error:
        # A function that does not answer input by input is at fault itself.
        of_inputs = not isinstance(error, WrongOutputs)
        if of_inputs and len(inputs) > 1 and time.monotonic() < deadline:
            half = len(inputs) // 2
            halves = inputs[:half], inputs[half:]
            return [output for part in halves for output in search(function, part, deadline)]
        return [Failure(f"{type(error).__name__}: {error}", error)] * len(inputs)


def predict(function, input_type, frames):
    """One output text or failure per frame, whatever the function does."""
    outputs = [None] * len(frames)
    inputs, places = [], []
    for place, frame in enumerate(frames):
        try:
            inputs.append(decode_input(input_type, frame))
            places.append(place)
        except ValueError as error:
            outputs[place] = Failure(f"the input is not {input_type}: {error}")
    results = search(function, inputs, time.monotonic() + SEARCH_SECONDS) if inputs else []
    # One for a batch: a function that always fails must not flood the log.
    raised = [result.error for result in results if isinstance(result, Failure)]
    if raised:
        traceback.print_exception(type(raised[0]), raised[0], raised[0].__traceback__)
    for place, result in zip(places, results):
        try:
            failed = isinstance(result, Failure)
            outputs[place] = result if failed else output_text(result)
        except Exception as error:
            traceback.print_exc()
            outputs[place] = Failure(f"{type(error).__name__}: {error}")
    return outputs


def u32(frame):
    if len(frame) != 4:
        raise BrokenMessage("a number has the wrong length")
    return struct.unpack("<I", frame)[0]


def encode(output, error_max_bytes):
    """The frame of an output and the length to announce for it."""
    mark = 0
    if isinstance(output, Failure):
        if error_max_bytes is None:
            output = json.dumps({"error": output.why})
        else:
            whole = output.why.encode("utf-8", "replace")[:error_max_bytes]
            # Not cut inside a character.
            output, mark = whole.decode("utf-8", "ignore"), ERROR_MARK
    # A lone surrogate in an output has no UTF-8; it becomes a question mark.
    frame = output.encode("utf-8", "replace")
    return frame, len(frame) | mark


def send_answer(socket, message_id, outputs, error_max_bytes):
    encoded, lengths = [], []
    for output in outputs:
        frame, length = encode(output, error_max_bytes)
        encoded.append(frame)
        lengths.append(length)
    header = struct.pack(f"<{1 + len(encoded)}Q", len(encoded), *lengths)
    frames = [b"", struct.pack("<I", CONTENT), message_id, struct.pack("<Q", len(header)), header]
    socket.send_multipart(frames + encoded)


def handle(socket, frames, identity, input_type, function, error_max_bytes):
    """Acts on one message of the server.

    Returns the longest error that the server takes; None where it takes none.
    """
    if len(frames) < 4 or frames[0] != b"":
        raise BrokenMessage("it is too short or lacks the empty frame")
    if u32(frames[1]) != RPC_VERSION:
        raise BrokenMessage(f"RPC version {u32(frames[1])}, this container speaks {RPC_VERSION}")
    message_type = u32(frames[2])
    if message_type == HEARTBEAT and u32(frames[3]) == SEND_METADATA:
        type_code = str(INPUT_TYPES.index(input_type)).encode()
        head = [b"", struct.pack("<I", NEW_CONTAINER)]
        # The extensions stand where the original server does not look.
        rpc_version = struct.pack("<II", RPC_VERSION, QUERY_ERRORS)
        socket.send_multipart(head + identity + [type_code, rpc_version])
    if message_type == HEARTBEAT and u32(frames[3]) == EXTENSIONS:
        if len(frames) != 6:
            raise BrokenMessage("its extensions are incomplete")
        return u32(frames[5]) if u32(frames[4]) & QUERY_ERRORS else None
    if message_type != CONTENT or len(frames) < 7 or u32(frames[4]) != PREDICT:
        return error_max_bytes
    header, inputs = frames[6], frames[7:]
    if len(header) < 16 or len(header) % 8:
        raise BrokenMessage("its header has the wrong length")
    type_code, count, *sizes = struct.unpack(f"<{len(header) // 8}Q", header)
    if count != len(inputs) or sizes != [len(frame) for frame in inputs]:
        raise BrokenMessage(f"its header announces other inputs than the {len(inputs)} that came")
    if type_code != INPUT_TYPES.index(input_type):
        outputs = [Failure(f"this container takes {input_type}")] * len(inputs)
    else:
        outputs = predict(function, input_type, inputs)
    send_answer(socket, frames[3], outputs, error_max_bytes)
    return error_max_bytes


def open_socket(context, address):
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MILLIS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MILLIS)
    monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
    socket.connect(address)
    return socket, monitor


def serve_connection(context, address, identity, input_type, function):
    """One connection until it ends; returns why, and how many seconds it lived."""
    socket, monitor = open_socket(context, address)
    connected_at = heard_at = next_heartbeat = error_max_bytes = None
    try:
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(monitor, zmq.POLLIN)
        # Until the port opens libzmq tries by itself, and there is nobody to hear a heartbeat.
        while connected_at is None:
            poller.poll()
            if monitor_event(monitor) == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                connected_at = heard_at = next_heartbeat = time.monotonic()
                log(f"connected to {address}")
        while time.monotonic() - heard_at < SILENCE_SECONDS:
            if time.monotonic() >= next_heartbeat:
                socket.send_multipart([b"", struct.pack("<I", HEARTBEAT)])
                next_heartbeat = time.monotonic() + HEARTBEAT_SECONDS
            ready = dict(poller.poll(max(0.0, next_heartbeat - time.monotonic()) * 1000))
            if socket in ready:
                message = socket.recv_multipart()
                error_max_bytes = handle(
                    socket, message, identity, input_type, function, error_max_bytes
                )
                # Taken after the function has run: its time is not the server's silence.
                heard_at = time.monotonic()
                next_heartbeat = heard_at + HEARTBEAT_SECONDS
            elif monitor in ready and monitor_event(monitor) == zmq.EVENT_DISCONNECTED:
                return "the server closed the connection", time.monotonic() - connected_at
        return f"the server was silent for {SILENCE_SECONDS:.0f} s", SILENCE_SECONDS
    except BrokenMessage as error:
        return f"the server sent a broken message: {error}", time.monotonic() - connected_at
    finally:
        socket.disable_monitor()
        socket.close()


def monitor_event(monitor):
    return struct.unpack("=Hi", monitor.recv_multipart()[0])[0]


def main():
    if len(sys.argv) != 2:
        sys.exit("expected one argument: FILE.py:function")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if os.environ.get("CLIPPER_LIFELINE") == "stdin":
        exit_with_server()
    try:
        keys = ("CLIPPER_MODEL_NAME", "CLIPPER_MODEL_VERSION")
        identity = [os.environ[key].encode() for key in keys]
    except KeyError as error:
        sys.exit(f"the environment variable {error} is not set")
    input_type = os.environ.get("CLIPPER_INPUT_TYPE", "doubles")
    if input_type not in INPUT_TYPES:
        sys.exit(f"CLIPPER_INPUT_TYPE is '{input_type}', expected one of {', '.join(INPUT_TYPES)}")
    host = os.environ.get("CLIPPER_IP", "127.0.0.1")
    address = f"tcp://{host}:{os.environ.get('CLIPPER_PORT', '7000')}"
    function = load_function(sys.argv[1])
    context = zmq.Context()
    pause = PAUSE_SECONDS
    while True:
        reason, lived = serve_connection(context, address, identity, input_type, function)
        log(f"{reason}; reconnecting to {address}")
        pause = PAUSE_SECONDS if lived >= SETTLED_SECONDS else min(pause * 2, PAUSE_MAX_SECONDS)
        time.sleep(pause)


if __name__ == "__main__":
    main()
