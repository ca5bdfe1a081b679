"""TaskRuns as they change: one list and a watch, instead of asking again and again."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from polypod_core.states import FINISHED_PHASES

from polypod_cli.pod_log import PAUSE, patiently

if TYPE_CHECKING:
    from polypod_cli.cluster import Cluster

Raw = dict[str, Any]
Key = tuple[str, str]
_LONGEST = 300.0
"""Seconds of one watch: a connection that has died silently shows no change for no longer."""


def follow(
    cluster: Cluster, names: Sequence[str] = (), *, everywhere: bool = False, until: float | None = None
) -> Iterator[dict[Key, Raw]]:
    """Yield the TaskRuns, by namespace and name: as they are now, and whenever one has changed.

    Args:
        names: the only ones that are wanted, of the cluster's namespace; all, if there are none.
        until: the time, on the monotonic clock, at which they are yielded a last time.

    Raises:
        UserError: one of `names` is not there, or the cluster refuses, or gives no answer for two minutes.
    """
    from polypod_cli.cluster import Unreachable

    cluster = cluster.by(until)
    only = names[0] if len(set(names)) == 1 else ""
    wanted = {(cluster.namespace, name) for name in names}
    # a cluster that never answers is a mistake to be seen at once; one that has answered may restart
    items, version = cluster.snapshot(everywhere=everywhere, name=only)
    runs: dict[Key, Raw] = {}
    while True:
        known, runs = runs, {_key(item): item for item in items if not wanted or _key(item) in wanted}
        for key in wanted - set(runs):
            runs[key] = _missing(cluster, key, known.get(key), until)
        yield runs
        left = _LONGEST if until is None else min(_LONGEST, until - time.monotonic())
        if left <= 0:
            return
        began = time.monotonic()
        try:
            for event in cluster.watch(version, left, everywhere=everywhere, name=only):
                if event["type"] == "ERROR":
                    # too old a version: the next list is not
                    break
                key = _key(event["object"])
                if wanted and key not in wanted:
                    continue
                if event["type"] != "DELETED":
                    runs[key] = event["object"]
                elif wanted:
                    runs[key] = _missing(cluster, key, event["object"], until)
                else:
                    runs.pop(key, None)
                yield runs
        except Unreachable:
            pass
        # a watch that ends at once must not become a list a moment
        time.sleep(max(0.0, PAUSE - (time.monotonic() - began)))
        try:
            items, version = patiently(lambda: cluster.snapshot(everywhere=everywhere, name=only), until=until)
        except Unreachable:
            if until is None or time.monotonic() + PAUSE < until:
                raise
            yield runs
            return


def follow_all(cluster: Cluster, keys: Sequence[Key], *, until: float | None = None) -> Iterator[dict[Key, Raw]]:
    """Yield TaskRuns of one namespace or several, each time one of them has changed. All are followed at once.

    Raises:
        UserError: as `follow`.
    """
    news: queue.SimpleQueue[dict[Key, Raw] | BaseException | None] = queue.SimpleQueue()
    names: dict[str, list[str]] = {}
    for namespace, name in keys:
        names.setdefault(namespace, []).append(name)
    if len(names) == 1:
        [(namespace, wanted)] = names.items()
        yield from follow(cluster.of(namespace), wanted, until=until)
        return

    def listen(namespace: str) -> None:
        try:
            for found in follow(cluster.of(namespace), names[namespace], until=until):
                news.put(dict(found))
            news.put(None)
        except BaseException as error:
            # the caller raises it
            news.put(error)

    for namespace in names:
        threading.Thread(target=listen, args=[namespace], name=f"watch {namespace}", daemon=True).start()
    left = len(names)
    while left:
        found = news.get()
        if isinstance(found, BaseException):
            raise found
        if found is None:
            left -= 1
        else:
            yield found


def _missing(cluster: Cluster, key: Key, last: Raw | None, until: float | None) -> Raw:
    """Return a TaskRun that is not in the list: as it was, if it had finished and was deleted since.

    Raises:
        UserError: it is not there; the message says which names are similar.
    """
    if last is not None and has_finished(last):
        return last
    return patiently(lambda: cluster.get(key[1]), until=until)


class Followed:
    """The TaskRuns as they were seen last, while a thread follows them."""

    def __init__(self, cluster: Cluster, *, everywhere: bool) -> None:
        """Begin.

        Raises:
            UserError: the cluster refuses, or does not answer.
        """
        self._source = follow(cluster, everywhere=everywhere)
        self._problem: BaseException | None = None
        self._runs = next(self._source)
        threading.Thread(target=self._follow, name="watch", daemon=True).start()

    def now(self) -> list[Raw]:
        """Return them.

        Raises:
            UserError: they cannot be followed any more.
        """
        if self._problem is not None:
            raise self._problem
        # the thread changes them meanwhile; this copy is made in one step
        return list(self._runs.values())

    def _follow(self) -> None:
        try:
            for runs in self._source:
                self._runs = runs
        except BaseException as error:
            # whatever it is: a table that is not kept up to date must not look as if it were
            self._problem = error


def _key(item: Raw) -> Key:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def phase(run: Raw) -> str:
    """Return the phase of a TaskRun; one without a status is pending."""
    return str((run.get("status") or {}).get("phase") or "Pending")


def has_finished(run: Raw) -> bool:
    return phase(run) in FINISHED_PHASES
