"""The routing as the operator uses it: checked as a whole, and the last good one kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from polypod_coordinators.coordinator import create
from polypod_core.errors import UserError, nearest
from polypod_core.reasons import Reason
from polypod_core.routing import CoordinatorSpec, Routing, parse_routing

from polypod_operator.pods import security
from polypod_operator.pods.template import check_template


@dataclass(slots=True)
class RoutingState:
    """The routing in use.

    Attributes:
        current: the last good one, None before there was any.
        problem: what is wrong with the ConfigMap as it is now, so that it is not in use; empty if nothing is.
        flaw: what is wrong with coordinators that no queue leads to, which does not keep the rest from being used.
        untried: why the API server could not be asked what it thinks of the pods of `current`; empty if it was.
        tried: the last one whose pods it takes.
    """

    current: Routing | None = None
    problem: str = ""
    flaw: str = ""
    untried: str = ""
    tried: Routing | None = None

    def load(self, config_map: Mapping[str, Any] | None, where: str, refused: str = "", untried: str = "") -> bool:
        """Take a ConfigMap over if it is valid; return whether anything has changed.

        Args:
            config_map: the object, None if it was deleted.
            where: its name, for the message.
            refused: what the API server says of the pods that it makes, empty if it takes them.
            untried: why it could not say anything; the routing is used until it does.
        """
        before = (self.current, self.problem, self.flaw, bool(self.untried))
        if config_map is None:
            self.problem = f"ConfigMap {where} does not exist"
        else:
            try:
                found = parse(config_map, where)
                if refused:
                    if found[0] == self.current:
                        # in use, untried
                        self.current = self.tried
                    raise UserError(Reason.INVALID_ROUTING, f"ConfigMap {where}: {refused}")
                (self.current, self.flaw), self.problem = found, ""
                if not untried:
                    self.tried = self.current
            except UserError as error:
                self.problem, self.flaw = error.message, ""
        if not self.problem:
            self.untried = untried
        elif self.current is self.tried:
            self.untried = ""
        return (self.current, self.problem, self.flaw, bool(self.untried)) != before


def parse(config_map: Mapping[str, Any], where: str) -> tuple[Routing, str]:
    """Return the routing of a ConfigMap, and what is wrong with coordinators that no queue leads to.

    Raises:
        UserError: the message names the key, what was seen and what would be right.
    """
    document = {"kind": "ConfigMap", "data": config_map.get("data") or {}}
    routing = parse_routing(document, f"ConfigMap {where}")
    if not routing.queue_to_coordinator and routing.default_coordinator is None:
        raise UserError(
            Reason.INVALID_ROUTING,
            f"ConfigMap {where}: no queue is mapped; set queue_to_coordinator or default_coordinator",
        )
    used = {*routing.queue_to_coordinator.values(), routing.default_coordinator}
    problems = [
        f"dag_bundles.{name}.path: {bundle.path!r} must be an absolute path"
        for name, bundle in routing.dag_bundles.items()
        if bundle.is_folder and not bundle.path.startswith("/")
    ]
    problems += _queue_problems(routing)
    flaws: list[str] = []
    for name, entry in routing.coordinators.items():
        (problems if name in used else flaws).extend(_entry_problems(routing, name, entry))
    if problems:
        raise UserError(Reason.INVALID_ROUTING, f"ConfigMap {where}: " + "; ".join(problems))
    return routing, f"ConfigMap {where}: " + "; ".join(flaws) if flaws else ""


def _entry_problems(routing: Routing, name: str, entry: CoordinatorSpec) -> Iterator[str]:
    where = f"coordinators.{name}"
    yield from _coordinator_problems(routing, name, routing.with_artifacts(entry), f"{where}.kwargs")
    for allowance in entry.allow:
        if allowance not in security.ALLOWANCES:
            yield f"{where}.allow: {allowance!r} is unknown{nearest(allowance, security.ALLOWANCES)}"
    yield from _template_problems(f"{where}.pod_template", entry.pod_template)


def _queue_problems(routing: Routing) -> Iterator[str]:
    for queue, override in routing.queue_overrides.items():
        if override.kwargs and (queue in routing.queue_to_coordinator or routing.default_coordinator is not None):
            name, entry = routing.for_queue(queue, "the routing")
            yield from _coordinator_problems(routing, name, entry, f"queue_overrides.{queue}.kwargs")
        yield from _template_problems(f"queue_overrides.{queue}.pod_template", override.pod_template)
        if queue not in routing.queue_to_coordinator and routing.default_coordinator is None:
            yield f"queue_overrides.{queue}: the queue is not in queue_to_coordinator" + nearest(
                queue, routing.queue_to_coordinator
            )
    for key in ("queue_to_image", "queue_limits"):
        for queue in getattr(routing, key):
            if queue not in routing.queue_to_coordinator and routing.default_coordinator is None:
                yield f"{key}.{queue}: the queue is not in queue_to_coordinator" + nearest(
                    queue, routing.queue_to_coordinator
                )


def _coordinator_problems(routing: Routing, name: str, entry: CoordinatorSpec, where: str) -> Iterator[str]:
    try:
        made = create(name, entry.classpath, entry.kwargs)
        keyword, paths = made.roots()
    except UserError as error:
        yield error.message
        return
    relative = [path for path in paths if not path.startswith("/")]
    if relative:
        yield f"{where}.{keyword}: {relative[0]!r} must be an absolute path"
    if not (paths or made.task_handler_bundle_name or routing.dag_bundles):
        yield (
            f"{where}: no artifact root; set {keyword} to a non-empty list of "
            "folders, or task_handler_bundle_name to a name in dag_bundles"
        )


def _template_problems(where: str, template: Mapping[str, Any]) -> Iterator[str]:
    try:
        check_template(template)
    except UserError as error:
        yield f"{where}: {error.message}"
