"""A collector that reads traces by the official messages, and servers that export to it."""

from __future__ import annotations

import json
import re
import secrets
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from harness import Server, container, get, server, until
from ports import free_port

SLOW = 0.05
"""What the model takes, seconds."""

MODEL = f"""
import time
from clipper_serving import current_trace, current_traces

def predict(inputs):
    time.sleep({SLOW})
    traces = current_traces()
    assert traces == [] or len(traces) == len(inputs)
    first = current_trace()
    seen = [trace and [trace.traceparent, trace.tracestate] for trace in traces]
    return [seen[at] if seen else None for at in range(len(inputs))]
"""
"""It answers with the trace that it was told of."""

CONFIG = """
[traces]
endpoint = "http://127.0.0.1:{port}"
interval_ms = 50
retry_initial_ms = 20
retry_max_ms = 100
{more}

[[application]]
name = "app"
input_type = "doubles"
default_output = "null"
latency_slo_micros = 20000000
model = "m"
cache = false

[[application]]
name = "alone"
input_type = "doubles"
default_output = "null"
latency_slo_micros = 20000000

[[model]]
name = "m"
version = "1"
input_type = "doubles"
batch_size = 1
"""


def attributes(of: Any) -> dict[str, Any]:
    return {it.key: getattr(it.value, it.value.WhichOneof("value")) for it in of.attributes}


@dataclass
class Collector:
    """A receiver of OTLP over HTTP."""

    port: int
    answer: Callable[[], tuple[int, bytes]] = lambda: (200, b"")
    spans: list[Span] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    requests: int = 0

    def take(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        self.requests += 1
        assert path == "/v1/traces", path
        assert headers["content-type"] == "application/x-protobuf", headers
        status, answer = self.answer()
        if status == 200:
            self.headers.append(headers)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append(attributes(resource.resource))
                for scope in resource.scope_spans:
                    assert scope.scope.name == "clipper"
                    self.spans.extend(scope.spans)
        return status, answer

    def of_trace(self, trace_id: str) -> list[Span]:
        return [span for span in list(self.spans) if span.trace_id.hex() == trace_id]

    def named(self, name: str) -> list[Span]:
        return [span for span in list(self.spans) if span.name == name]

    def whole(self, trace_id: str) -> dict[str, list[Span]]:
        """All of a trace by their names, once its request's span is there."""

        def found() -> dict[str, list[Span]] | None:
            spans = self.of_trace(trace_id)
            if not any(span.kind == Span.SPAN_KIND_SERVER for span in spans):
                return None
            names: dict[str, list[Span]] = {}
            for span in spans:
                names.setdefault(span.name, []).append(span)
            return names

        return until(f"trace {trace_id} is exported", found)

    def batch(self, container_span: Span) -> Span:
        """That with the query of this span."""
        (link,) = container_span.links

        def found() -> Span | None:
            spans = self.of_trace(link.trace_id.hex())
            return next((span for span in spans if span.span_id == link.span_id), None)

        return until("its batch is exported", found)


@contextmanager
def collector(port: int | None = None, **more: Any) -> Iterator[Collector]:
    of = Collector(port or free_port(), **more)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = of.take(self.path, headers, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", of.port), Handler)
    listening.daemon_threads = True
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield of
    finally:
        listening.shutdown()
        listening.server_close()


@contextmanager
def traced(tmp_path: Path, port: int, more: str = "") -> Iterator[Server]:
    """A server whose replica is there."""
    with (
        server(tmp_path, CONFIG.format(port=port, more=more)) as served,
        container(served, tmp_path, "m", MODEL, CLIPPER_INPUT_TYPE="doubles"),
    ):
        replicas = 'clipper_replicas{model="m",version="1"} 1'
        until("the replica is there", lambda: replicas in get(served.metrics + "/metrics"))
        yield served


def parent(flags: str = "01") -> tuple[str, str, str]:
    """A new trace: its id, the caller's span, the header."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, f"00-{trace}-{span}-{flags}"


def ask(served: Server, path: str, body: Any, **headers: str) -> Any:
    data = json.dumps(body).encode()
    request = urllib.request.Request(served.query + path, data, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def counted(served: Server, outcome: str) -> float:
    page = get(served.metrics + "/metrics")
    found = re.search(rf'^clipper_trace_spans_total{{outcome="{outcome}"}} (\S+)$', page, re.M)
    return float(found[1]) if found else 0.0


def is_inside(inner: Span, outer: Span) -> bool:
    return (
        outer.start_time_unix_nano
        <= inner.start_time_unix_nano
        <= inner.end_time_unix_nano
        <= outer.end_time_unix_nano
    )


def milliseconds(span: Span) -> float:
    return float(span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
