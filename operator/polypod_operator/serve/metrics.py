"""What the operator counts, in Prometheus' form, at `GET /metrics`."""

from __future__ import annotations

import re
from collections import Counter as Counting
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from aiohttp import web
from polypod_core.reasons import Reason
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from polypod_operator.kube.own_state import State

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SLOW = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
_SIZES = tuple(float(1 << power) for power in range(23, 36))
_RESOURCE = re.compile(r"^/apis?/(?:v1|[^/]+/[^/]+)(?:/namespaces/[^/]+)?/([a-z]+)(?:/[^/]+(/status)?)?")
_VERBS = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete", "GET": "get"}


OTHER = "other"
_STATES = frozenset(
    {"success", "failed", "skipped", "removed", "up_for_retry", "up_for_reschedule", "upstream_failed", "deferred"}
)
_REASONS = frozenset(Reason)


class Metrics:
    """The operator's own registry: nothing global, so that two operators in one process do not meet."""

    def __init__(self) -> None:
        # a series for the time at which each other one began doubles the answer, and nobody asks for it
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        self.registry.register(_Places(self))
        self.attempts = Counter(
            "polypod_attempts", "Finished attempts.", ["state", "reason", "coordinator"], registry=own
        )
        self.reconcile = Histogram(
            "polypod_reconcile_seconds",
            "Duration of one reconcile, API calls included.",
            buckets=_FAST,
            registry=own,
        )
        self.reconcile_errors = Counter("polypod_reconcile_errors", "Failed reconciles (retried).", registry=own)
        self.unreadable = Counter(
            "polypod_objects_unreadable",
            "TaskRuns and pods that the operator could not parse and ignores.",
            registry=own,
        )
        self.api_requests = Counter(
            "polypod_api_requests", "Requests to the Kubernetes API.", ["verb", "resource", "code"], registry=own
        )
        self.watch_restarts = Counter(
            "polypod_watch_restarts",
            "Watch restarts, by cause.",
            ["resource", "why"],
            registry=own,
        )
        self.work_depth = Gauge("polypod_workqueue_depth", "Work queue depth.", registry=own)
        self.work_limit = Gauge(
            "polypod_workqueue_limit",
            "TaskRuns that may be worked on at once (8 to 64); low while the API server answers late.",
            registry=own,
        )
        self.queue_wait = Histogram(
            "polypod_queue_wait_seconds", "Time a TaskRun waited in line for its queue.", ["queue"],
            buckets=_SLOW, registry=own,
        )  # fmt: skip
        self.routing_reloads = Counter(
            "polypod_routing_reloads", "Reloads of the routing ConfigMap, by result.", ["result"], registry=own
        )
        self.routing_valid = Gauge("polypod_routing_valid", "1 if the routing ConfigMap is valid.", registry=own)
        self.routing_tried = Gauge(
            "polypod_routing_tried",
            "0 if the API server could not be asked whether it accepts the pods of the routing (retried).",
            registry=own,
        )
        self.pod_wait = Histogram(
            "polypod_taskrun_to_pod_seconds", "Time from creation of a TaskRun to its first pod, queueing included.",
            ["queue"], buckets=_SLOW, registry=own,
        )  # fmt: skip
        self.start_wait = Histogram(
            "polypod_attempt_to_start_seconds", "Time from creation of an attempt to the start of its task.",
            ["coordinator"], buckets=_SLOW, registry=own,
        )  # fmt: skip
        self.task_time = Histogram(
            "polypod_attempt_run_seconds", "Task duration.", ["coordinator"],
            buckets=_SLOW, registry=own,
        )  # fmt: skip
        self.connect_wait = Histogram(
            "polypod_attempt_to_connected_seconds", "Time from creation of an attempt to connection of its runtime.",
            ["coordinator"], buckets=_SLOW, registry=own,
        )  # fmt: skip
        self.cpu = Histogram(
            "polypod_attempt_cpu_seconds", "CPU time of a runtime, reported by its bridge.", ["coordinator"],
            buckets=_SLOW, registry=own,
        )  # fmt: skip
        self.memory = Histogram(
            "polypod_attempt_peak_memory_bytes", "Peak resident memory of a runtime, reported by its bridge.",
            ["coordinator"], buckets=_SIZES, registry=own,
        )  # fmt: skip
        self.whole_time = Histogram(
            "polypod_taskrun_seconds", "Time from creation of a TaskRun to its end, retries included.",
            ["queue", "phase"], buckets=_SLOW, registry=own,
        )  # fmt: skip
        self.queues: Callable[[], Collection[str]] = lambda: ()
        """Returns the queues that the routing names: those of others would be series without end."""
        self.depths: Callable[[], Mapping[str, tuple[int, int]]] = dict
        """Returns of each queue how many attempts hold a place in it, and how many TaskRuns wait for one."""
        self.active: Callable[[], Iterable[tuple[str, str, str]]] = lambda: ()
        """Yields phase, queue and coordinator of each TaskRun that has not finished."""
        self.registry.register(_Active(self))
        self.leading = Gauge(
            "polypod_leading", "1 if this operator holds the lease and processes TaskRuns.", registry=own
        )
        self._state = Gauge("polypod_operator_state", "1 for the operator's current state.", ["state"], registry=own)
        self.is_now(State.STARTING)
        self.clock_skew = Gauge(
            "polypod_clock_skew_seconds",
            "Seconds by which the clock of the operator's node is ahead of the API server's.",
            registry=own,
        )
        self.outcomes = Counter(
            "polypod_outcomes_received", "Outcomes received from bridges, by result.", ["result"], registry=own
        )

    def queue(self, name: str) -> str:
        """Return a queue's label: its name if the routing has it, else `other`."""
        return name if name in self.queues() else OTHER

    def ended(self, state: str, reason: str, coordinator: str) -> None:
        """Count an attempt; a word that nobody knows, as a tampered outcome may hold, is `other`."""
        self.attempts.labels(
            state if state in _STATES else OTHER, reason if reason in _REASONS else OTHER, coordinator
        ).inc()

    def is_now(self, state: State) -> None:
        """Show the operator's own state."""
        self.leading.set(state is State.LEADING)
        for other in State:
            self._state.labels(other).set(state is other)

    def called(self, method: str, path: str, code: int) -> None:
        """Count a call to the Kubernetes API; the code is 0 if there was no answer."""
        found = _RESOURCE.match(path)
        resource = f"{found[1]}{found[2] or ''}" if found else "other"
        self.api_requests.labels(_VERBS.get(method, method.lower()), resource, str(code)).inc()

    def watch_restarted(self, resource: str, why: str) -> None:
        self.watch_restarts.labels(resource, why).inc()

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/metrics", self._get)
        return application

    async def _get(self, request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Active(Collector):
    """The TaskRuns that have not finished, as they are when they are asked for."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[GaugeMetricFamily]:
        found = GaugeMetricFamily(
            "polypod_taskruns_active", "TaskRuns that have not finished.", labels=["phase", "queue", "coordinator"]
        )
        queue = self._metrics.queue
        active = ((phase, queue(name), coordinator) for phase, name, coordinator in self._metrics.active())
        for labels, number in Counting(active).items():
            found.add_metric(labels, number)
        yield found


class _Places(Collector):
    """The places of the queues, as they are when they are asked for."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[GaugeMetricFamily]:
        running = GaugeMetricFamily("polypod_queue_running", "Attempts that hold a place in a queue.", labels=["queue"])
        waiting = GaugeMetricFamily("polypod_queue_waiting", "TaskRuns that wait for a place.", labels=["queue"])
        held: Counting[str] = Counting()
        waits: Counting[str] = Counting()
        for name, (holding, waiting_there) in self._metrics.depths().items():
            held[self._metrics.queue(name)] += holding
            waits[self._metrics.queue(name)] += waiting_there
        for name in held:
            running.add_metric([name], held[name])
            waiting.add_metric([name], waits[name])
        yield running
        yield waiting
