"""A model container for tests, written from docs/container-protocol.md, on stock pyzmq.

It registers as it is told and answers every input with one text, unless a command says
otherwise. Commands come as JSON lines on stdin:

  {"do": "answer", "how": HOW, "slow_ms": N}   how to answer from now on
  {"do": "send", "frames": [HEX, ...]}         one multipart message as it stands
  {"do": "report"}                             answered by {"event": "report", ...}

Each batch is reported on stdout as {"event": "batch", "id": N, "inputs": [...]} before it is
answered, unless --quiet. The process ends when stdin closes.
"""

import argparse
import array
import json
import os
import struct
import sys
import time

import zmq

NEW_CONTAINER, CONTENT, HEARTBEAT, LANES, PIECE, END = 0, 1, 2, 4, 5, 6
EXTENSIONS = 2
TYPECODES = {1: "i", 2: "f", 3: "d"}


def u32(number):
    return struct.pack("<I", number)


def say(event, **members):
    print(json.dumps({"event": event, **members}), flush=True)


def answer_frames(message_id, outputs):
    return mixed_frames(message_id, outputs, [False] * len(outputs))


def mixed_frames(message_id, outputs, are_errors, computed_us=None):
    """Outputs, some of them marked as errors, and how long they were computed."""
    words = [len(text) | (is_error << 63) for text, is_error in zip(outputs, are_errors)]
    if computed_us is not None:
        words.append(computed_us)
    header = struct.pack("<%dQ" % (len(words) + 1), len(outputs), *words)
    return with_header(message_id, header) + outputs


def error_frames(message_id, text):
    """One output, marked as an error."""
    return mixed_frames(message_id, [text], [True])


def piece_frames(message_id, text=b'"p"'):
    return [b"", u32(PIECE), u32(message_id), text]


def end_frames(message_id, *error):
    return [b"", u32(END), u32(message_id), *error]


def with_header(message_id, header):
    return [b"", u32(CONTENT), u32(message_id), struct.pack("<Q", len(header)), header]


