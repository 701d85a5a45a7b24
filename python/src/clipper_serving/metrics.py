"""Counters, gauges, histograms and summaries of a model, in Prometheus' text format 0.0.4.

    from clipper_serving import metrics
    metrics.counter("words_total", "Words seen").inc(12)
    metrics.histogram("text_length", "Characters", buckets=[10, 100]).observe(57)

Asking twice for one name gives the same metric. Keyword arguments of ``inc``, ``set`` and
``observe`` are labels. All of it may be used from any thread.
"""

from __future__ import annotations

import logging
import re
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Callable, TypeVar

_log = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DEFAULT_BUCKETS = (5, 10, 20, 35, 50, 75, 100, 150, 200, 250, 300, 400, 500)
MAX_SERIES = 1000
"""Label combinations that one metric keeps; further ones are dropped with a warning."""

Labels = tuple[tuple[str, str], ...]

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")


class Metric:
    """What the four kinds share: a name, a help text and one series for each set of labels."""

    kind = ""
    reserved_label = ""

    def __init__(self, name: str, help: str) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no metric name")
        self.name = name
        self.help = help
        self._lock = threading.Lock()
        self._series: dict[Labels, list[float]] = {}
        self._warned = False

    def expose(self) -> Iterable[str]:
        """The lines of this metric, its HELP and TYPE first."""
        yield f"# HELP {self.name} {_escape_help(self.help)}"
        yield f"# TYPE {self.name} {self.kind}"
        with self._lock:
            series = [(labels, list(values)) for labels, values in self._series.items()]
        for labels, values in series:
            yield from self._samples(labels, values)

    def _samples(self, labels: Labels, values: list[float]) -> Iterable[str]:
        yield _sample(self.name, labels, values[0])

    def _update(self, labels: dict[str, Any], new: Sequence[float], add: bool = True) -> None:
        """Add ``new`` to the numbers of one series, or put it in their place."""
        key = self._key(labels) if labels else ()
        with self._lock:
            values = self._values(key, len(new))
            for at, value in enumerate(new[: len(values)]):
                values[at] = values[at] + value if add else value

    def _values(self, key: Labels, size: int) -> list[float]:
        """The numbers of one series, under the lock; empty where there are too many series."""
        values = self._series.get(key)
        if values is None:
            if len(self._series) >= MAX_SERIES:
                self._warn_once()
                return []
            values = self._series[key] = [0.0] * size
        return values

    def _key(self, labels: dict[str, Any]) -> Labels:
        key = tuple(sorted((name, str(value)) for name, value in labels.items()))
        for name, _ in key:
            if not _LABEL.fullmatch(name) or name == self.reserved_label:
                raise ValueError(f"{name!r} is no label name")
        return key

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("metric %s has %d series; more are dropped", self.name, MAX_SERIES)


class Counter(Metric):
    """A number that only grows. Its exposed name ends in ``_total``."""

    kind = "counter"

    def inc(self, amount: float = 1.0, /, **labels: str) -> None:
        """Add ``amount``; raises ``ValueError`` when it is negative."""
        if amount < 0:
            raise ValueError("a counter cannot go down")
        self._update(labels, [float(amount)])


class Gauge(Metric):
    """A number that goes up and down."""

    kind = "gauge"

    def set(self, value: float, /, **labels: str) -> None:
        """Put ``value`` in place of the last one."""
        self._update(labels, [float(value)], add=False)

    def inc(self, amount: float = 1.0, /, **labels: str) -> None:
        """Add ``amount``."""
        self._update(labels, [float(amount)])

    def dec(self, amount: float = 1.0, /, **labels: str) -> None:
        """Take ``amount`` away."""
        self._update(labels, [-float(amount)])


class Summary(Metric):
    """The count and the sum of what was observed, without quantiles."""

    kind = "summary"
    reserved_label = "quantile"

    def observe(self, value: float, /, **labels: str) -> None:
        """Note one observation."""
        self._update(labels, [float(value), 1.0])

    def _samples(self, labels: Labels, values: list[float]) -> Iterable[str]:
        yield _sample(self.name + "_sum", labels, values[0])
        yield _sample(self.name + "_count", labels, values[1])


