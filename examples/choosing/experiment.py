"""The experiment of Clipper's paper: the best of five models breaks for a while.

    python examples/choosing/experiment.py --clipper target/release/clipper

Twenty thousand images of handwritten digits go to two applications that have the same five models,
one under the policy `exp3`, one under `exp4`; after each answer comes the feedback, what the digit
was. From a quarter to half of the way the best model answers nonsense. The table shows how many
answers were wrong until then: those of the two policies, of each model had it been asked alone, and
of whoever had known which model is the best at any time, the oracle. A plot goes into errors.svg.

Needs Python with numpy and scikit-learn, for itself and for the models' containers.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

import models
from server import Server, application, model

POLICIES = {
    # A window, so that the repaired model is found again.
    "exp3": 'name = "exp3"\nwindow = 1000\nlearning_rate = 0.05\nexplore = 0.02',
    "exp4": 'name = "exp4"\nwindow = 1000',
}


def config():
    applications = [application(name, models.NAMES, policy) for name, policy in POLICIES.items()]
    applications.append(application("svm", ["svm"], 'name = "fixed"\nmodel = "svm"'))
    return "".join(applications) + "".join(model(name, f"models.py:{name}") for name in models.NAMES)


def break_svm(server, flag, is_broken, image, said):
    """Breaks or repairs the best model, and sees that it says what it then has to say."""
    if is_broken:
        flag.touch()
    else:
        flag.unlink(missing_ok=True)
    answer = server.post("/svm/predict", {"input": image.tolist()})
    if answer["output"] != (said + is_broken) % 10:
        sys.exit(f"svm should be {'broken' if is_broken else 'right'}: {answer}, not {said}")


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
    errors, svm = {}, models.train("svm").predict(images)
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
        flag = Path(folder) / "svm-is-broken"
        server = Server(clipper, Path(folder), config(), {"BREAK_FLAG": str(flag)})
        try:
            server.start(len(models.NAMES))
            for start in range(0, queries, at_once):
                end = min(start + at_once, queries)
                part = chosen[start:end]
                if start == 0 or broken[start] != broken[start - 1]:
                    break_svm(server, flag, broken[start], images[part[0]], svm[part[0]])
                for name, wrong in asked.items():
                    wrong += ask(server, name, images[part], digits[part])
        finally:
            server.stop()
    return {**errors, **{name: np.array(wrong) for name, wrong in asked.items()}}


def table(errors):
    """Wrong answers until each quarter of the way, as Markdown."""
    queries = len(next(iter(errors.values())))
    ends = [queries * quarter // 4 for quarter in (1, 2, 3, 4)]
    lines = ["| wrong until | " + " | ".join(f"{end:,}" for end in ends) + " | share |"]
    lines.append("|---" * (len(ends) + 2) + "|")
    for name, wrong in sorted(errors.items(), key=lambda item: -item[1].sum()):
        row = " | ".join(f"{int(wrong[:end].sum()):,}" for end in ends)
        name = f"**{name}**" if name in POLICIES else name
        lines.append(f"| {name} | {row} | {wrong.mean():.1%} |")
    return "\n".join(lines)


def verdict(errors):
    """What the experiment is to show, and whether it does."""
    queries = len(next(iter(errors.values())))
    best = min(int(errors[name].sum()) for name in models.NAMES)
    # Once the model is repaired, half of the rest is time enough to find it again.
    after = {name: wrong[3 * queries // 4 :].mean() for name, wrong in errors.items()}
    second = sorted(after[name] for name in models.NAMES)[1]
    lines, is_shown = [], True
    for name in POLICIES:
        total = int(errors[name].sum())
        is_shown &= total < best and after[name] < second
        lines.append(
            f"`{name}`: {total} wrong, the best single model {best}. In the last quarter "
            f"{after[name]:.1%}; the repaired model alone {after['svm']:.1%}, the next best one "
            f"{second:.1%}."
        )
    return lines, is_shown


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
    parser.add_argument("--plot", default="errors.svg", help="the SVG file to write")
    arguments = parser.parse_args()
    errors = run(arguments.clipper, arguments.queries, arguments.at_once)
    plot(errors, arguments.plot)
    lines, is_shown = verdict(errors)
    print(table(errors), "", *lines, f"Plot: {arguments.plot}", sep="\n")
    return 0 if is_shown else 1


if __name__ == "__main__":
    sys.exit(main())
