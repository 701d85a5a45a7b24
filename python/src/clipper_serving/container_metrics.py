"""The series that every Clipper model container exposes."""

from __future__ import annotations

from .metrics import Registry

_LATENCY_BUCKETS_MS = (5, 10, 20, 35, 50, 75, 100, 150, 200, 250, 300, 400, 500)
_FRAMING_BUCKETS_MS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class ContainerMetrics:
    """The standard series, kept in ``registry``; histograms hold one entry for each batch."""

    def __init__(self, registry: Registry) -> None:
        self.predictions = registry.counter("clipper_mc_pred_total", "Inputs answered")
        self.errors = registry.counter(
            "clipper_mc_pred_errors_total", "Inputs answered with an error"
        )
        self.end_to_end = registry.histogram(
            "clipper_mc_end_to_end_latency_ms",
            "Milliseconds from receiving a batch to having sent its answer",
            _LATENCY_BUCKETS_MS,
        )
        self.recv = registry.histogram(
            "clipper_mc_recv_time_ms", "Milliseconds to receive a batch", _FRAMING_BUCKETS_MS
        )
        self.parse = registry.histogram(
            "clipper_mc_parse_time_ms", "Milliseconds to decode a batch", _FRAMING_BUCKETS_MS
        )
        self.handle = registry.histogram(
            "clipper_mc_handle_time_ms", "Milliseconds to predict a batch", _LATENCY_BUCKETS_MS
        )
        self.predictions.inc(0)
        self.errors.inc(0)
