"""HTTP/2 where TLS is on: clients of others, and peers that misuse it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.errors
import h2.events
import httpx
import pytest
from harness import SUM_CONFIG, SUM_SOURCE, Server, container, server, until
from secured import Pair, ask, authority, issued, self_signed, tls_section, trusting

LIMITS = """
[http]
client_request_timeout_ms = 2000
write_timeout_ms = 2000
keep_alive_ms = 3000
body_max_bytes = 1048576
http2_streams_max = 20
http2_headers_max_bytes = 16384
"""


class Guarded:
    def __init__(self, served: Server, pair: Pair) -> None:
        self.served = served
        self.pair = pair

    def ended(self, reason: str, frontend: str = "query") -> float:
        _, text = ask(f"{self.served.metrics}/metrics", self.pair.cert)
        labels = f'frontend="{frontend}",reason="{reason}"'
        sample = f"clipper_http_connections_ended_total{{{labels}}} "
        found = [line for line in text.splitlines() if line.startswith(sample)]
        return float(found[0].split()[-1]) if found else 0.0

    def is_well(self) -> None:
        """Another client is answered."""
        with httpx.Client(http2=True, verify=trusting(self.pair.cert)) as client:
            answer = client.post(f"{self.served.query}/app/predict", json={"input": [1.0]})
            assert answer.status_code == 200 and answer.json()["output"] == 1.0, answer.text


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("http2")
    pair = self_signed(folder / "made")
    config = LIMITS + tls_section(pair) + SUM_CONFIG.replace("APPLICATION", "app")
    with (
        server(folder, config.replace("500000", "20000000")) as served,
        container(served, folder, "sum", SUM_SOURCE),
    ):
        guarded = Guarded(served, pair)

        def answers() -> bool:
            body = json.dumps({"input": [1.0, 2.0]}).encode()
            _, text = ask(f"{served.query}/app/predict", pair.cert, body)
            return '"output":3.0' in text

        until("the model answers", answers)
        yield guarded


def test_everything_is_answered_as_over_http_1(guarded: Guarded) -> None:
    served = guarded.served
    verify = trusting(guarded.pair.cert)
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", f"{served.query}/app/predict", {"json": {"input": [1.0, 2.5]}}),
        ("POST", f"{served.query}/app/predict", {"content": b"no JSON"}),
        ("POST", f"{served.query}/none/predict", {"json": {"input": [1.0]}}),
        ("POST", f"{served.query}/app/predict", {"content": b"x" * 1_100_000}),
        ("GET", f"{served.query}/app/predict", {}),
        ("HEAD", f"{served.query}/livez", {}),
        ("OPTIONS", f"{served.management}/admin/add_app", {}),
        ("GET", f"{served.query}/v2/models/sum", {}),
        ("POST", f"{served.management}/admin/get_all_applications", {"json": {"verbose": True}}),
        ("POST", f"{served.management}/admin/delete_app", {"content": b'{"name":"app"}'}),
        (
            "POST",
            f"{served.management}/admin/delete_app",
            {"json": {"name": "app"}, "headers": {"Host": "evil.example"}},
        ),
    ]
    with (
        httpx.Client(http2=True, verify=verify) as new,
        httpx.Client(http2=False, verify=verify) as old,
    ):
        for method, url, sent in cases:
            answers = [client.request(method, url, **sent) for client in (new, old)]
            assert [one.http_version for one in answers] == ["HTTP/2", "HTTP/1.1"]
            seen = [
                (one.status_code, one.headers.get("content-type"), one.headers.get("allow"))
                for one in answers
            ]
            assert seen[0] == seen[1], (method, url, seen)
            # Numbers of queries go on from one to the next, and from 9 to 10.
            texts = [re.sub(r'"query_id":\d+', '"query_id":0', one.text) for one in answers]
            assert len(texts[0]) == len(texts[1]), (method, url, texts)
            assert "date" in answers[0].headers
    guarded.is_well()


def test_many_requests_share_a_connection(guarded: Guarded) -> None:
    async def all_of_them() -> None:
        limits = httpx.Limits(max_connections=1)
        verify = trusting(guarded.pair.cert)
        async with httpx.AsyncClient(http2=True, verify=verify, limits=limits, timeout=60) as one:
            url = f"{guarded.served.query}/app/predict"
            asked = [one.post(url, json={"input": [float(n), 0.5]}) for n in range(300)]
            answers = await asyncio.gather(*asked)
            assert [a.json()["output"] for a in answers] == [n + 0.5 for n in range(300)]

    asyncio.run(all_of_them())


def test_long_bodies_go_both_ways(guarded: Guarded) -> None:
    inputs = [[float(n)] * 10 for n in range(5000)]
    with httpx.Client(http2=True, verify=trusting(guarded.pair.cert), timeout=60) as client:
        url = f"{guarded.served.query}/app/predict"
        answer = client.post(url, json={"input_batch": inputs})
        outputs = [one["output"] for one in answer.json()["batch_predictions"]]
        assert outputs == [10.0 * n for n in range(5000)]
        # In pieces, whose number is not said first.
        text = json.dumps({"input": [1.0] * 20000}).encode()
        pieces = (text[at : at + 1000] for at in range(0, len(text), 1000))
        answer = client.post(url, content=pieces, headers={"content-type": "application/json"})
        assert answer.json()["output"] == 20000.0, answer.text


class Peer:
    """One connection whose frames a test chooses."""

    def __init__(self, guarded: Guarded, url: str | None = None) -> None:
        at = urlsplit(url or guarded.served.query)
        context = trusting(guarded.pair.cert)
        context.set_alpn_protocols(["h2"])
        assert at.hostname and at.port
        plain = socket.create_connection((at.hostname, at.port), 60)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        config = h2.config.H2Configuration(
            client_side=True, header_encoding="utf-8", validate_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def get(
        self,
        path: str = "/livez",
        *more: tuple[str, str],
        method: str = "GET",
        end: bool = True,
    ) -> int:
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":path", path), (":scheme", "https")]
        head += [(":authority", "localhost"), *more]
        self.h2.send_headers(stream, head, end_stream=end)
        return stream

    def events(self) -> Iterator[h2.events.Event]:
        """What comes until the connection ends."""
        came = b""
        while True:
            try:
                data = self.socket.recv(65536)
            except (ConnectionError, ssl.SSLError, ssl.SSLEOFError):
                return
            if not data:
                return
            came += data
            # One frame at a time: h2 takes none after GOAWAY, and who drains sends a PING.
            while len(came) >= 9 and len(came) >= 9 + int.from_bytes(came[:3], "big"):
                length = 9 + int.from_bytes(came[:3], "big")
                frame, came = came[:length], came[length:]
                yield from self.h2.receive_data(frame)
            # Acknowledgements.
            try:
                self.flush()
            except (ConnectionError, ssl.SSLError):
                return


def first(events: Iterator[h2.events.Event], kind: type) -> Any:
    return next((event for event in events if isinstance(event, kind)), None)


def test_who_gives_up_all_its_requests_is_sent_away(guarded: Guarded) -> None:
    peer = Peer(guarded)
    before = guarded.ended("not_http")
    try:
        for _ in range(20_000):
            stream = peer.get("/app/predict")
            peer.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            if stream % 50 == 1:
                peer.flush()
        peer.flush()
    except (ConnectionError, ssl.SSLError, h2.exceptions.ProtocolError):
        pass
    ended = first(peer.events(), h2.events.ConnectionTerminated)
    assert ended is None or ended.error_code == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, ended
    until("it is counted", lambda: guarded.ended("not_http") > before)
    guarded.is_well()


def test_who_gives_up_all_his_calls_of_grpc_is_sent_away(guarded: Guarded) -> None:
    peer = Peer(guarded, f"https://{guarded.served.grpc}")
    before = guarded.ended("not_http", "grpc")
    method = "/inference.GRPCInferenceService/ModelInfer"
    try:
        for _ in range(20_000):
            call = [("content-type", "application/grpc"), ("te", "trailers")]
            stream = peer.get(method, *call, method="POST", end=False)
            # One that is under way when it is given up.
            peer.flush()
            peer.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            peer.flush()
    except (ConnectionError, ssl.SSLError, h2.exceptions.ProtocolError):
        pass
    ended = first(peer.events(), h2.events.ConnectionTerminated)
    assert ended is None or ended.error_code == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, ended
    until("it is counted", lambda: guarded.ended("not_http", "grpc") > before)
    guarded.is_well()


def test_heads_that_never_end_or_are_too_long_hold_nobody_up(guarded: Guarded) -> None:
    slow = Peer(guarded)
    before = guarded.ended("idle") + guarded.ended("closed") + guarded.ended("not_http")
    # HEADERS without END_HEADERS, and nothing after it.
    slow.socket.sendall(b"\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82")
    long = Peer(guarded)
    long.get("/livez", *((f"x-{n}", "y" * 1000) for n in range(40)))
    long.flush()
    answer = first(long.events(), h2.events.ResponseReceived)
    assert answer is None or dict(answer.headers)[":status"] == "431", answer
    guarded.is_well()
    flood = Peer(guarded)
    try:
        flood.socket.sendall(b"\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82")
        for _ in range(5_000):
            # CONTINUATION, each with one more header.
            piece = b"\x40\x01x\x01y" * 200
            head = len(piece).to_bytes(3, "big") + b"\x09\x00\x00\x00\x00\x01"
            flood.socket.sendall(head + piece)
    except (ConnectionError, ssl.SSLError):
        pass
    list(flood.events())
    list(slow.events())

    def all_ended() -> bool:
        return guarded.ended("idle") + guarded.ended("closed") + guarded.ended("not_http") > before

    until("they are counted", all_ended)
    guarded.is_well()


def test_who_does_not_read_is_given_up(guarded: Guarded) -> None:
    peer = Peer(guarded)
    # No room for any body, and answers that have one.
    setting = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0}
    peer.h2.update_settings(setting)
    peer.flush()
    stream = peer.get("/v2")
    peer.flush()
    kinds = []
    for event in peer.events():
        kinds.append(type(event))
        if isinstance(event, h2.events.StreamReset):
            assert event.stream_id == stream
            break
    assert h2.events.StreamReset in kinds, kinds
    assert h2.events.DataReceived not in kinds, kinds
    guarded.is_well()


def test_more_requests_than_allowed_are_kept_back(guarded: Guarded) -> None:
    peer = Peer(guarded)
    events = peer.events()
    first(events, h2.events.RemoteSettingsChanged)
    assert peer.h2.remote_settings.max_concurrent_streams == 20
    # h2 would not send what the server does not want.
    peer.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 1000
    peer.h2.remote_settings.acknowledge()
    streams = [peer.get("/app/predict", end=False) for _ in range(40)]
    peer.flush()
    refused = first(events, h2.events.StreamReset)
    assert refused.error_code == h2.errors.ErrorCodes.REFUSED_STREAM, refused
    assert refused.stream_id in streams[20:]
    guarded.is_well()


def test_a_body_that_does_not_come_is_not_waited_for(guarded: Guarded) -> None:
    peer = Peer(guarded)
    stream = peer.h2.get_next_available_stream_id()
    head = [(":method", "POST"), (":path", "/app/predict"), (":scheme", "https")]
    head += [(":authority", "localhost"), ("content-type", "application/json")]
    peer.h2.send_headers(stream, head)
    peer.h2.send_data(stream, b'{"input":')
    peer.flush()
    began = time.monotonic()
    answer = first(peer.events(), h2.events.ResponseReceived)
    assert dict(answer.headers)[":status"] == "408", answer
    assert time.monotonic() - began >= 1.5
    guarded.is_well()


def test_a_request_has_one_name_of_its_host(guarded: Guarded) -> None:
    peer = Peer(guarded)
    peer.get("/livez", ("host", "evil.example"))
    peer.flush()
    events = peer.events()
    answer = first(events, h2.events.ResponseReceived)
    assert dict(answer.headers)[":status"] == "400", answer
    body = first(events, h2.events.DataReceived)
    assert b"two names of its host" in body.data


def test_an_unused_connection_ends_and_one_in_use_does_not(guarded: Guarded) -> None:
    peer = Peer(guarded)
    ended = first(peer.events(), h2.events.ConnectionTerminated)
    assert ended.error_code == h2.errors.ErrorCodes.NO_ERROR, ended


def test_a_server_that_stops_answers_what_it_has(tmp_path: Path) -> None:
    pair = self_signed(tmp_path / "made")
    config = tls_section(pair) + SUM_CONFIG.replace("APPLICATION", "app")
    with server(tmp_path, config) as served:
        peer = Peer(Guarded(served, pair))
        peer.get()
        peer.flush()
        events = peer.events()
        answer = first(events, h2.events.ResponseReceived)
        assert dict(answer.headers)[":status"] == "200", answer
        served.process.terminate()
        ended = first(events, h2.events.ConnectionTerminated)
        assert ended.error_code == h2.errors.ErrorCodes.NO_ERROR, ended
        assert served.process.wait(60) == 0


def test_http_2_can_be_switched_off(tmp_path: Path) -> None:
    pair = self_signed(tmp_path / "made")
    with server(tmp_path, tls_section(pair, "http2 = false")) as served:
        with httpx.Client(http2=True, verify=trusting(pair.cert)) as client:
            assert client.get(f"{served.query}/livez").http_version == "HTTP/1.1"


def test_a_certificate_of_a_client_is_a_key_over_both_versions(tmp_path: Path) -> None:
    ours = authority(tmp_path / "ours")
    eye = issued(tmp_path / "eye", ours, "eye.example")
    other = issued(tmp_path / "other", ours, "other.example")
    named = issued(tmp_path / "named", ours, "named")
    pair = self_signed(tmp_path / "made")
    keys = tmp_path / "keys"
    names = ["eye observe certificate:dns:eye.example", "named operate certificate:cn:named"]
    keys.write_text("\n".join(names))
    more = f'client_ca = "{ours.cert}"'
    config = tls_section(pair, more) + f'[access]\nkeys_file = "{keys}"\n'
    with server(tmp_path, config) as served:

        def asked(shown: Pair, http2: bool, path: str, **headers: str) -> int:
            context = trusting(pair.cert)
            context.load_cert_chain(shown.cert, shown.key)
            with httpx.Client(http2=http2, verify=context) as client:
                url = f"{served.management}/admin/{path}"
                answer = client.post(url, json={"verbose": False}, headers=headers)
                assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
                return answer.status_code

        for http2 in (True, False):
            assert asked(eye, http2, "get_all_applications") == 200
            assert asked(eye, http2, "delete_app") == 403
            # Its body names no application.
            assert asked(named, http2, "delete_app") == 400
            assert asked(other, http2, "get_all_applications") == 401
            # A browser shows it for whatever page asks.
            page = {"Origin": "https://evil.example"}
            assert asked(eye, http2, "get_all_applications", **page) == 403
            # A header says who asks, whatever certificate the connection has.
            wrong = {"Authorization": "Bearer clk_wrong"}
            assert asked(eye, http2, "get_all_applications", **wrong) == 401
