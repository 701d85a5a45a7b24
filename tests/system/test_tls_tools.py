"""TLS as tools of others see it: OpenSSL, curl and sslyze."""

from __future__ import annotations

import functools
import http.server
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from harness import Server, server, until
from secured import (
    APPLICATION,
    Pair,
    ask,
    authority,
    issued,
    openssl,
    run,
    self_signed,
    tls_section,
    trusting,
)


class Guarded:
    """A server with TLS, and what its clients need."""

    def __init__(self, served: Server, pair: Pair) -> None:
        self.served = served
        self.pair = pair
        urls = [served.query, served.management, served.metrics]
        self.ports = [*(urlsplit(url).netloc for url in urls), served.grpc]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("tls")
    pair = self_signed(folder / "made")
    with server(folder, APPLICATION + tls_section(pair)) as served:
        yield Guarded(served, pair)


def client(guarded: Guarded, port: str, *flags: str) -> tuple[bool, str]:
    """Whether ``openssl s_client`` has a connection, and all that it says."""
    trust = ["-CAfile", str(guarded.pair.cert), "-verify_return_error", "-servername", "localhost"]
    done = openssl("s_client", "-connect", port, *trust, *flags, text="")
    return done.returncode == 0, done.stdout + done.stderr


def test_openssl_agrees_on_new_versions_and_is_refused_with_old_ones(guarded: Guarded) -> None:
    # Otherwise OpenSSL itself would not offer them.
    weakest = ["-cipher", "ALL:@SECLEVEL=0"]
    for port in guarded.ports:
        for version, said in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")]:
            is_there, told = client(guarded, port, version)
            assert is_there and said in told and "Verify return code: 0" in told, (port, told)
        for version in ["-tls1", "-tls1_1"]:
            is_there, told = client(guarded, port, version, *weakest)
            assert not is_there and "SSL alert number" in told, (port, version, told)
        is_there, told = client(guarded, port, "-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0")
        assert not is_there and "alert handshake failure" in told, (port, told)


def test_openssl_finds_what_is_spoken_inside(guarded: Guarded) -> None:
    for port, offered, chosen in [
        (guarded.ports[0], "h2,http/1.1", "ALPN protocol: h2"),
        (guarded.ports[1], "http/1.1", "ALPN protocol: http/1.1"),
        (guarded.ports[3], "h2", "ALPN protocol: h2"),
    ]:
        _, told = client(guarded, port, "-alpn", offered)
        assert chosen in told, told
    _, told = client(guarded, guarded.ports[0], "-alpn", "spdy/1")
    assert "no application protocol" in told, told


