"""ONNX files that packages ship, each served by both engines and compared with ONNX Runtime.

    python examples/onnx_files/table.py --clipper target/dist/clipper

installs the packages of ``packages.txt`` in a virtual environment, without what they ask for, looks
for the ONNX files in them, and serves one after the other: all inputs and outputs as tensors by
ONNX Runtime, and one flat input by the engine in the binary where that takes it. Inputs are made
up: floats from 0 to 1, whole numbers 0 and 1, short texts, unless ``packages.txt`` says otherwise.
Three different rows are asked for in one request and compared, each, with what ONNX Runtime gives
for it alone in this process, at one thread. The table is what it prints; it ends with 1 if a file
was answered otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parents[1] / "python" / "src"
TOOLS = ["numpy==2.4.6", "onnxruntime==1.32.0", "onnx==1.23.2"]


def packages(file: Path) -> list[tuple[str, str, str, dict]]:
    """Kind, package, which of its files, and what their inputs are, one a line."""
    found = []
    for line in file.read_text().splitlines():
        if line and not line.startswith("#"):
            kind, package, pattern, *inputs = line.split(None, 3)
            found.append((kind, package, pattern, json.loads(inputs[0]) if inputs else {}))
    return found


def install(folder: Path, wanted: list[str]) -> Path:
    """The Python of an environment that has these packages, made if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, *TOOLS], check=True)
    for package in wanted:
        # One that cannot be fetched is missing in the table, and does not spoil the others.
        done = subprocess.run([*pip, "--no-deps", package], capture_output=True, text=True)
        if done.returncode:
            print(f"{package}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
    return python


def folder_of(python: Path) -> Path:
    print_it = "import sysconfig; print(sysconfig.get_path('purelib'))"
    said = subprocess.run([str(python), "-c", print_it], capture_output=True, text=True, check=True)
    return Path(said.stdout.strip())


def files_of(site: Path, package: str, pattern: str) -> list[Path]:
    """The ONNX files that a package has brought, by its own list of files."""
    name = re.split(r"[=<>\[]", package)[0]
    normal = re.sub(r"[-_.]+", "_", name).lower()
    for record in site.glob("*.dist-info/RECORD"):
        other = record.parent.name.rsplit("-", 1)[0].rsplit("-", 1)[0]
        if re.sub(r"[-_.]+", "_", other).lower() == normal:
            paths = [line.split(",")[0] for line in record.read_text().splitlines()]
            wanted = re.compile(pattern)
            return sorted(
                site / path for path in paths if path.endswith(".onnx") and wanted.search(path)
            )
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clipper", type=Path, required=True, help="the program")
    parser.add_argument("--packages", type=Path, default=HERE / "packages.txt")
    parser.add_argument("--environment", type=Path, default=None, help="kept for the next time")
    parser.add_argument("--only", default="", help="files whose path has this in it")
    options = parser.parse_args()
    wanted = packages(options.packages)
    with tempfile.TemporaryDirectory() as folder:
        python = install(
            options.environment or Path(folder) / "venv", [package for _, package, _, _ in wanted]
        )
        site = folder_of(python)
        jobs = [
            {"kind": kind, "package": package, "file": str(file), "inputs": inputs}
            for kind, package, pattern, inputs in wanted
            for file in files_of(site, package, pattern)
            if options.only in str(file)
        ]
        listed = Path(folder) / "files.json"
        listed.write_text(json.dumps(jobs))
        env = {**os.environ, "PYTHONPATH": str(PACKAGE)}
        program = str(options.clipper.resolve())
        command = [str(python), str(HERE / "compare.py"), program, str(listed)]
        return subprocess.run(command, env=env).returncode


if __name__ == "__main__":
    sys.exit(main())
