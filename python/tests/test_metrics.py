"""User metrics, their text format, and the endpoint that serves them."""

from __future__ import annotations

import http.client
import logging
import math
import re
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from fakes import FakeServer, wait_until
from ports import free_port

from clipper_serving import StopSignal, metrics
from clipper_serving.metrics import MAX_SERIES, Registry
from clipper_serving.metrics_server import MetricsServer

SAMPLE = re.compile(
    r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_]\w*="(\\.|[^"\\\n])*"(,|(?=\})))+\})? (\S+)'
)


def get(port: int, path: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, response.getheader("Content-Type", ""), text


def values(text: str) -> dict[str, float]:
    """Every sample of a scrape; fails on any line that the text format does not know."""
    found = {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if not line.startswith(("# HELP ", "# TYPE ")):
            assert SAMPLE.fullmatch(line), line
            name, value = line.rsplit(" ", 1)
            found[name] = float(value)
    return found


def test_the_four_kinds_in_the_text_format() -> None:
    registry = Registry()
    registry.counter("words_total", "Words").inc(3)
    registry.counter("words_total").inc()
    gauge = registry.gauge("depth", "Line one\nback\\slash")
    gauge.set(5)
    gauge.inc(2)
    gauge.dec()
    histogram = registry.histogram("length", "Length", buckets=[5, 1, 10])
    for value in (0.5, 5, 7, 100):
        histogram.observe(value)
    registry.summary("time_seconds", "Time").observe(1.5)
    assert registry.expose() == (
        "# HELP words_total Words\n"
        "# TYPE words_total counter\n"
        "words_total 4.0\n"
        "# HELP depth Line one\\nback\\\\slash\n"
        "# TYPE depth gauge\n"
        "depth 6.0\n"
        "# HELP length Length\n"
        "# TYPE length histogram\n"
        'length_bucket{le="1.0"} 1.0\n'
        'length_bucket{le="5.0"} 2.0\n'
        'length_bucket{le="10.0"} 3.0\n'
        'length_bucket{le="+Inf"} 4.0\n'
        "length_sum 112.5\n"
        "length_count 4.0\n"
        "# HELP time_seconds Time\n"
        "# TYPE time_seconds summary\n"
        "time_seconds_sum 1.5\n"
        "time_seconds_count 1.0\n"
    )


def test_labels_are_escaped_and_ordered() -> None:
    registry = Registry()
    registry.counter("c_total").inc(2, kind='say "hi"\n\\', app="a")
    assert values(registry.expose()) == {'c_total{app="a",kind="say \\"hi\\"\\n\\\\"}': 2.0}


def test_special_values() -> None:
    registry = Registry()
    for name, value in (("up", float("inf")), ("down", float("-inf")), ("none", float("nan"))):
        registry.gauge(name).set(value)
    text = registry.expose()
    assert "up +Inf\n" in text
    assert "down -Inf\n" in text
    assert "none NaN\n" in text


def test_names_of_counters_end_in_total() -> None:
    registry = Registry()
    registry.counter("seen").inc()
    assert values(registry.expose()) == {"seen_total": 1.0}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda r: r.counter("no spaces"),
        lambda r: r.counter("c").inc(-1),
        lambda r: r.gauge("g").set(1, **{"not-a-label": "x"}),
        lambda r: r.histogram("h").observe(1, le="5"),
        lambda r: r.histogram("h", buckets=[]),
        lambda r: (r.counter("x_total"), r.gauge("x_total")),
    ],
)
def test_wrong_use_is_refused(wrong: Callable[[Registry], Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        wrong(Registry())


def test_the_number_of_series_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry()
    counter = registry.counter("many_total")
    with caplog.at_level(logging.WARNING):
        for n in range(MAX_SERIES + 10):
            counter.inc(user=str(n))
    assert len(values(registry.expose())) == MAX_SERIES
    assert len(caplog.records) == 1


def test_the_functions_of_clipper_admin() -> None:
    metrics.add_metric("old_count", "Counter", "a counter")
    metrics.add_metric("old_gauge", "Gauge", "a gauge")
    metrics.add_metric("old_histogram", "Histogram", "a histogram", [1, 2])
    metrics.add_metric("old_summary", "Summary", "a summary")
    for name in ("old_count", "old_gauge", "old_histogram", "old_summary"):
        metrics.report_metric(name, 1.5)
    found = values(metrics.REGISTRY.expose())
    assert found["old_count_total"] == found["old_gauge"] == found["old_summary_sum"] == 1.5
    assert found['old_histogram_bucket{le="2.0"}'] == 1
    with pytest.raises(ValueError, match="not been added"):
        metrics.report_metric("unknown", 1)
    with pytest.raises(ValueError, match="metric type"):
        metrics.add_metric("x", "Meter", "")


def test_a_taken_port_is_replaced_by_a_free_one(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with caplog.at_level(logging.WARNING):
            server = MetricsServer(Registry(), "127.0.0.1", port, lambda: True)
        with server:
            assert server.port != port
            assert get(server.port, "/metrics")[0] == 200
    assert f"port {port} is taken, using {server.port}" in caplog.text


def test_unknown_paths_are_404() -> None:
    with MetricsServer(Registry(), "127.0.0.1", 0, lambda: True) as server:
        assert get(server.port, "/nothing")[0] == 404
        assert get(server.port, "/livez")[0] == 200


def test_a_container_exposes_standard_and_user_metrics(
    server: FakeServer, start: Callable[..., StopSignal]
) -> None:
    def predict(xs: Any) -> Any:
        metrics.counter("scraped_words", "Words").inc(len(xs))
        metrics.gauge("scraped_depth").set(3)
        metrics.histogram("scraped_length", buckets=[1]).observe(2)
        metrics.summary("scraped_time").observe(2)
        return [1 / x[0] for x in xs]

    port = free_port()
    before = values(metrics.REGISTRY.expose())
    start(predict, metrics_port=port)
    identity = server.expect_heartbeat()
    assert get(port, "/readyz")[0] == 503
    server.ask_metadata(identity)
    server.expect_registration()
    assert get(port, "/readyz")[0] == 200
    server.predict(identity, 3, [[1], [2], [4]])
    server.predict(identity, 3, [["nan"], [5]])

    def counted() -> bool:
        done = values(get(port, "/metrics")[2])
        return done["clipper_mc_pred_total"] == before.get("clipper_mc_pred_total", 0) + 5

    wait_until(counted, "five predictions")
    status, kind, text = get(port, "/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = values(text)
    assert found["scraped_words_total"] == 5
    assert found["scraped_depth"] == 3
    assert found['scraped_length_bucket{le="+Inf"}'] == 2
    assert found["scraped_time_count"] == 2
    for name in ("end_to_end_latency", "recv_time", "parse_time", "handle_time"):
        count = f"clipper_mc_{name}_ms_count"
        assert found[count] == before.get(count, 0) + 2
    handle = 'clipper_mc_handle_time_ms_bucket{le="10.0"}'
    assert handle in found


def test_errors_are_counted(server: FakeServer, start: Callable[..., StopSignal]) -> None:
    def predict(xs: Any) -> Any:
        return [math.sqrt(x[0]) for x in xs]

    name = "clipper_mc_pred_errors_total"
    before = values(metrics.REGISTRY.expose()).get(name, 0)
    start(predict)
    replica = server.handshake()
    server.predict(replica.identity, 3, [[1], [-1], [1], [-1]])
    wait_until(lambda: values(metrics.REGISTRY.expose())[name] == before + 2, "two errors counted")


def test_the_format_is_what_prometheus_client_reads() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    registry = Registry()
    registry.counter("a_total", 'odd "help" \\').inc(1, x='"\\\n')
    registry.histogram("b", "h").observe(3)
    registry.summary("c", "h").observe(3)
    families = {f.name: f for f in parser.text_string_to_metric_families(registry.expose())}
    assert families["a"].samples[0].labels == {"x": '"\\\n'}
    assert families["b"].type == "histogram"
    assert families["c"].type == "summary"
    assert sys.float_info.max > families["b"].samples[-1].value
