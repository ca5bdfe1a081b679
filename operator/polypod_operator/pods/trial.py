"""A routing's pods as the API server sees them: tried in a dry run, before the routing is taken into use."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from polypod_core.errors import UserError
from polypod_core.routing import Routing
from polypod_crds.taskrun import TaskRunSpec, TaskRunStatus

from polypod_operator.model.objects import TaskRunObject
from polypod_operator.pods.pod import Route, Settings, build

EPOCH = datetime.fromtimestamp(0, UTC)


def trials(routing: Routing, namespace: str, settings: Settings) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Yield each pod that the routing makes, once: for which queue, and its manifest. Pure.

    In place of a pod that cannot be built, what is wrong with its template is yielded.
    """
    seen: set[bytes] = set()
    for queue in [*routing.queue_to_coordinator, *([""] if routing.default_coordinator is not None else [])]:
        name, entry = routing.for_queue(queue, "the routing")
        templates = routing.pod_templates(entry, queue)
        # a TaskRun's own template may name the image
        entry = msgspec.structs.replace(entry, image=entry.image or "image:1")
        mark = msgspec.json.encode((entry, templates), order="deterministic")
        if mark in seen:
            continue
        seen.add(mark)
        spec = TaskRunSpec(queue=queue or "any", dag_id="routing", task_id="trial", run_id="trial")
        run = TaskRunObject(namespace, "routing-trial", "trial", 1, "", EPOCH, False, spec, TaskRunStatus())
        where = f"queue {queue!r}" if queue else "default_coordinator"
        try:
            manifest = build(run, 1, 1, Route(name, entry, templates, routing.bundle_folders(entry)), settings)
        except UserError as error:
            yield where, error.message
            continue
        # there is no TaskRun that it could belong to
        del manifest["metadata"]["ownerReferences"]
        yield where, manifest
