"""No secret is where somebody might read it: a run with all of them, then a look everywhere."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path

import grpc
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from harness import ROOT, Server, process, server, until
from leaks import LOOKS, Secrets, family, of_process
from ports import free_port
from secured import (
    APPLICATION,
    Pair,
    ask,
    clipper,
    openssl,
    run,
    self_signed,
    tls_section,
    trusting,
)
from tritonclient.grpc import service_pb2, service_pb2_grpc

MODEL = """
import logging, os

def predict(inputs):
    print("asked", flush=True)
    if any(len(values) == 3 for values in inputs):
        raise ValueError("three are too many")
    return [float(values.sum()) for values in inputs]
"""

CONFIG = """
redis_url = "REDIS"

[access]
keys_file = "FOLDER/keys"
jwt_keys = "FOLDER/jwks"
jwt_issuer = "https://issuer.example"
jwt_audience = "clipper"
failures_per_minute = 60000

[rpc]
keys = "FOLDER/container-keys"
curve_key = "FOLDER/curve/curve.key"
null_from = []
"""


def test_a_secret_is_found_in_every_form() -> None:
    """Otherwise that none is found says nothing."""
    made = Secrets()
    key = secrets.token_bytes(32)
    made.add("key", "clk_" + base64.urlsafe_b64encode(key).decode().rstrip("="))
    for form in (key, key.hex().encode(), base64.b64encode(key), str(list(key)).encode()):
        assert made.found_in(b"before " + form + b" after") == {"key"}, form
    assert made.found_in(b"nothing") == set()


@pytest.mark.parametrize(
    "secret",
    [
        "clk_" + "aB3-_" * 9,
        '{"token":"eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0abc.c2lnbmF0dXJlLW9m-_w"}',
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN EC PRIVATE KEY-----",
        '"authorization": "Bearer 0123456789abcdef"',
        "redis://:password@127.0.0.1:6379",
    ],
)
def test_a_secret_is_found_by_its_looks(secret: str) -> None:
    assert LOOKS.search(f"before {secret} after".encode())


def test_what_only_resembles_a_secret_is_none() -> None:
    for text in (b"clk_short", b"redis://***@127.0.0.1", b"http://127.0.0.1:1/a@b", b"a Bearer"):
        assert not LOOKS.search(text), text


class Issuer:
    """Who makes tokens, and where his public key is read."""

    def __init__(self, jwks: Path, made: Secrets) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.made = made
        public = self.text(self.key.public_key().public_bytes_raw())
        found = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "x": public}
        jwks.write_text(json.dumps({"keys": [found]}))

    @staticmethod
    def text(part: bytes | dict[str, object]) -> str:
        part = part if isinstance(part, bytes) else json.dumps(part).encode()
        return base64.urlsafe_b64encode(part).decode().rstrip("=")

    def token(self, what: str, **other: object) -> str:
        """One that is good, but for what is said."""
        claims = {"iss": "https://issuer.example", "aud": "clipper", "role": "predict"}
        claims |= {"sub": what, "exp": int(time.time()) + 3600, **other}
        signed = f"{self.text({'alg': 'EdDSA'})}.{self.text(claims)}"
        signature = self.text(self.key.sign(signed.encode()))
        # What signs, and all of it; the claims are no secret.
        self.made.add(f"signature of token {what}", signature)
        self.made.add(f"token {what}", f"{signed}.{signature}")
        return f"{signed}.{signature}"


def made_by(command: str) -> str:
    """The secret that a command has printed."""
    (found,) = re.findall(r"clk_[A-Za-z0-9_-]{20,}", command)
    return found


class Used:
    """A server that is used, rightly and wrongly, and what is written meanwhile."""

    def __init__(self, served: Server, pair: Pair, made: Secrets, root: str) -> None:
        self.served = served
        self.pair = pair
        self.made = made
        self.root = root
        self.told: dict[str, bytes] = {}

    def note(self, where: str, text: str | bytes) -> None:
        text = text.encode() if isinstance(text, str) else text
        self.told[where] = self.told.get(where, b"") + text

    def command(self, *words: str, key: str | None = None) -> str:
        """Runs a command of the server; whatever it says but new keys is looked at."""
        env = {"CLIPPER_KEY": key or self.root, "CLIPPER_TLS_CA": str(self.pair.cert)}
        done = run(*words, "--url", self.served.management, env=env)
        self.note(f"clipper {' '.join(words[:2])}: errors", done.stderr)
        if words[:2] not in (("key", "add"), ("key", "rotate")):
            self.note(f"clipper {' '.join(words)}", done.stdout)
        return done.stdout

    def key(self, name: str, role: str) -> str:
        key = made_by(self.command("key", "add", name, "--role", role))
        self.made.add(f"key {name}", key)
        return key

    def call(self, key: str) -> None:
        """The same over gRPC."""
        trusted = grpc.ssl_channel_credentials(self.pair.cert.read_bytes())
        with grpc.secure_channel(self.served.grpc, trusted) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            named = service_pb2.ModelMetadataRequest(name="sum")
            try:
                stub.ModelMetadata(named, metadata=[("authorization", f"Bearer {key}")])
            except grpc.RpcError as error:
                self.note("errors over gRPC", str(error))

    def ask(self, url: str, body: object = None, **headers: str) -> None:
        data = json.dumps(body).encode() if body is not None else None
        _, text = ask(url, self.pair.cert, data, **headers)
        self.note("answers", text)


def ask_in_every_way(used: Used, key: str) -> None:
    query, management = used.served.query, used.served.management
    bearer = {"authorization": f"Bearer {key}"}
    feedback = {"uid": 1, "input": [1.0], "label": 1.0}
    used.ask(f"{query}/digits/predict", {"input": [1.0]}, **bearer)
    used.ask(f"{query}/digits/predict", {"input": "wrong"}, **bearer)
    used.ask(f"{query}/digits/predict?explain=1", {"input": [1.0]}, **bearer)
    used.ask(f"{query}/digits/update", feedback, **bearer)
    used.ask(f"{management}/admin/delete_app", {"name": "none"}, **bearer)
    used.ask(f"{management}/admin/get_all_applications", {"verbose": True}, **bearer)
    used.ask(f"{used.served.metrics}/metrics", **bearer)
    basic = base64.b64encode(f"any:{key}".encode()).decode()
    used.ask(f"{query}/v2/models/sum", **{"authorization": f"Basic {basic}"})
    used.call(key)
    # Ways that are none.
    used.call(f"{key}x")
    used.ask(f"{query}/v2/models/sum", **{"authorization": key})
    used.ask(f"{query}/v2/models/sum", **{"x-api-key": key})
    for url in (query, management, used.served.metrics):
        used.ask(f"{url}/digits/update?key={key}", feedback)
        used.ask(f"{url}/digits/predict?explain=1&token={key}", {"input": [1.0]}, **bearer)
        used.ask(f"{url}/metrics?access_token={key}")
    used.ask(f"{query}/v2/models/sum/infer?key={key}", {"inputs": []}, **bearer)
    with httpx.Client(http2=True, verify=trusting(used.pair.cert)) as client:
        url = f"{query}/digits/predict?key={key}"
        sent = client.post(url, json={"input": [2.0]}, headers=bearer)
        used.note("answers", sent.content)


def look_back(used: Used, folder: Path) -> None:
    """What the server tells of all that was done."""
    for words in (["log"], ["blame", "digits"], ["diff", "1..2"]):
        used.command("journal", *words)
    used.command("export", "--file", str(folder / "exported.toml"))
    used.note("export", (folder / "exported.toml").read_bytes())
    used.command("backup", str(folder / "whole.backup"))
    used.note("backup", (folder / "whole.backup").read_bytes())
    used.command("explain", "--default")
    bearer = {"authorization": f"Bearer {used.root}"}
    for path in ("/", "/admin/dashboard", "/admin/explain", "/openapi.json"):
        used.ask(f"{used.served.management}{path}", **bearer)
    used.ask(f"{used.served.management}/admin/journal/state", {"at": "1"}, **bearer)
    # As an address, where there is nobody.
    host = f"https://any:{used.root}@127.0.0.1:{free_port()}"
    done = run("admin", "apps", "list", "--url", host)
    used.note("errors of an address", done.stdout + done.stderr)


def use(used: Used, folder: Path, container_keys: dict[str, dict[str, str]]) -> None:
    served, made = used.served, used.made
    keys = {role: used.key(f"of-{role}", role) for role in ("predict", "observe", "operate")}
    again = used.command("key", "rotate", "of-predict", "--keep-old", "1d")
    keys["rotated"] = made_by(again)
    made.add("rotated", keys["rotated"])
    gone = used.key("gone", "predict")
    used.command("key", "revoke", "gone")
    used.command("key", "list")
    query, management = served.query, served.management
    almost = keys["predict"][:-2] + "xx"
    made.add("almost a key", almost)
    issuer = Issuer(folder / "jwks", made)
    tokens = [
        issuer.token("good"),
        issuer.token("expired", exp=int(time.time()) - 10),
        issuer.token("for others", aud="others"),
        Issuer(folder / "other-jwks", made).token("of a stranger"),
    ]
    for key in [*keys.values(), *tokens, gone, almost, used.root]:
        ask_in_every_way(used, key)
    (folder / "model.py").write_text(MODEL)
    deploy = ["deploy", str(folder / "model.py") + ":predict", "--app", "deployed"]
    deploy += ["--slo-ms", "20000", "--default-output", "-1", "--python", sys.executable]
    used.command(*deploy)
    used.command(*deploy, "--version", "2", key=keys["operate"])
    admin = {"authorization": f"Bearer {used.root}"}
    for values in ([1.0, 2.0], [1.0, 2.0, 3.0]):
        used.ask(f"{query}/deployed/predict", {"input": values}, **admin)
    container_key = used.key("of-container", "container")
    of_key = {"CLIPPER_RPC_KEY_NAME": "of-container", "CLIPPER_RPC_KEY": container_key}
    for name, settings in {**container_keys, "by-key": of_key}.items():
        env = {**os.environ, **settings}
        command = ["-m", "clipper_serving", "serve", "model.py:predict", "--name", name]
        command += ["--version", "1", "--input-type", "doubles", "--metrics-port", "0"]
        env |= {"PYTHONPATH": str(ROOT / "python" / "src"), "CLIPPER_PORT": str(served.rpc_port)}
        said = folder / f"{name}.log"
        with said.open("wb") as log, process(
            sys.executable, *command, cwd=folder, env=env, stdout=log, stderr=log
        ):
            def came(name: str = name, said: Path = said) -> bool:
                if not name.startswith("wrong"):
                    return "the server says" in said.read_text()
                _, metrics = ask(f"{served.metrics}/metrics", used.pair.cert, **admin)
                return 'clipper_rpc_ended_total{reason="denied"} 0' not in metrics

            until(f"{name} has come", came)
        used.note(f"container {name}", said.read_bytes())
    for words in (["admin", "apps", "list"], ["admin", "containers", "list"], ["top", "--once"]):
        if words[0] != "top":
            used.command(*words)
    for pid in family(served.process.pid):
        used.note(f"arguments of {pid}", of_process(pid, "cmdline"))
        if pid != served.process.pid:
            environment = of_process(pid, "environ")
            # That a process of the server has its own key there is how it gets it.
            own = re.search(rb"\0CLIPPER_RPC_KEY=([0-9a-f]{64})\0", environment)
            if own:
                made.add(f"own key of {pid}", own[1])
                environment = environment.replace(own[1], b"")
            used.note(f"environment of {pid}", environment)
    assert any(what.startswith("own key") for what in made.all), "deployed models have keys"
    look_back(used, folder)


def tell_of_wrong_passwords(used: Used, folder: Path, redis_port: int) -> None:
    """Another server, whose passwords for Redis and for an issuer are wrong."""
    folder.mkdir()
    of_redis, of_issuer = (secrets.token_urlsafe(24) for _ in range(2))
    used.made.add("wrong password of Redis", of_redis)
    used.made.add("password of an issuer", of_issuer)
    config = (
        f'redis_url = "redis://:{of_redis}@127.0.0.1:{redis_port}"\n'
        f'[access]\njwt_keys = "https://any:{of_issuer}@127.0.0.1:{free_port()}/jwks"\n'
        'jwt_issuer = "i"\njwt_audience = "a"\n'
    )
    with server(folder, config, {"CLIPPER_LOG": "trace"}) as served:
        for what in ("redis", "issuer"):
            until(what, lambda what=what: any(what in line.lower() for line in served.lines))
        used.note("log of a server with wrong passwords", "".join(served.lines))


def test_no_secret_is_written_anywhere(tmp_path: Path) -> None:
    made = Secrets()
    folder = tmp_path / "given"
    folder.mkdir()
    root, listed, plain = (secrets.token_hex(32) for _ in range(3))
    for what, secret in [("root", root), ("listed", listed), ("PLAIN", plain)]:
        made.add(what, secret)
    password = str(made.add("password of Redis", secrets.token_urlsafe(24)))
    (folder / "keys").write_text(f"listed predict {listed}\n")
    pair = self_signed(folder / "tls")
    text = pair.key.read_text()
    # Behind them is the public key, which every client sees.
    for line in text.splitlines()[1:3]:
        made.add(f"private key of TLS, {line[:6]}", line)
    shown = openssl("pkey", "-in", pair.key, "-noout", "-text").stdout
    number = shown.partition("priv:")[2].partition("pub:")[0]
    made.add("private key of TLS", bytes.fromhex("".join(number.split()).replace(":", "")))
    clipper("cert", "curve", folder / "curve")
    clipper("cert", "curve", folder / "own")
    own = {name: (folder / "own" / f"curve.{name}").read_text().strip() for name in ("key", "pub")}
    made.add("CURVE, server", (folder / "curve" / "curve.key").read_text().strip())
    made.add("CURVE, container", own["key"])
    (folder / "container-keys").write_text(
        f"plain container {plain}\ncurve container curve:{own['pub']}\n"
    )
    server_key = (folder / "curve" / "curve.pub").read_text().strip()
    wrong = secrets.token_hex(32)
    made.add("wrong secret of a container", wrong)
    of_containers = {
        "by-plain": {"CLIPPER_RPC_KEY_NAME": "plain", "CLIPPER_RPC_KEY": plain},
        "by-curve": {"CLIPPER_RPC_SERVER_KEY": server_key, "CLIPPER_RPC_SECRET_KEY": own["key"]},
        "wrong-plain": {"CLIPPER_RPC_KEY_NAME": "plain", "CLIPPER_RPC_KEY": wrong},
    }
    # Who signs is known before the server starts.
    Issuer(folder / "jwks", Secrets())
    port = free_port()
    redis = ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"]
    (folder / "redis.conf").write_text(f"requirepass {password}\n")
    with process(redis[0], folder / "redis.conf", *redis[1:], stdout=subprocess.DEVNULL):
        url = f"redis://:{password}@127.0.0.1:{port}"
        config = CONFIG.replace("REDIS", url).replace("FOLDER", str(folder))
        config += APPLICATION + tls_section(pair)
        env = {"CLIPPER_KEYS": f"root admin {root}", "CLIPPER_LOG": "trace"}
        with server(tmp_path, config, env) as served:
            used = Used(served, pair, made, root)
            use(used, folder, of_containers)
            time.sleep(0.1)
            export = ["redis-cli", "-u", url, "--no-auth-warning"]
            for table in range(1, 8):
                keys = subprocess.run([*export, "-n", str(table), "keys", "*"], capture_output=True)
                for key in keys.stdout.split():
                    of_key = [*export, "-n", str(table), "hgetall", key.decode()]
                    used.note("Redis", subprocess.run(of_key, capture_output=True).stdout)
        used.note("log", "".join(served.lines))
        tell_of_wrong_passwords(used, tmp_path / "wrong", port)
        assert len(served.lines) > 1000, "the log is one at trace"
    data = tmp_path / "data"
    for words in (["list", "--json"], ["state"], ["verify"]):
        used.note(f"journal {words[0]}", clipper("journal", *words, "--data-dir", data))
    for file in data.rglob("*"):
        if file.is_file():
            used.note(str(file.relative_to(data)), file.read_bytes())
    # What stops a server from starting says where, and not what.
    broken = tmp_path / "broken.toml"
    (folder / "broken-keys").write_text(f"listed predict {listed} two patterns\nx y {root}\n")
    broken.write_text(f'[access]\nkeys_file = "{folder}/broken-keys"\n')
    for words in (["check-config", broken], ["serve", "--config", broken]):
        extra = {"CLIPPER_REDIS_URL": f"http://:{password}@127.0.0.1"}
        for env in ({}, extra, {"CLIPPER_KEYS": f"root nobody {root}"}):
            done = run(*words, env={"CLIPPER_DATA_DIR": str(tmp_path / "other"), **env})
            used.note(f"errors of {words[0]}", done.stdout + done.stderr)
            assert done.returncode != 0 or words[0] == "check-config", done
    shutil.rmtree(folder)
    assert sum(map(len, used.told.values())) > 100_000
    found = {where: made.found_in(text) for where, text in used.told.items()}
    found = {where: what for where, what in found.items() if what}
    assert not found, found