def curl(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["curl", "-sS", "--max-time", "60", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def test_curl_asks_over_both_versions_of_http(guarded: Guarded) -> None:
    trust = ["--cacert", guarded.pair.cert]
    query = f"{guarded.served.query}/digits/predict"
    send = ["-H", "Content-Type: application/json", "-d", '{"input": [1.0]}']
    for flags, version in [([], "2"), (["--http2"], "2"), (["--http1.1"], "1.1")]:
        done = curl(*trust, *flags, *send, "-w", "\n%{http_version}", query)
        body, _, spoken = done.stdout.rpartition("\n")
        assert spoken == version and json.loads(body)["output"] == 7, (flags, done)
    # 60: it does not know who has signed the certificate.
    stranger = curl(query)
    assert stranger.returncode == 60 and "self-signed certificate" in stranger.stderr, stranger
    plain = curl(query.replace("https", "http"))
    assert "This port speaks TLS" in plain.stdout, plain


def test_certificates_of_clients_are_checked_and_both_sides_say_why(tmp_path: Path) -> None:
    ours, theirs = authority(tmp_path / "ours"), authority(tmp_path / "theirs")
    good = issued(tmp_path / "good", ours, "client")
    past = ("20200101000000Z", "20200102000000Z")
    wrong = {
        "certificate expired": issued(tmp_path / "expired", ours, "client", dates=past),
        "UnknownIssuer": issued(tmp_path / "foreign", theirs, "client"),
    }
    pair = self_signed(tmp_path / "made")
    config = APPLICATION + tls_section(pair, f'client_ca = "{ours.cert}"')
    with server(tmp_path, config) as served:
        trust = ["--cacert", pair.cert]

        def asked(shown: Pair | None, *flags: str) -> subprocess.CompletedProcess[str]:
            own = ["--cert", shown.cert, "--key", shown.key] if shown else []
            return curl(*trust, *own, *flags, f"{served.query}/livez")

        for version in ["--http2", "--http1.1"]:
            assert asked(good, version).returncode == 0, asked(good, version)
        for flags in [[], ["--tls-max", "1.2"]]:
            without = asked(None, *flags)
            assert without.returncode != 0 and "alert" in without.stderr, without
        until("it is said", lambda: any("sent no certificates" in line for line in served.lines))
        for why, shown in wrong.items():
            assert asked(shown).returncode != 0
            # Which curl says in other words, by its version.
            own = ["-cert", shown.cert, "-key", shown.key]
            to = urlsplit(served.query).netloc
            told = openssl("s_client", "-connect", to, "-tls1_2", *own).stderr
            assert {"UnknownIssuer": "unknown ca"}.get(why, why) in told
            line = "invalid peer certificate: " + why
            try:
                until(line, lambda line=line: any(line in said for said in served.lines))
            except AssertionError as late:
                raise AssertionError("".join(served.lines[-5:])) from late
        assert asked(good).returncode == 0


def test_a_server_with_another_name_is_not_trusted_and_clients_say_why(tmp_path: Path) -> None:
    pair = self_signed(tmp_path / "made", "--name", "models.example.com")
    with server(tmp_path, APPLICATION + tls_section(pair)) as served:
        named = curl("--cacert", pair.cert, f"{served.query}/livez")
        assert named.returncode == 60 and "127.0.0.1" in named.stderr, named
        # It is the same server under its own name.
        port = urlsplit(served.query).port
        name = f"models.example.com:{port}"
        given = ["--cacert", pair.cert, "--connect-to", f"{name}:127.0.0.1:{port}"]
        assert curl(*given, f"https://{name}/livez").returncode == 0
        told = run("admin", "apps", "list", "--url", served.management, "--tls-ca", pair.cert)
        assert told.returncode != 0 and "certificate" in told.stderr, told
        for part in ["127.0.0.1", "models.example.com"]:
            assert part in told.stderr, told.stderr


def test_an_expired_certificate_is_refused_at_the_start_and_kept_out_later(tmp_path: Path) -> None:
    ours = authority(tmp_path / "ours")
    past = ("20200101000000Z", "20200102000000Z")
    expired = issued(tmp_path / "expired", ours, "localhost", dates=past)
    good = issued(tmp_path / "good", ours, "localhost")
    pair = Pair(tmp_path / "cert.pem", tmp_path / "key.pem")

    def put(source: Pair) -> None:
        for old, new in zip(pair, source, strict=True):
            old.write_bytes(new.read_bytes())

    put(good)
    with server(tmp_path, APPLICATION + tls_section(pair)) as served:
        put(expired)
        until("it is seen", lambda: any("it has expired" in line for line in served.lines))
        port = urlsplit(served.query).port
        assert ask(f"https://localhost:{port}/livez", ours.cert)[0] == 200
    refused = run("serve", "--config", tmp_path / "clipper.toml", "--data-dir", tmp_path / "other")
    assert refused.returncode != 0 and "it has expired" in refused.stderr, refused


def test_sslyze_finds_nothing(guarded: Guarded, tmp_path: Path) -> None:
    for port in guarded.ports:
        report = tmp_path / f"{port.rsplit(':', 1)[1]}.json"
        command = [sys.executable, "-m", "sslyze", "--mozilla_config=intermediate"]
        # A certificate that signs itself is for trials: what it lacks is not what is tried here.
        command += [f"--certinfo_ca_file={guarded.pair.cert}", f"--json_out={report}"]
        done = subprocess.run([*command, port], capture_output=True, text=True, timeout=300)
        (result,) = json.loads(report.read_text())["server_scan_results"]
        found = {name: one["result"] for name, one in result["scan_result"].items() if one}
        for name in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"]:
            assert not found[f"{name}_cipher_suites"]["accepted_cipher_suites"], (port, name)
        assert not found["heartbleed"]["is_vulnerable_to_heartbleed"]
        assert not found["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"]
        assert not found["tls_compression"]["supports_compression"]
        renegotiation = found["session_renegotiation"]
        assert not renegotiation["is_vulnerable_to_client_renegotiation_dos"]
        assert found["robot"]["robot_result"].startswith("NOT_VULNERABLE"), found["robot"]
        assert found["tls_extended_master_secret"]["supports_ems_extension"]
        assert found["tls_fallback_scsv"]["supports_fallback_scsv"]
        wrong = [line for line in done.stdout.splitlines() if "not compliant" in line.lower()]
        assert done.returncode == 0 and not wrong, (port, done.stdout[-3000:])
    assert trusting(guarded.pair.cert)


def test_keys_of_an_issuer_come_from_whom_the_system_trusts(tmp_path: Path) -> None:
    pair = self_signed(tmp_path / "made")
    site = tmp_path / "site"
    site.mkdir()
    # That of RFC 8037.
    key = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    (site / "jwks.json").write_text(json.dumps({"keys": [key]}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as issuer:
        issuer.socket = context.wrap_socket(issuer.socket, server_side=True)
        threading.Thread(target=issuer.serve_forever, daemon=True).start()
        config = (
            f'[access]\njwt_keys = "https://localhost:{issuer.server_port}/jwks.json"\n'
            'jwt_issuer = "https://issuer.example"\njwt_audience = "clipper"\n'
        )
        trusted = {"SSL_CERT_FILE": str(pair.cert)}
        for name, env, said in [
            ("trusting", trusted, "the keys of the issuer of tokens were read again"),
            ("other", {}, "UnknownIssuer"),
        ]:
            folder = tmp_path / name
            folder.mkdir()
            with server(folder, config, env) as served:
                until(said, lambda said=said, served=served: any(said in s for s in served.lines))
        issuer.shutdown()