class Container:
    def __init__(self, options):
        self.options = options
        self.how = options.how
        self.slow_ms = options.slow_ms
        self.held = []
        self.batches = 0
        self.inputs = 0
        self.registrations = 0
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(options.connect)

    def run(self):
        poller = zmq.Poller()
        poller.register(self.socket, zmq.POLLIN)
        poller.register(sys.stdin.fileno(), zmq.POLLIN)
        self.socket.send_multipart([b"", u32(HEARTBEAT)])
        while True:
            ready = dict(poller.poll(self.options.idle_ms))
            if not ready:
                self.socket.send_multipart([b"", u32(HEARTBEAT)])
            if sys.stdin.fileno() in ready:
                line = sys.stdin.buffer.raw.readline()
                if not line:
                    return
                self.command(json.loads(line))
            while self.socket.poll(0):
                self.receive(self.socket.recv_multipart())

    def command(self, command):
        if command["do"] == "answer":
            self.how = command["how"]
            self.slow_ms = command.get("slow_ms", 0)
            held, self.held = self.held, []
            for message_id, inputs in held:
                self.answer(message_id, inputs)
        elif command["do"] == "send":
            self.socket.send_multipart([bytes.fromhex(frame) for frame in command["frames"]])
        elif command["do"] == "report":
            say(
                "report",
                batches=self.batches,
                inputs=self.inputs,
                registrations=self.registrations,
            )
        else:
            raise ValueError(command)
        say("done")

    def receive(self, frames):
        assert frames[0] == b"" and frames[1] == u32(3), frames
        kind = struct.unpack("<I", frames[2])[0]
        if kind == HEARTBEAT:
            if frames[3] == u32(1):
                self.register()
            if frames[3] == u32(EXTENSIONS) and self.options.lanes:
                self.socket.send_multipart([b"", u32(LANES), u32(self.options.lanes)])
            return
        assert kind == CONTENT and frames[4] == u32(0), frames
        message_id = struct.unpack("<I", frames[3])[0]
        header_bytes = struct.unpack("<Q", frames[5])[0]
        assert header_bytes == len(frames[6]), frames
        words = struct.unpack("<%dQ" % (header_bytes // 8), frames[6])
        assert words[1] == len(frames) - 7 == len(words) - 2, frames
        assert str(words[0]) == self.options.type_code, frames
        assert all(size == len(data) for size, data in zip(words[2:], frames[7:])), frames
        inputs = [self.decode(words[0], data) for data in frames[7:]]
        self.batches += 1
        self.inputs += len(inputs)
        if not self.options.quiet:
            say("batch", id=message_id, inputs=inputs)
        self.answer(message_id, inputs)

    def decode(self, code, data):
        if code == 0:
            return list(data)
        if code == 4:
            return data.decode("utf-8")
        return array.array(TYPECODES[code], data).tolist()

    def register(self):
        self.registrations += 1
        o = self.options
        frames = [b"", u32(NEW_CONTAINER), o.name.encode(), o.version.encode()]
        frames.append(o.type_code.encode())
        if o.rpc_version != "missing":
            extensions = u32(o.extensions) if o.extensions else b""
            frames.append(u32(int(o.rpc_version)) + extensions)
        self.socket.send_multipart(frames)

    def is_error(self, one):
        error_from = self.options.error_from
        return error_from is not None and one[0] >= error_from

    def output(self, one):
        other_from = self.options.other_from
        if other_from is not None and one[0] >= other_from:
            return b'"other"'
        if self.options.output == "ECHO":
            return json.dumps(one).encode()
        return self.options.output.encode()

    def answer(self, message_id, inputs):
        slow_from = self.options.slow_from
        if slow_from is None or any(one[0] >= slow_from for one in inputs):
            time.sleep(self.slow_ms / 1000)
        time.sleep(self.options.input_ms / 1000 * len(inputs))
        outputs = [self.output(one) for one in inputs]
        are_errors = [self.is_error(one) for one in inputs]
        normal = mixed_frames(message_id, outputs, are_errors, self.options.computed_us)
        if self.how == "hold":
            self.held.append((message_id, inputs))
            return
        if self.how == "exit":
            os._exit(3)
        replies = {
            "right": [normal],
            "fewer": [answer_frames(message_id, outputs[:-1])],
            "more": [answer_frames(message_id, outputs + outputs[:1])],
            "twice": [normal, normal],
            "unknown id first": [
                answer_frames(message_id ^ 0x5A5A5A5A, [b'"of nobody"'] * len(outputs)),
                normal,
            ],
            "empty header": [with_header(message_id, b"")],
            "huge count": [with_header(message_id, struct.pack("<Q", 1 << 40))],
            "single frame": [[b"x"]],
            "no delimiter": [normal[1:]],
            "extra frames": [normal + [b"x", b"", b"y"]],
            "an error": [error_frames(message_id, b"poisoned")],
            "an error not utf-8": [error_frames(message_id, b"\xff\xfe")],
            "an error too long": [error_frames(message_id, b"x" * 4097)],
            "an error without text": [error_frames(message_id, b"")],
            "an error of another length": [
                with_header(message_id, struct.pack("<QQ", 1, 7 | 1 << 63)) + [b"poisoned"]
            ],
            "nothing": [],
            "pieces": [piece_frames(message_id)] * 2 + [end_frames(message_id)],
            "a piece and no more": [piece_frames(message_id)],
            "pieces and an error": [piece_frames(message_id), end_frames(message_id, b"worn out")],
            "an error at once": [end_frames(message_id, b"worn out")],
            "an end without a piece": [end_frames(message_id)],
            "too many pieces": [piece_frames(message_id)] * 1000,
            "a piece too large": [piece_frames(message_id, b"x" * (256 << 10) + b"x")],
            "a piece not utf-8": [piece_frames(message_id, b"\xff"), end_frames(message_id)],
            "a piece without text": [piece_frames(message_id)[:3]],
            "an end of two errors": [end_frames(message_id, b"a", b"b")],
            "pieces of nobody first": [
                piece_frames(message_id ^ 0x5A5A5A5A),
                end_frames(message_id ^ 0x5A5A5A5A),
                piece_frames(message_id),
                piece_frames(message_id),
                end_frames(message_id),
            ],
            "more after the end": [
                piece_frames(message_id),
                piece_frames(message_id),
                end_frames(message_id),
                piece_frames(message_id),
                end_frames(message_id),
                normal,
            ],
            "a piece and an answer": [piece_frames(message_id), normal],
            "not utf-8": [answer_frames(message_id, [b"\xff\xfe"] * len(outputs))],
        }
        for frames in replies[self.how]:
            self.socket.send_multipart(frames)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--connect", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", default="1")
    parser.add_argument("--type-code", default="3")
    parser.add_argument("--rpc-version", default="3")
    parser.add_argument("--extensions", type=int, default=0, help="bits; 0 is the original")
    parser.add_argument("--lanes", type=int, default=0, help="it answers in pieces")
    parser.add_argument("--output", default="ECHO", help="ECHO repeats the input")
    parser.add_argument("--how", default="right")
    parser.add_argument("--slow-ms", type=int, default=0)
    parser.add_argument("--slow-from", type=float, help="only for inputs that start with as much")
    parser.add_argument("--other-from", type=float, help="inputs from here get another answer")
    parser.add_argument("--error-from", type=float, help="inputs from here get an error")
    parser.add_argument("--input-ms", type=int, default=0, help="besides, for each input")
    parser.add_argument("--computed-us", type=int, help="what it says of that, true or not")
    parser.add_argument("--idle-ms", type=int, default=5000, help="before a heartbeat")
    parser.add_argument("--quiet", action="store_true")
    Container(parser.parse_args()).run()


if __name__ == "__main__":
    main()
