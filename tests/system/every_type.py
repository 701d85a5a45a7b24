"""A server with a model of each input type, and an application before each."""

from __future__ import annotations

import urllib.error
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import Server, container, get, server, until

MODELS = {
    "doubles": "[float(x.sum()) for x in inputs]",
    "floats": "[[float(v) * 2 for v in x] for x in inputs]",
    "integers": "[int(x.sum()) for x in inputs]",
    "strings": "[x.upper() for x in inputs]",
    "bytes": "[len(x) for x in inputs]",
}

# Each model, the datatype of its input, and how many elements a row of it has.
KINDS = [
    ("doubles", "FP64", -1),
    ("floats", "FP32", -1),
    ("integers", "INT32", -1),
    ("strings", "BYTES", 1),
    ("bytes", "BYTES", 1),
]

# Rows of each datatype that numpy has itself.
DATATYPES: list[tuple[str, np.ndarray]] = [
    ("BOOL", np.array([[True, False]])),
    ("UINT8", np.array([[1, 2]], np.uint8)),
    ("UINT16", np.array([[1, 2]], np.uint16)),
    ("UINT32", np.array([[1, 2]], np.uint32)),
    ("UINT64", np.array([[1, 2]], np.uint64)),
    ("INT8", np.array([[1, -2]], np.int8)),
    ("INT16", np.array([[1, -2]], np.int16)),
    ("INT32", np.array([[1, -2]], np.int32)),
    ("INT64", np.array([[1, -2]], np.int64)),
    ("FP16", np.array([[1.5, -2]], np.float16)),
    ("FP32", np.array([[1.5, -2]], np.float32)),
    ("FP64", np.array([[1.5, -2]], np.float64)),
]

# Fails on a row that begins with 13, and takes its time over one that begins with 14.
SOURCE = """
import time

def predict(inputs):
    for x in inputs:
        if not isinstance(x, (str, bytes)) and x[0] == 13:
            raise ValueError("thirteen")
        if not isinstance(x, (str, bytes)) and x[0] == 14:
            time.sleep(1.0)
    return RESULT
"""


def application(name: str, model: str, kind: str, slo_micros: int = 20_000_000) -> str:
    return (
        f'[[application]]\nname = "{name}"\ninput_type = "{kind}"\ndefault_output = "-1"\n'
        f'latency_slo_micros = {slo_micros}\nmodel = "{model}"\n\n'
    )


def config() -> str:
    """An application for each type, called as its model with ``app-`` before it."""
    parts = ["[serving]\ndirect_slo_micros = 20000000\n"]
    parts += [application(f"app-{kind}", kind, kind) for kind in MODELS]
    parts += [application("alone", "nobody", "doubles")]
    parts += [application("quick", "doubles", "doubles", 100_000)]
    for name in [*MODELS, "nobody"]:
        kind = name if name in MODELS else "doubles"
        parts.append(f'[[model]]\nname = "{name}"\nversion = "1"\ninput_type = "{kind}"\n\n')
    return "".join(parts)


def is_ready(running: Server, name: str) -> bool:
    try:
        return bool(get(f"{running.query}/v2/models/{name}/ready"))
    except urllib.error.HTTPError:
        return False


@pytest.fixture(scope="session")
def every_type(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("triton")
    with ExitStack() as stack:
        running = stack.enter_context(server(folder, config()))
        for name, result in MODELS.items():
            source = SOURCE.replace("RESULT", result)
            stack.enter_context(container(running, folder, name, source, CLIPPER_INPUT_TYPE=name))
        for name in MODELS:
            until(f"{name} is ready", lambda name=name: is_ready(running, name))
        yield running


def outputs(result: Any) -> list[str]:
    """The texts of all rows."""
    array = result.as_numpy("output")
    return [x.decode() if isinstance(x, bytes) else str(x) for x in array.reshape(-1)]
