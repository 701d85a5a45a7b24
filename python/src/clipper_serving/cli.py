"""The command line: ``python -m clipper_serving serve MODEL [options]``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

from .errors import ClipperError
from .loaders import load_model
from .serving import LOG_FORMAT, Container, Settings, run
from .stopping import StopSignal, is_supervised, stop_on_signals, stop_with_parent

_log = logging.getLogger(__name__)

SUPERVISED_LOG_FORMAT = "%(levelname)s %(message)s"
PROGRESS_SECONDS = 5.0
"""How often a model that loads slowly is spoken of."""

PACKAGES = {
    "cv2": "opencv-python",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Modules whose package has another name."""

EXIT_FAILED = 1
EXIT_IMPORT_ERROR = 3
"""What Clipper's own Python containers end with when the model's imports fail."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 ended cleanly, 1 failed, 2 wrong usage,
    3 a module that the model imports is missing or broken."""
    options = _parser().parse_args(argv)
    # A server that has started this process adds the time to each line.
    log_format = SUPERVISED_LOG_FORMAT if is_supervised() else LOG_FORMAT
    logging.basicConfig(level=options.log_level.upper(), format=log_format)
    try:
        _serve(options)
        return 0
    except ClipperError as error:
        print(f"clipper-serving: {error}", file=sys.stderr)
        return EXIT_FAILED
    except ImportError as error:
        traceback.print_exc()
        why = f"cannot import {options.model}: {error}{_advice(error)}"
        print(f"clipper-serving: {why}", file=sys.stderr)
        return EXIT_IMPORT_ERROR
    except Exception as error:
        traceback.print_exc()
        what = f"{type(error).__name__}: {error}"
        print(f"clipper-serving: cannot serve {options.model}: {what}", file=sys.stderr)
        return EXIT_FAILED


def _serve(options: argparse.Namespace) -> None:
    if not options.model:
        raise ClipperError("no model: name one, or set CLIPPER_MODEL_PATH")
    given = {field.name: getattr(options, field.name, None) for field in fields(Settings)}
    if is_supervised():
        # The server has started this process as one model version, whatever its file says.
        given = {**_of_supervisor(os.environ), **_without_none(given)}
    if os.path.exists(options.model):
        # A file of a model declares nothing: what is missing is told before a long load.
        replace(Settings(), **_without_none(given)).replica(os.environ)
    stop = StopSignal()
    stop_with_parent(stop)
    with _progress(options.model):
        fn = load_model(options.model, options.method)
    # Only now: while a model loads, a signal ends the process at once.
    stop_on_signals(stop)
    settings = fn.settings if isinstance(fn, Container) else Settings()
    settings = replace(settings, **_without_none(given))
    run(fn, settings, stop=stop, spec=options.model)


def _without_none(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}


def _of_supervisor(env: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": env.get("CLIPPER_MODEL_NAME"),
        "version": env.get("CLIPPER_MODEL_VERSION"),
        "input_type": env.get("CLIPPER_INPUT_TYPE"),
        "host": env.get("CLIPPER_IP"),
    }


def _advice(error: ImportError) -> str:
    """The way out where a package is missing; not for a module of the model's own."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    package = PACKAGES.get(error.name.split(".")[0], error.name.split(".")[0])
    return f"; if {package} is a package: {sys.executable} -m pip install {package}"


@contextmanager
def _progress(model: str) -> Iterator[None]:
    """Say that a model is being loaded, again and again, so that nobody takes it for a hang."""
    began = time.monotonic()
    is_loaded = threading.Event()

    def tell() -> None:
        while not is_loaded.wait(PROGRESS_SECONDS):
            _log.info("still loading %s after %.0f s", model, time.monotonic() - began)

    _log.info("loading %s", model)
    threading.Thread(target=tell, name="progress", daemon=True).start()
    try:
        yield
    finally:
        is_loaded.set()
    _log.info("loaded %s in %.1f s", model, time.monotonic() - began)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clipper-serving")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve a model or a predict function",
        description="Options that are absent are taken from a @container decorator, then from "
        "the environment: CLIPPER_MODEL_NAME, CLIPPER_MODEL_VERSION, CLIPPER_INPUT_TYPE, "
        "CLIPPER_IP, CLIPPER_PORT, CLIPPER_MODEL_PATH.",
    )
    serve.add_argument(
        "model",
        nargs="?",
        default=os.environ.get("CLIPPER_MODEL_PATH"),
        metavar="MODEL",
        help="file.py:function, module:function, a model file, or a folder with one",
    )
    serve.add_argument("--name", help="model name")
    serve.add_argument("--version", help="model version")
    serve.add_argument("--input-type", help="integers, floats, doubles, strings, bytes or tensors")
    serve.add_argument("--host", help="the server's host (127.0.0.1)")
    serve.add_argument("--port", type=int, help="the server's RPC port (7000)")
    serve.add_argument(
        "--stacked",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="pass numeric batches as one 2-D array instead of a list of arrays",
    )
    serve.add_argument("--method", default="predict", help="scikit-learn method (predict)")
    serve.add_argument("--metrics-host", help="where metrics listen (127.0.0.1)")
    serve.add_argument("--metrics-port", type=int, help="port of the metrics (1390), 0 = off")
    serve.add_argument("--build", help="the code and files that answer (a hash of them)")
    serve.add_argument(
        "--streams",
        type=int,
        help="the model is a generator of one input: run so many of them at the same time",
    )
    serve.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser
