"""The bill of materials that images carry."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from harness import ROOT


def bill(*flags: str, given: str | None = None) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "scripts" / "sbom.py"), *flags]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(done.stdout)
    assert fault is None, fault
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def metadata() -> str:
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--offline"]
    command += ["--filter-platform", "x86_64-unknown-linux-gnu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_program_is_made_of_what_is_locked_and_linked() -> None:
    said = metadata()
    made = bill("--cargo", "-", "--root", "clipper", given=said)
    names = {one["name"]: one for one in made["components"]}
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    known = {(one["name"], one["version"]): one.get("checksum") for one in locked}
    for one in made["components"]:
        checksum = known[one["name"], one["version"]]
        assert [h["content"] for h in one.get("hashes", [])] == ([checksum] if checksum else [])
    assert {"rustls", "h2", "sled", "clipper_rpc", "tokio"} <= names.keys()
    # Of tests, of the build, and of the compiler alone.
    assert not {"proptest", "serde_derive", "cc"} & names.keys()
    assert all(one["licenses"] for one in made["components"])
    refs = {one["bom-ref"] for one in [*made["components"], made["metadata"]["component"]]}
    assert {edge["ref"] for edge in made["dependencies"]} == refs
    assert all(refs.issuperset(edge["dependsOn"]) for edge in made["dependencies"])
    assert bill("--cargo", "-", "--root", "clipper", given=said) == made


def test_an_image_is_made_of_packages_too(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text(
        "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\n"
        "Version: 2.36-9+deb12u9\n"
        "Description: C\n more\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n"
    )
    made = bill("--python", "--dpkg", str(status), "--root", "image", "--version", "1")
    purls = [one["purl"] for one in made["components"]]
    assert "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64" in purls
    assert not any("gone" in purl for purl in purls)
    assert any(purl.startswith("pkg:pypi/pyzmq@") for purl in purls)


def test_the_bill_has_each_package_that_its_own_tools_list(tmp_path: Path) -> None:
    image = ["--root", "image", "--version", "1"]
    made = {one["purl"] for one in bill("--python", *image)["components"]}
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format", "json"], capture_output=True, check=True
    )
    for one in json.loads(listed.stdout):
        name = re.sub(r"[-_.]+", "-", one["name"]).lower()
        assert f"pkg:pypi/{name}@{one['version']}" in made
    status = Path("/var/lib/dpkg/status")
    if status.exists():
        said = bill("--dpkg", str(status), *image)["components"]
        fields = "${db:Status-Status} ${Package} ${Version}\n"
        query = ["dpkg-query", "--show", f"--showformat={fields}"]
        rows = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        installed = [row.split() for row in rows.splitlines() if row.startswith("installed ")]
        assert {(one["name"], one["version"]) for one in said} == {
            (name, version) for _, name, version in installed
        }
    # A wheel of which only a library goes into an image.
    info = tmp_path / "onnxruntime-1.2.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime\nVersion: 1.2.3\n")
    said = bill("--python", str(tmp_path), *image)["components"]
    assert [one["purl"] for one in said] == ["pkg:pypi/onnxruntime@1.2.3"]


def test_whatever_is_copied_into_an_image_is_in_its_bill() -> None:
    stages = {}
    text = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
    for body in text.split("\nFROM ")[1:]:
        stages[body.split("\n", 1)[0].split()[-1]] = body
    copied = {name: set(re.findall(r"--from=(\S+)", body)) for name, body in stages.items()}
    assert "onnxruntime" in copied["server"]
    # The base of the image by its list of packages.
    base = stages["server"].split()[0]
    assert copied["server"] - {"sbom"} | {base} <= copied["sbom"]


def test_what_images_are_built_of_is_not_ignored() -> None:
    deploy = ROOT / "deploy"
    kept = {
        line[1:]
        for line in (deploy / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    text = (deploy / "Dockerfile").read_text().replace("\\\n", " ")
    sources = set(re.findall(r"--mount=type=bind,source=(\S+?),", text))
    for line in text.splitlines():
        words = [word for word in line.split() if not word.startswith("--chmod")]
        if words[:1] == ["COPY"] and not words[1].startswith("--from"):
            sources.update(words[1:-1])
    assert sources and all((ROOT / source).exists() for source in sources), sources
    lost = {one for one in sources if not any(one.startswith(name) for name in kept)}
    assert not lost, lost


def test_each_image_carries_one() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    stages = dict.fromkeys(line.split()[-1] for line in text.splitlines() if line[:5] == "FROM ")
    for stage in stages:
        body = text.split(f" AS {stage}\n", 1)[1].split("\nFROM ", 1)[0]
        if "ENTRYPOINT" in body:
            assert "/usr/share/sbom/" in body, stage
