"""All TaskRuns of an Airflow, as they are now: listed, then watched, by a thread of its own."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from queue import SimpleQueue

import msgspec

from polypod_airflow.cluster import Cluster, ClusterError
from polypod_airflow.reading import decode, task_run
from polypod_airflow.taskruns import LABEL, Settings, collection
from polypod_airflow.verdicts import Metadata, TaskRun

log = logging.getLogger(__name__)

_WATCH = 20
"""Seconds after which the API server is asked to end a watch; a bookmark comes before."""
_SILENCE = 25.0
"""Seconds without a byte after which a watch counts as broken: more than it may last."""
_PAGE = "500"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 15.0
"""Seconds before a list, after failures in a row."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A TaskRun was created or has changed."""

    run: TaskRun


@dataclass(frozen=True, slots=True)
class Gone:
    """A TaskRun was deleted; this is how it was at its end."""

    run: TaskRun


@dataclass(frozen=True, slots=True)
class Listed:
    """Everything was read again: what was known and is not among these is gone."""

    names: frozenset[str]


News = Seen | Gone | Listed


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] = []


class _Code(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Line(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Bookmark(msgspec.Struct):
    metadata: Metadata


class Informer(threading.Thread):
    """Reads and watches; what is new is put into `news`."""

    def __init__(self, cluster: Cluster, settings: Settings, silence: float = _SILENCE) -> None:
        """Prepare; `start` begins.

        Args:
            cluster: a session that nobody else uses.
        """
        super().__init__(name="polypod-informer", daemon=True)
        self.news: SimpleQueue[News] = SimpleQueue()
        self.listed = threading.Event()
        self._cluster, self._silence = cluster, silence
        self._path = collection(settings.namespace)
        self._selector = {"labelSelector": f"{LABEL}={settings.airflow}"}
        self._known: dict[str, TaskRun] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def get(self, name: str) -> TaskRun | None:
        """Return a TaskRun as it was seen last."""
        with self._lock:
            return self._known.get(name)

    def close(self) -> None:
        """End soon; the thread is not waited for."""
        self._closing.set()

    def run(self) -> None:
        """List and watch until stopped."""
        failures, version = 0, ""
        while not self._closing.is_set():
            try:
                version = version or self.list()
                version = self._watch(version)
                failures = 0
                continue
            except ClusterError as error:
                if error.status == 0:
                    self._cluster.reconnect()
                # 410 is how a watch ends that is too old
                level = logging.DEBUG if error.status == 410 else logging.WARNING
                log.log(level, "restarting the watch of TaskRuns: %s", error)
            except Exception:
                # one line that cannot be read must not end the watch of all others
                log.exception("restarting the watch of TaskRuns")
            # what was missed is found by a list
            version = ""
            self._closing.wait(min(_FIRST_PAUSE * 2.0**failures, _LONGEST_PAUSE))
            failures = min(failures + 1, 10)

    def list(self) -> str:
        """Read everything and return its version.

        Raises:
            ClusterError: it cannot be read.
        """
        found: dict[str, TaskRun] = {}
        params = {**self._selector, "limit": _PAGE}
        while True:
            page = decode(self._cluster.call("GET", self._path, params=params), _Page)
            found |= {run.name: run for run in map(task_run, page.items)}
            if not page.metadata.continue_:
                break
            params["continue"] = page.metadata.continue_
        with self._lock:
            self._known = found
        for run in found.values():
            self.news.put(Seen(run))
        self.news.put(Listed(frozenset(found)))
        self.listed.set()
        return page.metadata.resource_version

    def _watch(self, version: str) -> str:
        """Follow what happens until the API server ends the watch; return the version to go on from.

        Raises:
            ClusterError: the watch broke, or the version is too old.
        """
        asked = {**self._selector, "resourceVersion": version, "timeoutSeconds": str(_WATCH)}
        with self._cluster.watch(self._path, asked, self._silence) as lines:
            for line in lines:
                if self._closing.is_set():
                    break
                event = decode(line, _Line)
                if event.type == "ERROR":
                    said = msgspec.json.decode(event.object, type=_Code)
                    raise ClusterError(said.code, "Error", said.message)
                if event.type == "BOOKMARK":
                    version = msgspec.json.decode(event.object, type=_Bookmark).metadata.resource_version
                    continue
                run = task_run(event.object)
                version = run.metadata.resource_version
                self._take(run, event.type == "DELETED")
        return version

    def _take(self, run: TaskRun, gone: bool) -> None:
        with self._lock:
            if gone:
                self._known.pop(run.name, None)
            else:
                self._known[run.name] = run
        self.news.put(Gone(run) if gone else Seen(run))
