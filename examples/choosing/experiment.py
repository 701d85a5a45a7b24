"""The experiment of Clipper's paper: the best of five models breaks for a while.

    python examples/choosing/experiment.py --clipper target/release/clipper

Twenty thousand images of handwritten digits go to two applications that have the same five models,
one under the policy `exp3`, one under `exp4`; after each answer comes the feedback, what the digit
was. From a quarter to half of the way the best model answers nonsense. The table shows how many
answers were wrong until then: those of the two policies, of each model had it been asked alone, and
of whoever had known which model is the best at any time. `--plot FILE.svg` draws it.

Needs Python with numpy and scikit-learn, for itself and for the models' containers.
"""

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import models

FOLDER = Path(__file__).resolve().parent
POLICIES = {
    # A window, so that the repaired model is found again.
    "exp3": 'name = "exp3"\nwindow = 1000\nlearning_rate = 0.05\nexplore = 0.02',
    "exp4": 'name = "exp4"\nwindow = 1000',
}


def config():
    text = ""
    for name, policy in POLICIES.items():
        text += (
            f'[[application]]\nname = "{name}"\ninput_type = "doubles"\ndefault_output = "-1"\n'
            f"latency_slo_micros = 20000000\nmodels = {json.dumps(models.NAMES)}\n"
            f"[application.policy]\n{policy}\n\n"
        )
    for name in models.NAMES:
        text += (
            f'[[model]]\nname = "{name}"\nversion = "1"\ninput_type = "doubles"\ncache = false\n'
            f'[model.container]\nruntime = "python"\nfunction = "{FOLDER}/models.py:{name}"\n'
            f"python = {json.dumps(sys.executable)}\n\n"
        )
    return text + '[containers]\npass_environment = ["CLIPPER_BREAK_FLAG", "PATH"]\n'


class Server:
    """The real server, with a config file of its own in `folder`."""

    def __init__(self, clipper, folder):
        self.flag = folder / "svm-is-broken"
        file = folder / "clipper.toml"
        file.write_text(config())
        command = [clipper, "serve", "--config", str(file), "--data-dir", str(folder / "data")]
        for flag in ("--query-addr", "--management-addr", "--metrics-addr"):
            command += [flag, "127.0.0.1:0"]
        command += ["--rpc-addr", "tcp://127.0.0.1:0"]
        environment = {**os.environ, "CLIPPER_BREAK_FLAG": str(self.flag)}
        self.log = open(folder / "log", "w+")
        self.process = subprocess.Popen(command, stderr=self.log, env=environment)
        self.connection = None

    def line(self, text):
        return next((line for line in Path(self.log.name).open() if text in line), None)

    def wait(self, what, condition, limit=300):
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end or self.process.poll() is not None:
                sys.exit(f"{what}: not in {limit} s\n" + Path(self.log.name).read_text()[-4000:])
            time.sleep(0.05)

    def start(self):
        self.wait("the server listens", lambda: self.line("listening"))
        address = re.search(r"query=(?:http://)?([\d.]+):(\d+)", self.line("listening"))
        self.connection = http.client.HTTPConnection(address[1], int(address[2]), timeout=60)
        for name in POLICIES:
            self.wait("all models answer", lambda name=name: self.answers(name))

    def answers(self, app):
        try:
            answer = self.post(f"/{app}/predict", {"input": [0.0] * 64})
        except (ConnectionError, http.client.HTTPException):
            self.connection.close()
            return False
        page = self.get("/metrics")
        served = re.findall(r'clipper_replicas\{model="\w+",version="1"\} 1', page)
        return "output" in answer and len(served) == len(models.NAMES)

    def get(self, path):
        self.connection.request("GET", path, headers={"Accept": "text/plain"})
        return self.connection.getresponse().read().decode()

    def post(self, path, body):
        headers = {"Content-Type": "application/json"}
        self.connection.request("POST", path, json.dumps(body), headers)
        response = self.connection.getresponse()
        text = response.read().decode()
        if response.status != 200:
            sys.exit(f"{path}: {response.status} {text}")
        return json.loads(text) if text.startswith("{") else text

    def stop(self):
        self.process.terminate()
        self.process.wait()


