"""No secret is where somebody might read it, whatever a test has its server do.

What a server has written is searched when it ends, so that the whole suite is the test: its log, its
data directory, its page of metrics and the arguments of the processes below it, for what looks like a
secret and for the secrets that it was given. A server that was given one logs at trace;
``CLIPPER_TEST_LOG`` says at what all others log. ``tests/support/secrets.rs`` does the same for the
servers of the Rust tests, and says what is not searched.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import os
import re
import ssl
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

LOOKS = re.compile(
    rb"clk_[A-Za-z0-9_-]{40,}"
    rb"|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}"
    rb"|-----BEGIN [A-Z ]*PRIVATE KEY"
    rb"|(?:[Bb]earer|[Bb]asic) [A-Za-z0-9+/=._~-]{16,}"
    rb"|[a-z]://[^\s/@:\"\\]*:[^\s/@*\"\\]+@"
)
"""A key, a token, a private key, a header that shows one, an address with a password."""

FILES = [("access", "keys_file"), ("rpc", "keys"), ("rpc", "curve_key"), ("tls", "key")]
"""Settings that name files with secrets."""

SECRET_MIN = 16
"""A password that is shorter could be a word of the log."""


class Secrets:
    """All that were made, by what they are."""

    def __init__(self) -> None:
        self.all: dict[str, bytes] = {}

    def add(self, what: str, secret: str | bytes) -> str | bytes:
        self.all[what] = secret.encode() if isinstance(secret, str) else secret
        return secret

    def forms(self) -> dict[bytes, str]:
        """Each in every way of writing it that is in use."""
        forms: dict[bytes, str] = {}
        for what, secret in self.all.items():
            raw = [secret]
            text = secret.removeprefix(b"clk_")
            for decode in (binascii.unhexlify, lambda t: base64.urlsafe_b64decode(t + b"==")):
                try:
                    raw.append(decode(text))
                except (ValueError, binascii.Error):
                    pass
            for one in {secret, text, *raw}:
                if len(one) < SECRET_MIN:
                    continue
                encoded = base64.b64encode(one).rstrip(b"=")
                forms |= {
                    form: what
                    for form in (
                        one,
                        encoded,
                        base64.urlsafe_b64encode(one).rstrip(b"="),
                        binascii.hexlify(one),
                        binascii.hexlify(one).upper(),
                        quote(one).encode(),
                        json.dumps(one.decode("latin-1")).strip('"').encode(),
                        repr(one)[2:-1].encode(),
                        ", ".join(map(str, one)).encode(),
                    )
                }
        return forms

    def found_in(self, text: bytes) -> set[str]:
        return {what for form, what in self.forms().items() if form in text}


def family(pid: int) -> list[int]:
    """A process and all below it."""
    table = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        table[int(folder.name)] = int(fields[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in table.items() if parent == one]
    return found


def of_process(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def look(place: str, text: bytes, forms: dict[bytes, str]) -> list[str]:
    """What is in a text that nobody should find there."""
    looks = [found[0].decode("latin-1") for found in LOOKS.finditer(text)]
    return [f"{place}: {found}" for found in {*looks, *(w for f, w in forms.items() if f in text)}]


def files_below(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


class Watch:
    """What is searched when a server ends."""

    def __init__(self, config: str, env: dict[str, str], data: Path) -> None:
        self.given = Secrets()
        self.env = env
        self.data = data
        self.seen: dict[str, bytes] = {}
        self.observer: str | None = None
        self.config: dict[str, Any] = tomllib.loads(config)
        self.take_list(env.get("CLIPPER_KEYS", "").replace(";", "\n"))
        for url in [*env.values(), self.config.get("redis_url", "")]:
            password = re.search(r"://[^/@:]*:([^/@]+)@", url)
            if password:
                self.take("password", password[1])
        self.read_files()

    def level(self) -> dict[str, str]:
        """At what the server logs, unless the test has said so."""
        level = "trace" if self.given.all else os.environ.get("CLIPPER_TEST_LOG")
        is_told = "CLIPPER_LOG" in self.env or "filter" in self.config.get("log", {})
        return {"CLIPPER_LOG": level} if level and not is_told else {}

    def take(self, what: str, secret: str) -> None:
        if len(secret) >= SECRET_MIN:
            self.given.add(f"{what} {secret}", secret)

    def take_list(self, text: str) -> None:
        """Secrets of a list of keys, ``NAME ROLE SECRET [PATTERN]`` on each line."""
        for words in map(str.split, text.splitlines()):
            # Others are a hash, or what is public of a pair.
            if len(words) > 2 and ":" not in words[2]:
                self.take("key", words[2])
                if words[1] in ("admin", "observe"):
                    self.observer = words[2]

    def read_files(self) -> None:
        """They may have been replaced since."""
        for table, key in FILES:
            name = self.config.get(table, {}).get(key)
            try:
                text = Path(name).read_text() if name else ""
            except OSError:
                continue
            if text.startswith("-----BEGIN"):
                # What follows has the public key in it.
                for line in text.splitlines()[1:3]:
                    self.take("private key", line)
            elif len(text.split()) == 1:
                self.take("private key", text.strip())
            else:
                self.take_list(text)

    def look(self, pid: int, metrics: str) -> None:
        """Looks at what is there only as long as the server runs."""
        self.read_files()
        headers = {"Authorization": f"Bearer {self.observer}"} if self.observer else {}
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        request = urllib.request.Request(f"{metrics}/metrics", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:
                self.seen["metrics"] = answer.read()
        except (OSError, ValueError, http.client.HTTPException):
            pass  # The test has ended it, or shut us out.
        for child in family(pid)[1:]:
            own = re.search(rb"CLIPPER_RPC_KEY=([0-9a-f]{64})", of_process(child, "environ"))
            if own:
                self.take("own key of a child", own[1].decode())
            self.seen[f"arguments of {child}"] = of_process(child, "cmdline")

    def end(self, log: bytes) -> None:
        """Searches all that there is after its end."""
        self.seen["log"] = log
        assert self.data.is_dir(), f"{self.data} has gone unsearched"
        for file in files_below(self.data):
            self.seen[str(file)] = file.read_bytes()
        check(self.seen, self.given)


def check(texts: dict[str, bytes], given: Secrets) -> None:
    """Fails the test with the places of what nobody should find there."""
    forms = given.forms()
    found = [line for place, text in texts.items() for line in look(place, text, forms)]
    assert not found, "a secret can be read:\n" + "\n".join(found[:20])
