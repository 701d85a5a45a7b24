"""Ensembles of 1 to 20 forests whose replicas pause now and then: answered in time, or complete.

    python examples/choosing/stragglers.py --clipper target/release/clipper

Two applications have the same forests under the policy `majority`: one has an objective of 20 ms,
the other waits for everybody. Queries come at a steady rate, a part of the time to each. The table
shows for each size of the ensemble how long answers took, how many of them lacked a member, and how
many were wrong. `forests.py` says what the containers do. A machine that is busy with other things makes
answers late by itself: `--slower 5` runs all in slow motion, with times and objective five times as
long.

Needs Python with numpy and scikit-learn, for itself and numpy for the containers.
"""

import argparse
import queue
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import forests
from server import Server, application, model

SIZES = (1, 4, 8, 16, 20)
SLO_MS = 20
PATIENT_MS = 2_000
MARGIN_US = 2_000
SENDERS = 24


def config(slower):
    text = f"[serving]\nensemble_margin_us = {MARGIN_US * slower}\n\n"
    text += "".join(model(name, f"forests.py:{name}") for name in forests.NAMES)
    for size in SIZES:
        members = forests.NAMES[:size]
        text += application(f"bounded{size}", members, 'name = "majority"', SLO_MS * slower)
        text += application(f"patient{size}", members, 'name = "majority"', PATIENT_MS * slower)
    return text


class Run:
    """Queries to one application at a steady rate."""

    def __init__(self, server, app, images, rate):
        self.server, self.app = server, app
        self.latencies, self.answers = [], {}
        self.due = queue.Queue()
        start = time.monotonic()
        for index, image in enumerate(images):
            self.due.put((start + index / rate, index, int(image)))
        self.threads = [threading.Thread(target=self.send) for _ in range(SENDERS)]

    def send(self):
        while True:
            try:
                due, index, image = self.due.get_nowait()
            except queue.Empty:
                return
            time.sleep(max(0.0, due - time.monotonic()))
            # The second number is another one for each query: no two inputs are the same.
            body = {"input": [float(image), float(index)]}
            # Its own: the server closes those that are silent for a while.
            connection = self.server.connect()
            connection.connect()
            sent = time.monotonic()
            answer = self.server.post(f"/{self.app}/predict", body, connection)
            connection.close()
            self.latencies.append(time.monotonic() - sent)
            self.answers[index] = answer

    def finish(self):
        for thread in self.threads:
            thread.start()
        for thread in self.threads:
            thread.join()
        return self


def row(run, images, digits):
    p50, p99 = np.percentile(np.array(run.latencies) * 1000, [50, 99])
    answers = [run.answers[index] for index in range(len(images))]
    wrong = np.array([a["output"] != d for a, d in zip(answers, digits[images])])
    defaults = np.array([a["default"] for a in answers])
    return p50, p99, wrong.mean(), defaults.mean()


def left_out(server, app):
    """Members that were asked and missing, of all that were asked."""
    sums = {"asked": 0.0, "left_out": 0.0}
    for line in server.metrics().splitlines():
        for name in sums:
            if line.startswith(f'clipper_policy_{name}_total{{app="{app}"'):
                sums[name] += float(line.rsplit(" ", 1)[1])
    return sums["left_out"] / max(sums["asked"], 1.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clipper", default="clipper", help="the server's program")
    parser.add_argument("--rate", type=float, default=40.0, help="queries a second")
    parser.add_argument("--queries", type=int, default=1_200, help="to each application")
    parser.add_argument("--slower", type=int, default=1, metavar="TIMES", help="slow motion")
    arguments = parser.parse_args()
    said, digits = forests.answers()
    queries, slower = arguments.queries, arguments.slower
    rate = arguments.rate / slower
    images = np.random.default_rng(2).integers(0, len(digits), queries)
    print(
        f"Objective {SLO_MS * slower} ms, {queries} queries to each at {rate:.0f}/s. A batch takes "
        f"{forests.USUAL_S[0] * 1000 * slower:.0f} to {forests.USUAL_S[1] * 1000 * slower:.0f} ms, "
        f"every {forests.PAUSE_EVERY}th {forests.PAUSE_S * 1000 * slower:.0f} ms.\n"
    )
    print(
        "| forests | in time: p50, p99 ms | members left out | default outputs | wrong "
        "| waiting for all: p50, p99 ms | wrong | best forest wrong |"
    )
    print("|---" * 8 + "|", flush=True)
    is_in_time = True
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "forests.npy"
        np.save(file, said)
        passed = {"FORESTS_FILE": str(file), "FORESTS_SLOWER": str(slower)}
        server = Server(arguments.clipper, Path(folder), config(slower), passed)
        try:
            server.start(forests.COUNT)
            # The first batch of each reads the file.
            Run(server, f"patient{max(SIZES)}", images[:40], rate).finish()
            for size in SIZES:
                cells = []
                for kind in ("bounded", "patient"):
                    run = Run(server, f"{kind}{size}", images, rate).finish()
                    cells.append(row(run, images, digits))
                (p50, p99, wrong, defaults), (all50, all99, all_wrong, _) = cells
                best = (said[:size][:, images] != digits[images]).mean(axis=1).min()
                is_in_time &= p99 <= SLO_MS * slower
                print(
                    f"| {size} | {p50:.1f}, **{p99:.1f}** "
                    f"| {left_out(server, f'bounded{size}'):.2%} | {defaults:.2%} "
                    f"| {wrong:.2%} | {all50:.1f}, {all99:.1f} | {all_wrong:.2%} | {best:.2%} |",
                    flush=True,
                )
        finally:
            server.stop()
    return 0 if is_in_time else 1


if __name__ == "__main__":
    sys.exit(main())
