"""Before anything runs: look up every TaskRun's coordinator, artifact and runtime, so that mistakes show at once."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

from polypod_bridge.attempt import find_command
from polypod_bridge.process.local import LocalHost
from polypod_coordinators.coordinator import Command, Coordinator, Wanted, create
from polypod_coordinators.java import JavaCoordinator, class_file_java
from polypod_coordinators.node import NodeCoordinator
from polypod_core.errors import UserError
from polypod_core.reasons import Reason
from polypod_core.routing import CoordinatorSpec, Routing

from polypod_cli.manifests import Item, Manifests

NODE_MINIMUM = 22
"""The TypeScript SDK's own requirement."""


_PLACES = {Reason.INVALID_ROUTING: ("queue",), Reason.TASK_REMOVED: ("taskId",)}
"""Reason → the field of the spec that is wrong."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A TaskRun that can be run: its coordinator, roots made absolute, and the artifact it will use now."""

    item: Item
    coordinator_name: str
    coordinator: CoordinatorSpec
    dag_bundles: dict[str, str]
    command: Command


def plan(manifests: Manifests, routing: Routing) -> list[Planned]:
    """Look everything up.

    Raises:
        UserError: a queue that is not mapped, a wrong coordinator or root, a Dag that no artifact holds, a task that
            the artifact's manifest does not name, a runtime that is missing or too old. The message starts with the
            TaskRun's file and line.
    """
    host = LocalHost()
    checked: set[str] = set()
    planned = []
    for item in manifests.task_runs:
        spec = item.task_run.spec
        try:
            if spec.started_by_airflow:
                raise UserError(
                    Reason.INVALID_CONFIG,
                    "workloadSecretRef and executionApi.tokenSecretRef are for a cluster; run an Airflow workload with "
                    "--workload",
                )
            who = f"Dag {spec.dag_id!r}, task {spec.task_id!r}, run {spec.run_id!r}"
            name, coordinator_spec = routing.for_queue(spec.queue, who, spec.coordinator)
            coordinator = create(name, coordinator_spec.classpath, coordinator_spec.kwargs)
            bundles = routing.bundle_folders(coordinator_spec)
            command = find_command(coordinator, Wanted(spec.dag_id), host, bundles)
            if command.lacks(spec.dag_id, spec.task_id):
                held = spec.dag_id in (command.listed or ())
                reason = Reason.TASK_REMOVED if held else Reason.ARTIFACT_NOT_FOUND
                raise UserError(reason, command.no_such_task(spec.dag_id, spec.task_id))
            if name not in checked:
                _check_runtime(coordinator, command)
                checked.add(name)
        except UserError as error:
            where = item.document.where(["spec", *_PLACES.get(error.reason, ())])
            name = item.task_run.metadata.name
            raise UserError(error.reason, f"{where}: TaskRun {name!r}: {error.message}") from None
        planned.append(Planned(item, name, coordinator_spec, bundles, command))
    return planned


def _check_runtime(coordinator: Coordinator, command: Command) -> None:
    """Ask the runtime for its version, if there is a rule about it."""
    if isinstance(coordinator, NodeCoordinator):
        seen = _version([coordinator.node_executable, "--version"], r"v(\d+)")
        if seen < NODE_MINIMUM:
            raise UserError(
                Reason.RUNTIME_NOT_FOUND,
                f"{coordinator.node_executable!r} is Node {seen}; TypeScript bundles need Node {NODE_MINIMUM} or later "
                "(set node_executable in the coordinator's kwargs)",
            )
    elif isinstance(coordinator, JavaCoordinator):
        seen = _version([coordinator.java_executable, "-version"], r'version "(?:1\.)?(\d+)')
        needed = class_file_java(command)
        if needed is not None and seen < needed:
            raise UserError(
                Reason.RUNTIME_NOT_FOUND,
                f"{coordinator.java_executable!r} is Java {seen}; {command.argv[-1]} was compiled for Java {needed} "
                "(set java_executable in the coordinator's kwargs)",
            )


def _version(argv: list[str], pattern: str) -> int:
    try:
        result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        where = "does not exist" if "/" in argv[0] else "is not on PATH"
        raise UserError(
            Reason.RUNTIME_NOT_FOUND, f"{argv[0]!r} {where}; install it, or set its path in the coordinator's kwargs"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(Reason.RUNTIME_NOT_FOUND, f"{argv[0]!r} cannot be run: {error}") from None
    found = re.search(pattern, result.stdout + result.stderr)
    if found is None:
        text = (result.stdout + result.stderr).strip()[:200]
        raise UserError(Reason.RUNTIME_NOT_FOUND, f"{' '.join(argv)} says no version but {text!r}")
    return int(found.group(1))