def ask(server, app, images, digits):
    """Which answers were wrong; each gets its feedback."""
    answers = server.post(f"/{app}/predict", {"input_batch": images.tolist()})
    wrong = []
    for answer, digit in zip(answers["batch_predictions"], digits):
        wrong.append(answer["output"] != int(digit))
        feedback = {"query_id": answer["query_id"], "label": int(digit)}
        server.post(f"/{app}/update", feedback)
    return wrong


def run(clipper, queries, at_once):
    """Errors of everybody, query by query."""
    images, digits = models.dataset()
    images, digits = images[models.TRAINED_ON :], digits[models.TRAINED_ON :]
    chosen = np.random.default_rng(1).integers(0, len(digits), queries)
    broken = (np.arange(queries) >= queries // 4) & (np.arange(queries) < queries // 2)
    errors = {}
    for name in models.NAMES:
        said = models.train(name).predict(images)[chosen]
        if name == "svm":
            said = np.where(broken, (said + 1) % 10, said)
        errors[name] = said != digits[chosen]
    means = {name: [wrong[part].mean() for part in (broken, ~broken)] for name, wrong in errors.items()}
    best = [min(means, key=lambda name, part=part: means[name][part]) for part in (0, 1)]
    errors["oracle"] = np.where(broken, errors[best[0]], errors[best[1]])
    asked = {name: [] for name in POLICIES}
    with tempfile.TemporaryDirectory() as folder:
        server = Server(clipper, Path(folder))
        try:
            server.start()
            for start in range(0, queries, at_once):
                end = min(start + at_once, queries)
                if broken[start]:
                    server.flag.touch()
                else:
                    server.flag.unlink(missing_ok=True)
                part = chosen[start:end]
                for name, wrong in asked.items():
                    wrong += ask(server, name, images[part], digits[part])
        finally:
            server.stop()
    return {**errors, **{name: np.array(wrong) for name, wrong in asked.items()}}


def table(errors):
    queries = len(next(iter(errors.values())))
    ends = [queries // 4, queries // 2, 3 * queries // 4, queries]
    lines = [f"{'':12}" + "".join(f"{end:>10}" for end in ends) + "     share"]
    for name, wrong in sorted(errors.items(), key=lambda item: -item[1].sum()):
        row = "".join(f"{int(wrong[:end].sum()):>10}" for end in ends)
        lines.append(f"{name:12}{row}{wrong.mean():>10.2%}")
    return "\n".join(lines)


def plot(errors, file):
    """Cumulative errors over queries, as SVG."""
    width, height = 800, 480
    queries = len(next(iter(errors.values())))
    most = max(int(wrong.sum()) for wrong in errors.values()) or 1
    colours = ["#888", "#a65628", "#377eb8", "#984ea3", "#4daf4a", "#000", "#e41a1c", "#ff7f00"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 140} {height + 20}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect x="{width // 4}" width="{width // 4}" height="{height}" fill="#f2f2f2"/>',
    ]
    for colour, (name, wrong) in zip(colours, errors.items()):
        sums = np.cumsum(wrong)
        at = np.linspace(0, queries - 1, 200).astype(int)
        points = " ".join(
            f"{n / queries * width:.1f},{height - sums[n] / most * height:.1f}" for n in at
        )
        y = height - sums[-1] / most * height
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        label = f"{name} {int(sums[-1])}"
        parts.append(f'<text x="{width + 6}" y="{max(y, 12):.0f}" fill="{colour}">{label}</text>')
    Path(file).write_text("\n".join(parts + ["</svg>\n"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clipper", default="clipper", help="the server's program")
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--at-once", type=int, default=10, help="queries in one request")
    parser.add_argument("--plot", help="an SVG file to write")
    arguments = parser.parse_args()
    errors = run(arguments.clipper, arguments.queries, arguments.at_once)
    print(table(errors))
    if arguments.plot:
        plot(errors, arguments.plot)
    best = min(int(errors[name].sum()) for name in models.NAMES)
    worse = [name for name in POLICIES if errors[name].sum() >= best]
    print(f"best single model: {best}; " + (f"not below it: {worse}" if worse else "both below it"))
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
