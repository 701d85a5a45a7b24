"""Certificates, keys and clients for servers that ask for them."""

from __future__ import annotations

import os
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from harness import BINARY

APPLICATION = """
[[application]]
name = "digits"
input_type = "doubles"
default_output = "7"
latency_slo_micros = 100000
"""


class Pair(NamedTuple):
    """A certificate and its key."""

    cert: Path
    key: Path


def clipper(*words: str | Path, env: dict[str, str] | None = None) -> str:
    """What a command that has to succeed prints."""
    done = run(*words, env=env)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def run(*words: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(BINARY), *map(str, words)]
    own = {name: value for name, value in os.environ.items() if name != "CLIPPER_KEY"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**own, **(env or {})}
    )


def self_signed(folder: Path, *more: str) -> Pair:
    clipper("cert", "self-signed", folder, *more)
    return Pair(folder / "cert.pem", folder / "key.pem")


def openssl(*words: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    command = ["openssl", *map(str, words)]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)


def issued(
    folder: Path, authority: Pair, name: str, *, dates: tuple[str, str] | None = None
) -> Pair:
    """A certificate by an authority, for what OpenSSL takes as dates (YYYYMMDDHHMMSSZ)."""
    folder.mkdir(exist_ok=True)
    pair = Pair(folder / f"{name}.pem", folder / f"{name}-key.pem")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    request = folder / f"{name}.csr"
    made = openssl("req", *new_key, "-keyout", pair.key, "-out", request, "-subj", f"/CN={name}")
    assert made.returncode == 0, made.stderr
    (folder / "index").touch()
    (folder / "serial").write_text("1000\n")
    (folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca=d\n[d]\n"
        f"database={folder}/index\nserial={folder}/serial\nnew_certs_dir={folder}\n"
        "default_md=sha256\npolicy=p\nx509_extensions=x\nunique_subject=no\n"
        "[p]\ncommonName=supplied\n"
        f"[x]\nsubjectAltName=DNS:{name}\n"
    )
    start, end = dates or ("20200101000000Z", "20450101000000Z")
    done = openssl(
        "ca", "-batch", "-config", folder / "ca.cnf", "-cert", authority.cert,
        "-keyfile", authority.key, "-in", request, "-out", pair.cert,
        "-startdate", start, "-enddate", end, "-notext",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return pair


def authority(folder: Path) -> Pair:
    folder.mkdir(exist_ok=True)
    pair = Pair(folder / "ca.pem", folder / "ca-key.pem")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made = openssl(
        "req", "-x509", *new_key, "-keyout", pair.key, "-out", pair.cert, "-days", "30",
        "-subj", f"/CN={folder.name}", "-addext", "basicConstraints=critical,CA:TRUE",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return pair


def trusting(cert: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(cert))


def ask(
    url: str, cert: Path | None = None, body: bytes | None = None, **headers: str
) -> tuple[int, str]:
    """Status and text of an answer."""
    sent = {"content-type": "application/json", "accept": "text/plain"}
    sent.update({name.replace("_", "-"): value for name, value in headers.items()})
    request = urllib.request.Request(url, body, sent)
    context = trusting(cert) if cert else None
    try:
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")


def tls_section(pair: Pair, more: str = "") -> str:
    return f'[tls]\ncert = "{pair.cert}"\nkey = "{pair.key}"\nreload_ms = 50\n{more}\n'