class Histogram(Metric):
    """Observations counted in buckets, with their count and sum."""

    kind = "histogram"
    reserved_label = "le"

    def __init__(self, name: str, help: str, buckets: Sequence[float] = DEFAULT_BUCKETS) -> None:
        super().__init__(name, help)
        bounds = sorted({float(bound) for bound in buckets} - {float("inf")})
        if not bounds:
            raise ValueError(f"histogram {name} has no buckets")
        self.bounds = tuple(bounds)

    def observe(self, value: float, /, **labels: str) -> None:
        """Note one observation."""
        key = self._key(labels) if labels else ()
        # The last bucket is that of infinity; what no bucket takes is not a number.
        at = bisect_left(self.bounds, value) if value == value else len(self.bounds)
        with self._lock:
            values = self._values(key, len(self.bounds) + 3)
            if values:
                values[at] += 1.0
                values[-2] += value
                values[-1] += 1.0

    def _samples(self, labels: Labels, values: list[float]) -> Iterable[str]:
        *counts, total, count = values
        for bound, below in zip(self.bounds, accumulate(counts)):
            yield _sample(self.name + "_bucket", (*labels, ("le", repr(bound))), below)
        yield _sample(self.name + "_bucket", (*labels, ("le", "+Inf")), count)
        yield _sample(self.name + "_sum", labels, total)
        yield _sample(self.name + "_count", labels, count)


M = TypeVar("M", bound=Metric)


class Registry:
    """The metrics of one process, by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._metrics: dict[str, Metric] = {}

    def counter(self, name: str, help: str = "") -> Counter:
        """The counter of that name; ``_total`` is appended where it is missing."""
        return self._get(Counter(name if name.endswith("_total") else name + "_total", help))

    def gauge(self, name: str, help: str = "") -> Gauge:
        """The gauge of that name."""
        return self._get(Gauge(name, help))

    def summary(self, name: str, help: str = "") -> Summary:
        """The summary of that name."""
        return self._get(Summary(name, help))

    def histogram(
        self, name: str, help: str = "", buckets: Sequence[float] = DEFAULT_BUCKETS
    ) -> Histogram:
        """The histogram of that name; ``buckets`` are upper bounds, ``+Inf`` is implied."""
        return self._get(Histogram(name, help, buckets))

    def expose(self) -> str:
        """All metrics in Prometheus' text format 0.0.4."""
        with self._lock:
            metrics = list(self._metrics.values())
        return "".join(f"{line}\n" for metric in metrics for line in metric.expose())

    def _get(self, fresh: M) -> M:
        """Keep ``fresh`` unless the name is taken; ``ValueError`` if by another kind."""
        with self._lock:
            kept = self._metrics.setdefault(fresh.name, fresh)
        if not isinstance(kept, type(fresh)):
            raise ValueError(f"metric {fresh.name} is a {kept.kind}, not a {fresh.kind}")
        return kept


REGISTRY = Registry()
"""The registry that a container exposes."""

counter = REGISTRY.counter
gauge = REGISTRY.gauge
histogram = REGISTRY.histogram
summary = REGISTRY.summary

_added: dict[str, Metric] = {}


def add_metric(
    name: str,
    metric_type: str,
    description: str,
    buckets: Sequence[float] = DEFAULT_BUCKETS,
) -> None:
    """``clipper_admin.metrics.add_metric``: declare a metric for ``report_metric``.

    ``metric_type`` is ``Counter``, ``Gauge``, ``Histogram`` or ``Summary``, else ``ValueError``.
    """
    if metric_type == "Histogram":
        _added[name] = histogram(name, description, buckets)
        return
    makers: Mapping[str, Callable[[str, str], Metric]] = {
        "Counter": counter,
        "Gauge": gauge,
        "Summary": summary,
    }
    if metric_type not in makers:
        raise ValueError(f"metric type {metric_type!r} is none of {[*makers, 'Histogram']}")
    _added[name] = makers[metric_type](name, description)


def report_metric(name: str, val: float) -> None:
    """``clipper_admin.metrics.report_metric``: count, set or observe ``val``.

    Raises ``ValueError`` for a name that ``add_metric`` has not declared.
    """
    metric = _added.get(name)
    if isinstance(metric, Counter):
        metric.inc(val)
    elif isinstance(metric, Gauge):
        metric.set(val)
    elif isinstance(metric, (Histogram, Summary)):
        metric.observe(val)
    else:
        raise ValueError(f"metric {name} has not been added with add_metric")


def _sample(name: str, labels: Labels, value: float) -> str:
    pairs = ",".join(f'{label}="{_escape_label(text)}"' for label, text in labels)
    return f"{name}{{{pairs}}} {_number(value)}" if pairs else f"{name} {_number(value)}"


def _number(value: float) -> str:
    special = {float("inf"): "+Inf", float("-inf"): "-Inf"}
    if value != value:
        return "NaN"
    return special.get(value) or repr(value)


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escape_label(text: str) -> str:
    return _escape_help(text).replace('"', '\\"')
