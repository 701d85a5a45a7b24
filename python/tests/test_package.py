"""The package as a whole: its public names, and the examples of the README."""

from __future__ import annotations

import re
from pathlib import Path

import clipper_serving

ROOT = Path(__file__).parent.parent


def test_public_names_exist() -> None:
    for name in clipper_serving.__all__:
        assert hasattr(clipper_serving, name)


def test_the_package_is_typed() -> None:
    assert (Path(clipper_serving.__file__).parent / "py.typed").is_file()


def test_examples_of_the_readme_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 7
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
