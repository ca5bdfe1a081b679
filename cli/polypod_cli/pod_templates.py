"""What the operator would say of the pod templates of TaskRuns, before they are applied."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
from polypod_core.errors import UserError
from polypod_core.routing import Routing
from polypod_crds.taskrun import TaskRunStatus
from polypod_operator.model.objects import TaskRunObject
from polypod_operator.pods.pod import Route, Settings, build
from polypod_operator.pods.template import check_template

from polypod_cli.manifests import Item, Manifests


def problems(manifests: Manifests, routing: Routing | None) -> Iterator[str]:
    """Yield a line for each template that the operator would refuse, with its file and line.

    Args:
        routing: what templates may do is in it; without it, only their shape is checked.
    """
    for item in manifests.task_runs:
        template = item.task_run.spec.pod_template
        if not template:
            continue
        try:
            check_template(template)
            if routing is not None and _is_routed(item, routing):
                _build(item, routing)
        except UserError as error:
            where = item.document.where(["spec", "podTemplate"])
            yield f"{where}: {item.task_run.metadata.name}: {error.message}"


def _is_routed(item: Item, routing: Routing) -> bool:
    """Tell whether the queue maps to a coordinator; where it does not, the plan reports it."""
    try:
        routing.for_queue(item.task_run.spec.queue, item.task_run.metadata.name, item.task_run.spec.coordinator)
    except UserError:
        return False
    return True


def _build(item: Item, routing: Routing) -> None:
    task_run, spec = item.task_run, item.task_run.spec
    name, entry = routing.for_queue(spec.queue, task_run.metadata.name, spec.coordinator)
    templates = routing.pod_templates(entry, spec.queue)
    # a routing for this machine names no images
    entry = msgspec.structs.replace(entry, image=entry.image or "image:1")
    run = TaskRunObject(
        task_run.metadata.namespace or "default", task_run.metadata.name, "uid", 1, "", datetime.now(UTC), False, spec,
        TaskRunStatus(),
    )  # fmt: skip
    build(run, 1, 1, Route(name, entry, templates, routing.bundle_folders(entry)), Settings("bridge", "http://api/"))
