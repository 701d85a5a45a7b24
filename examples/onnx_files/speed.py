"""How much the server adds to ONNX Runtime: its time a row beside that of the library in a process.

    python examples/onnx_files/speed.py --clipper target/dist/clipper [FILE.onnx ...]

Needs onnxruntime and numpy, and scikit-learn, skl2onnx and onnx for the models that it takes without
files: a linear one, a forest of 100 trees and a net of scikit-learn, and a small convolution over
images of 3x224x224. Both sides compute with one thread, in turn, the same rows, which differ: a
forest that is asked for one row over and over takes half the time. Medians over the rounds. "64" is
the time a row in requests of 64 rows, two under way, so that the container is never without work;
"one" the latency of a single row on one connection, less what the library takes for it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from compare import rows_for, server, session

BATCH = 64
ROWS = 8 * BATCH
# Larger rows, as images, are made by the generator of load: their JSON would be too long.
ROW_MAX_BYTES = 16 << 10


def made(folder: Path) -> list[str]:
    """Models of scikit-learn on its digits, and a convolution."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    files = []
    for name, model in {
        "linear": LogisticRegression(max_iter=200),
        "forest": RandomForestClassifier(100, random_state=0),
        "net": MLPClassifier((256, 256), max_iter=20, random_state=0),
    }.items():
        options = {id(model): {"zipmap": False}}
        graph = to_onnx(model.fit(x, y), x[:1], options=options, target_opset=17)
        files.append(str(folder / f"{name}.onnx"))
        Path(files[-1]).write_bytes(graph.SerializeToString())

    random = np.random.default_rng(0)
    weights = {"w1": (16, 3, 7, 7), "w2": (32, 16, 3, 3), "w3": (64, 32, 3, 3)}
    nodes, before = [], "image"
    for name, stride in zip(weights, (4, 2, 2)):
        size = weights[name][2]
        pads = [size // 2] * 4
        nodes.append(helper.make_node(
            "Conv", [before, name], [name + "c"], strides=[stride] * 2, pads=pads))  # fmt: skip
        nodes.append(helper.make_node("Relu", [name + "c"], [name + "r"]))
        before = name + "r"
    nodes.append(helper.make_node("GlobalAveragePool", [before], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["y"]))
    values = [
        numpy_helper.from_array((random.random(shape) - 0.5).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 224, 224])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])
    graph = helper.make_graph(nodes, "convolution", [image], [out], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    files.append(str(folder / "convolution.onnx"))
    Path(files[-1]).write_bytes(model.SerializeToString())
    return files


def written(rows: list[dict], file: Path) -> Path:
    """They, as the generator of load takes them."""
    lines = [{name: array[0].tolist() for name, array in row.items()} for row in rows]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def in_process(
    one: onnxruntime.InferenceSession, rows: list[dict], batch: int, seconds: float
) -> float:
    """Median seconds of a call with so many of the rows, which are taken in turn."""
    calls = [
        {name: np.concatenate([row[name] for row in rows[at : at + batch]]) for name in rows[0]}
        for at in range(0, len(rows), batch)
    ]
    took: list[float] = []
    end = time.perf_counter() + seconds
    while len(took) < 5 or time.perf_counter() < end:
        begun = time.perf_counter()
        one.run(None, calls[len(took) % len(calls)])
        took.append(time.perf_counter() - begun)
    return statistics.median(took)


def through_server(options: Any, url: str, rows: Path | None, connections: int, batch: int) -> dict:
    command = [
        options.clipper, "bench", "--url", url, "--app", "app-tensors", "--input-type", "tensors",
        "--protocol", "v2-binary", "--connections", str(connections), "--duration",
        str(options.seconds), "--json",
    ]  # fmt: skip
    if rows:
        command += ["--rows", str(rows)]
    if batch > 1:
        command += ["--batch", str(batch)]
    told = subprocess.run(command, capture_output=True, text=True)
    if told.returncode:
        sys.exit(told.stderr or told.stdout)
    return dict(json.loads(told.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clipper", default="target/dist/clipper")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("files", nargs="*", metavar="FILE.onnx")
    options = parser.parse_args()
    head = ["model", "library, 64, us a row", "server", "ratio", "library, one, us", "server adds"]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    with tempfile.TemporaryDirectory() as place, server(options.clipper) as served:
        url = f"http://127.0.0.1:{served.query}"
        for file in options.files or made(Path(place)):
            one = session(file)
            rows = rows_for(one, {}, BATCH)
            asked = None
            if sum(array.nbytes for array in rows[0].values()) <= ROW_MAX_BYTES:
                rows = rows_for(one, {}, ROWS)
                asked = written(rows, Path(place) / "rows.jsonl")
            seen: dict[str, list[float]] = {}
            with served.serving(file, "ort", "tensors") as why_not:
                if why_not:
                    sys.exit(f"{file}: {why_not}")
                for _ in range(options.rounds):
                    of_many = in_process(one, rows, BATCH, options.seconds) / BATCH
                    many = through_server(options, url, asked, 2, BATCH)
                    of_one = in_process(one, rows, 1, options.seconds)
                    single = through_server(options, url, asked, 1, 1)
                    for name, value in {
                        "of many": of_many * 1e6,
                        "many": 1e6 / many["queries_per_s"],
                        "of one": of_one * 1e6,
                        "adds": single["latency"]["p50_ms"] * 1e3 - of_one * 1e6,
                    }.items():
                        seen.setdefault(name, []).append(value)
            middle = {name: statistics.median(values) for name, values in seen.items()}
            print(f"| {Path(file).stem} | {middle['of many']:.1f} | {middle['many']:.1f} | "
                  f"{middle['many'] / middle['of many']:.2f} | {middle['of one']:.0f} | "
                  f"{middle['adds']:.0f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
