#!/usr/bin/env python3
"""Writes what a program or an image is made of, as CycloneDX 1.6 (JSON), to standard output.

    cargo metadata --format-version 1 --locked | scripts/sbom.py --cargo - --root clipper
    scripts/sbom.py --python --dpkg /var/lib/dpkg/status --root clipper-python

--cargo reads what `cargo metadata` says and keeps what is linked into the program: no crate that only
builds or tests it, or is for another system (say `--filter-platform`). --python lists the distributions
of the Python that runs this, or those in a folder, --dpkg the packages of a Debian by its status file.
Needs only Python's own library, 3.9 or later.
"""

import argparse
import hashlib
import json
import re
import sys
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, TextIO
from urllib.parse import quote

Component = Dict[str, Any]


def component(
    kind: str, name: str, version: str, purl: str, licence: Optional[str] = None
) -> Component:
    found: Component = {
        "type": kind,
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
    }
    if licence:
        # Cargo's older way of writing "or".
        found["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", " ".join(licence.split()))}]
    return found


def checksums(lock: Path) -> Dict[str, str]:
    """SHA-256 of the crates that Cargo.lock names, by `name version`."""
    blocks = lock.read_text().split("[[package]]")[1:] if lock.is_file() else []
    found = {}
    for block in blocks:
        fields = dict(re.findall(r'^(\w+) = "([^"]*)"$', block, re.M))
        if "checksum" in fields:
            found[f"{fields['name']} {fields['version']}"] = fields["checksum"]
    return found


class Crates:
    """The crates that are linked into a program."""

    def __init__(self, source: TextIO, root: str) -> None:
        said = json.load(source)
        self.packages = {package["id"]: package for package in said["packages"]}
        self.nodes = {node["id"]: node for node in said["resolve"]["nodes"]}
        self.sums = checksums(Path(said["workspace_root"]) / "Cargo.lock")
        own = [self.packages[member] for member in said["workspace_members"]]
        self.root = next(package["id"] for package in own if package["name"] == root)

    def linked_with(self, crate: str) -> List[str]:
        """The crates that one is linked with, directly."""
        return [
            dependency["pkg"]
            for dependency in self.nodes[crate]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
            and not self.is_macro(dependency["pkg"])
        ]

    def is_macro(self, crate: str) -> bool:
        """Whether it runs in the compiler alone."""
        return any("proc-macro" in target["kind"] for target in self.packages[crate]["targets"])

    def all(self) -> Iterator[str]:
        """Beside the program itself."""
        seen, left = {self.root}, [self.root]
        while left:
            for crate in self.linked_with(left.pop()):
                if crate not in seen:
                    seen.add(crate)
                    left.append(crate)
                    yield crate

    def purl(self, crate: str) -> str:
        package = self.packages[crate]
        return f"pkg:cargo/{package['name']}@{quote(package['version'])}"

    def component(self, crate: str, kind: str = "library") -> Component:
        package = self.packages[crate]
        name, version = package["name"], package["version"]
        found = component(kind, name, version, self.purl(crate), package["license"])
        checksum = self.sums.get(f"{name} {version}")
        if checksum:
            found["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        return found


def of_python(folder: Optional[Path]) -> Iterator[Component]:
    seen = set()
    path = sys.path if folder is None else [str(folder)]
    for distribution in metadata.distributions(path=path):
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        if name not in seen:
            seen.add(name)
            version = distribution.version
            yield component("library", name, version, f"pkg:pypi/{name}@{quote(version)}")


def of_debian(status: Path) -> Iterator[Component]:
    for block in status.read_text(encoding="utf-8", errors="replace").split("\n\n"):
        fields = dict(re.findall(r"^([A-Z][\w-]*): (.*)$", block, re.M))
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/debian/{name}@{quote(version)}?arch={fields['Architecture']}"
            yield component("library", name, version, purl)


def bill(arguments: argparse.Namespace) -> Dict[str, Any]:
    components: List[Component] = []
    dependencies = []
    root = component("application", arguments.root, arguments.version, arguments.root)
    if arguments.cargo:
        crates = Crates(arguments.cargo, arguments.root)
        root = crates.component(crates.root, "application")
        linked = sorted(crates.all(), key=crates.purl)
        components += [crates.component(crate) for crate in linked]
        dependencies = [
            {
                "ref": crates.purl(crate),
                "dependsOn": sorted({crates.purl(other) for other in crates.linked_with(crate)}),
            }
            for crate in [crates.root, *linked]
        ]
    if arguments.python:
        folder = None if arguments.python is True else arguments.python
        components += sorted(of_python(folder), key=lambda found: str(found["name"]))
    if arguments.dpkg:
        components += of_debian(arguments.dpkg)
    text = json.dumps([root, components, dependencies], sort_keys=True)
    # The same parts make the same document.
    serial = uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": root},
        "components": components,
        "dependencies": dependencies,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", required=True, metavar="NAME", help="the program or the image")
    parser.add_argument("--version", default="0", help="its version, without --cargo")
    parser.add_argument("--cargo", type=argparse.FileType("r"), metavar="FILE")
    parser.add_argument("--python", nargs="?", const=True, type=Path, metavar="FOLDER")
    parser.add_argument("--dpkg", type=Path, metavar="FILE")
    json.dump(bill(parser.parse_args()), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
