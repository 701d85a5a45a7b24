"""How accurate ensembles are, and what their confidence is worth.

    python examples/choosing/ensembles.py --clipper target/release/clipper

Five forests of handwritten digits answer applications under `majority` with equal, given and
learned weights, and under `exp4`; the latter two get feedback after each answer. The first table
shows how many answers were wrong beside each forest alone; the second splits the answers of the
equal vote by its confidence: at least four of five agree, or fewer, as Clipper's paper does.

Needs Python with numpy and scikit-learn, for itself and numpy for the containers.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

import forests
from server import Server, application, model

MEMBERS = forests.NAMES[:5]
CONFIDENT = 0.8


def policies(said, digits):
    """By name: its lines of TOML, and whether it learns."""
    # Given by what an operator may know: how often each was right on some other images.
    right = (said[: len(MEMBERS)] == digits).mean(axis=1)
    weights = {name: round(float(r / (1 - r)), 3) for name, r in zip(MEMBERS, right)}
    given = "{ " + ", ".join(f"{name} = {weight}" for name, weight in weights.items()) + " }"
    return {
        "equal": ('name = "majority"', False),
        "given": (f'name = "majority"\nweights = {given}', False),
        "learned": ('name = "majority"\nweights = "learned"', True),
        "exp4": ('name = "exp4"', True),
    }


def ask(server, app, images, digits, learns):
    inputs = [[float(image), float(index)] for index, image in images]
    answers = server.post(f"/{app}/predict", {"input_batch": inputs})["batch_predictions"]
    if learns:
        for answer, (_, image) in zip(answers, images):
            feedback = {"query_id": answer["query_id"], "label": int(digits[image])}
            server.post(f"/{app}/update", feedback)
    return answers


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clipper", default="clipper", help="the server's program")
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=50, help="queries in one request")
    arguments = parser.parse_args()
    said, digits = forests.answers()
    # The weights that are given come from the first images, and the rest is asked.
    known = 300
    all_policies = policies(said[:, :known], digits[:known])
    images = np.random.default_rng(3).integers(known, len(digits), arguments.queries)
    asked = list(enumerate(images))
    config = "".join(model(name, f"forests.py:{name}") for name in MEMBERS)
    for name, (policy, _) in all_policies.items():
        config += application(name, MEMBERS, policy)
    answers = {name: [] for name in all_policies}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "forests.npy"
        np.save(file, said)
        server = Server(arguments.clipper, Path(folder), config, {"FORESTS_FILE": str(file)})
        try:
            server.start(len(MEMBERS))
            for start in range(0, arguments.queries, arguments.at_once):
                part = asked[start : start + arguments.at_once]
                for name, (_, learns) in all_policies.items():
                    answers[name] += ask(server, name, part, digits, learns)
        finally:
            server.stop()
    truth = digits[images]
    print("| who answers | wrong |\n|---|---|")
    alone = (said[: len(MEMBERS), images] != truth).mean(axis=1)
    for name, share in sorted(zip(MEMBERS, alone), key=lambda pair: -pair[1]):
        print(f"| `{name}` alone | {share:.2%} |")
    wrong = {}
    for name, given in answers.items():
        wrong[name] = np.array([answer["output"] for answer in given]) != truth
        policy = "`exp4`" if name == "exp4" else f"`majority`, {name} weights"
        print(f"| {policy} | **{wrong[name].mean():.2%}** |")
    sure = np.array([answer["confidence"] for answer in answers["equal"]]) >= CONFIDENT - 1e-9
    print("\n| answers of the equal vote | share | wrong |\n|---|---|---|")
    for what, which in (("4 or 5 of 5 agree", sure), ("fewer agree", ~sure)):
        print(f"| {what} | {which.mean():.1%} | {wrong['equal'][which].mean():.2%} |")
    votes = [share.mean() for name, share in wrong.items() if name != "exp4"]
    return 0 if max(votes) < alone.min() else 1


if __name__ == "__main__":
    sys.exit(main())
