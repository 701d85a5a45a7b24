"""The command line: ``python -m clipper_serving serve MODEL [options]``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from dataclasses import fields, replace

from .errors import ClipperError
from .loaders import load_model
from .serving import LOG_FORMAT, Container, Settings, run
from .stopping import StopSignal, stop_on_signals, stop_with_parent

EXIT_FAILED = 1
EXIT_IMPORT_ERROR = 3
"""What Clipper's own Python containers end with when the model's imports fail."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 ended cleanly, 1 failed, 2 wrong usage,
    3 a module that the model imports is missing or broken."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=options.log_level.upper(), format=LOG_FORMAT)
    try:
        _serve(options)
        return 0
    except ClipperError as error:
        print(f"clipper-serving: {error}", file=sys.stderr)
        return EXIT_FAILED
    except ImportError as error:
        traceback.print_exc()
        print(f"clipper-serving: cannot import {options.model}: {error}", file=sys.stderr)
        return EXIT_IMPORT_ERROR
    except Exception as error:
        traceback.print_exc()
        what = f"{type(error).__name__}: {error}"
        print(f"clipper-serving: cannot serve {options.model}: {what}", file=sys.stderr)
        return EXIT_FAILED


def _serve(options: argparse.Namespace) -> None:
    if not options.model:
        raise ClipperError("no model: name one, or set CLIPPER_MODEL_PATH")
    stop = StopSignal()
    stop_with_parent(stop)
    fn = load_model(options.model, options.method)
    # Only now: while a model loads, a signal ends the process at once.
    stop_on_signals(stop)
    settings = fn.settings if isinstance(fn, Container) else Settings()
    given = {field.name: getattr(options, field.name) for field in fields(Settings)}
    settings = replace(settings, **{k: v for k, v in given.items() if v is not None})
    run(fn, settings, stop=stop)


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
    serve.add_argument("--input-type", help="integers, floats, doubles, strings or bytes")
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
    serve.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser
