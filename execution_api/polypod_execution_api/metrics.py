"""What the Execution API counts, in Prometheus' form."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from polypod_execution_api.sizes import Sizes

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class Metrics:
    """A registry of its own, and what is counted in it."""

    def __init__(self, sizes: Sizes) -> None:
        """Begin at zero."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        own.register(_Namespaces(sizes))
        self._requests = Counter(
            "polypod_execution_api_requests", "Requests from task pods and the operator.", ["method", "code"],
            registry=own,
        )  # fmt: skip
        self.seconds = Histogram(
            "polypod_execution_api_request_seconds",
            "Time from the last byte of a request to the first byte of its response, queueing included.",
            buckets=_SECONDS,
            registry=own,
        )
        self.waiting = Gauge(
            "polypod_execution_api_requests_waiting", "Requests queued until their namespace's turn.", registry=own
        )

    def answered(self, method: str, status: int) -> None:
        """Count a request."""
        # a caller may send any word as the method
        self._requests.labels(method if method in _METHODS else "other", str(status)).inc()


class _Namespaces(Collector):
    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes

    def collect(self) -> Iterator[GaugeMetricFamily]:
        kept = GaugeMetricFamily(
            "polypod_execution_api_namespace_bytes", "Stored bytes, by namespace (XComs, variables, task states).",
            labels=["namespace"],
        )  # fmt: skip
        for name, size in sorted(self._sizes.known().items()):
            kept.add_metric([name], size)
        yield kept
        yield GaugeMetricFamily(
            "polypod_execution_api_namespace_limit_bytes", "Storage limit of a namespace in bytes; 0: no limit.",
            value=self._sizes.limit,
        )  # fmt: skip
