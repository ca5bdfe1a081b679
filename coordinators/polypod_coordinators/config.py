"""What the bridge is told: its configuration, Airflow's workloads, and the routing from queue to coordinator.

The routing uses the keys of Airflow's `[sdk]` section. A routing file is either a ConfigMap whose data hold YAML or
JSON texts, or a plain mapping with the same keys.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from polypod_coordinators.comm.answers import BundleInfo, TaskInstance
from polypod_coordinators.errors import UserError, nearest
from polypod_coordinators.supervisor.reasons import Reason


class ExecutionApiConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where the Execution API is; times in seconds. `authority`: the only certificates to be trusted, PEM."""

    url: str
    timeout: float = 10.0
    retries: int = 6
    retry_wait_min: float = 1.0
    retry_wait_max: float = 90.0
    ca_file: str | None = None
    public_cas: bool = True
    client_cert: str | None = None
    client_key: str | None = None
    authority: str = ""


class ArtifactSource(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where jars or bundles come from, if they are not in the language image: another image, or a volume claim."""

    image: str | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    persistent_volume_claim: str | None = None
    path: str = ""
    mount_path: str = "/artifacts"

    def __post_init__(self) -> None:
        if (self.image is None) == (self.persistent_volume_claim is None):
            raise ValueError("artifacts needs exactly one of image and persistent_volume_claim")
        if not self.mount_path.startswith("/") or ":" in self.mount_path:
            raise ValueError(f"mount_path {self.mount_path!r} must be absolute and hold no ':'")


class CoordinatorSpec(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One entry of `coordinators`.

    The coordinator itself gets `kwargs` only. The rest is about the pod: its image and settings, for the operator.

    Attributes:
        extra: what other programs read in Airflow's `[sdk] coordinators`; not used here.
        allow: what a pod template may do although the `restricted` Pod Security standard forbids it, such as
            `hostPath`; see `polypod_operator.security`.
    """

    classpath: str
    kwargs: dict[str, Any] = {}
    extra: dict[str, Any] | None = None
    image: str | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: list[str] = []
    resources: dict[str, Any] = {}
    pod_template: dict[str, Any] = {}
    artifacts: ArtifactSource | None = None
    allow: list[str] = []


class QueueOverride(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What one queue changes of its coordinator's entry; what is not set stays."""

    kwargs: dict[str, Any] = {}
    image: str | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: list[str] | None = None
    resources: dict[str, Any] | None = None
    pod_template: dict[str, Any] = {}
    artifacts: ArtifactSource | None = None


class Timeouts(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Times in seconds; a startup of None takes the coordinator's `task_startup_timeout`."""

    startup: float | None = None
    execution: float | None = None
    stop_grace: float = 25.0
    kill_grace: float = 5.0
    heartbeat_interval: float = 5.0
    max_failed_heartbeats: int = 3
    task_success_overtime: float = 20.0
    socket_cleanup: float = 60.0


class LogStorage(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where the log goes to besides the pod's own.

    Attributes:
        base: the URL that all logs are below.
        path: this log's, in Airflow's layout; a workload has its own.
        pod: the pod's name, which its part of the log begins with.
        options_dir: a folder with the storage's options, a file each; empty if there are none.
        spool_dir: a folder that outlives the container, but not the pod.
        stored_within: seconds in which the rest must be stored when the task has ended; less than a pod's grace period.
    """

    base: str
    path: str
    pod: str
    options_dir: str = ""
    spool_dir: str = "/var/lib/polypod-log"
    stored_within: float = 30.0


class PodConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the bridge needs to know of its pod.

    Attributes:
        socket: the Unix socket that the launcher connects to.
        state_dir: a folder that outlives the container, but not the pod.
        termination_log: the file that the kubelet takes the container's termination message from.
        workload_file: one of Airflow's ExecuteTask workloads, mounted from a Secret.
        token_names_task: the task instance's id is the subject of the token.
        outcome_url: where the outcome is sent to, besides the termination message; empty if it is not.
        outcome_authority: the only certificates to be trusted there, PEM; empty for public ones.
        pod_token_file: the file with the pod's own token, which is shown there.
        log: where the log goes to besides; None if it ends with the pod.
    """

    socket: str = "/polypod/bridge.sock"
    state_dir: str = "/var/lib/polypod"
    termination_log: str = "/dev/termination-log"
    workload_file: str | None = None
    token_names_task: bool = False
    outcome_url: str = ""
    outcome_authority: str = ""
    pod_token_file: str = ""
    log: LogStorage | None = None


class BridgeConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Everything that one attempt needs.

    Attributes:
        ti: the task instance to run.
        token: the bearer token for the Execution API.
        coordinator_name: the coordinator's key in the routing, for messages.
        secrets_dirs: folders whose files are named `AIRFLOW_CONN_*` and `AIRFLOW_VAR_*`.
        log_file: a file for the task's log, JSON lines.
        log_format: what goes to standard error: "json", "console", or "none".
        outcome_file: where the outcome is written, as JSON.
        logging_level: what the runtime is told to log, and `namespace_levels` per logger name.
        parent_pid: the process that started the bridge, if the bridge must not outlive it.
        token_file: a file with the token, read anew for each call, as the kubelet renews it.
        pod: set if the runtime is in another container.
    """

    ti: TaskInstance
    bundle_info: BundleInfo
    dag_rel_path: str = ""
    sentry_integration: str = ""
    token: str = ""
    execution_api: ExecutionApiConfig
    coordinator_name: str
    coordinator: CoordinatorSpec
    timeouts: Timeouts = msgspec.field(default_factory=Timeouts)
    secrets_dirs: list[str] = []
    log_file: str | None = None
    log_format: str = "json"
    colors: bool = False
    outcome_file: str | None = None
    logging_level: str = "INFO"
    namespace_levels: str = ""
    sensitive_names: list[str] = []
    parent_pid: int | None = None
    token_file: str | None = None
    pod: PodConfig | None = None


class Workload(msgspec.Struct, kw_only=True):
    """Airflow's `ExecuteTask` workload; what the bridge does not need is ignored."""

    token: str
    ti: TaskInstance
    dag_rel_path: str
    bundle_info: BundleInfo
    log_path: str | None = None
    sentry_integration: str = ""


class Routing(msgspec.Struct, kw_only=True):
    """Which coordinator runs a queue's tasks.

    Attributes:
        queue_limits: how many attempts of a queue there may be at once; 0 holds the queue.
    """

    coordinators: dict[str, CoordinatorSpec] = {}
    queue_to_coordinator: dict[str, str] = {}
    queue_to_image: dict[str, str] = {}
    queue_overrides: dict[str, QueueOverride] = {}
    queue_limits: dict[str, Annotated[int, msgspec.Meta(ge=0)]] = {}
    default_coordinator: str | None = None

    def for_queue(self, queue: str, who: str, coordinator: str | None = None) -> tuple[str, CoordinatorSpec]:
        """Return the name and entry of the coordinator for `queue`, with what the queue changes of it.

        The queue's pod template is not in the entry: it is merged, over the entry's, by `pod_templates`.

        Args:
            who: the task (Dag, run and task), for the error.
            coordinator: a coordinator to take in place of the queue's.

        Raises:
            UserError: the queue leads to no coordinator, or there is none of that name.
        """
        name = coordinator or self.queue_to_coordinator.get(queue, self.default_coordinator)
        if name is None:
            raise UserError(
                Reason.INVALID_ROUTING,
                f"{who}: queue {queue!r} is not in queue_to_coordinator" + nearest(queue, self.queue_to_coordinator),
            )
        if name not in self.coordinators:
            raise UserError(
                Reason.INVALID_ROUTING,
                f"{who}: queue {queue!r}: coordinator {name!r} is not in coordinators"
                + nearest(name, self.coordinators),
            )
        return name, self._overridden(self.coordinators[name], queue)

    def _overridden(self, spec: CoordinatorSpec, queue: str) -> CoordinatorSpec:
        changes: dict[str, Any] = {}
        override = self.queue_overrides.get(queue)
        if override is not None:
            for field in ("image", "image_pull_policy", "image_pull_secrets", "resources", "artifacts"):
                value = getattr(override, field)
                if value is not None:
                    changes[field] = value
            changes["kwargs"] = {**spec.kwargs, **override.kwargs}
        if queue in self.queue_to_image:
            changes["image"] = self.queue_to_image[queue]
        return msgspec.structs.replace(spec, **changes) if changes else spec

    def pod_templates(self, spec: CoordinatorSpec, queue: str) -> list[dict[str, Any]]:
        """Return the pod templates to merge, in that order."""
        override = self.queue_overrides.get(queue)
        return [template for template in (spec.pod_template, override.pod_template if override else {}) if template]


ROUTING_KEYS = tuple(field.name for field in msgspec.structs.fields(Routing))


def parse_routing(document: Any, where: str) -> Routing:
    """Check a routing document as a whole.

    Args:
        document: the parsed file: a ConfigMap, or a plain mapping.
        where: the file or object, for errors.

    Raises:
        UserError: the message names the key, what was seen and what would be right.
    """
    if not isinstance(document, dict):
        raise UserError(Reason.INVALID_ROUTING, f"{where}: a routing is a mapping, not {type(document).__name__}")
    if document.get("kind") == "ConfigMap":
        document = _config_map(document, where)
    for key in document:
        if key not in ROUTING_KEYS:
            raise UserError(Reason.INVALID_ROUTING, f"{where}: unknown key {key!r}" + nearest(str(key), ROUTING_KEYS))
    coordinators = document.get("coordinators")
    for name, entry in coordinators.items() if isinstance(coordinators, dict) else ():
        try:
            msgspec.convert(entry, CoordinatorSpec)
        except msgspec.ValidationError as error:
            raise UserError(Reason.INVALID_ROUTING, f"{where}: coordinators.{name}: {error}") from None
    try:
        routing = msgspec.convert({key: value for key, value in document.items() if value is not None}, Routing)
    except msgspec.ValidationError as error:
        raise UserError(Reason.INVALID_ROUTING, f"{where}: {error}") from None
    for queue, name in routing.queue_to_coordinator.items():
        if name not in routing.coordinators:
            raise UserError(
                Reason.INVALID_ROUTING,
                f"{where}: queue_to_coordinator.{queue} names coordinator {name!r}, which is not in coordinators"
                + nearest(name, routing.coordinators),
            )
    if routing.default_coordinator is not None and routing.default_coordinator not in routing.coordinators:
        raise UserError(
            Reason.INVALID_ROUTING,
            f"{where}: default_coordinator {routing.default_coordinator!r} is not in coordinators"
            + nearest(routing.default_coordinator, routing.coordinators),
        )
    return routing


def _config_map(document: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a ConfigMap's data with their texts parsed."""
    data = document.get("data")
    if not isinstance(data, dict):
        raise UserError(Reason.INVALID_ROUTING, f"{where}: the ConfigMap has no data")
    return {
        key: load_yaml(value, f"{where}: data.{key}")
        if isinstance(value, str) and key != "default_coordinator"
        else value
        for key, value in data.items()
    }


def load_yaml(text: str | bytes, where: str) -> Any:
    """Parse one YAML (or JSON) document.

    Raises:
        UserError: it is not YAML; the message has the line and column.
    """
    import yaml

    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(Reason.INVALID_CONFIG, f"{where}{place}: not valid YAML: {problem}") from None


def read_routing(path: str) -> Routing:
    """Read a routing file; its roots, and commands that are paths, become absolute, relative to its own folder.

    Raises:
        UserError: it cannot be read or is not valid.
    """
    import os

    try:
        with open(path, "rb") as file:
            raw = file.read()
    except OSError as error:
        raise UserError(Reason.INVALID_ROUTING, f"{path} cannot be read: {error.strerror}") from None
    routing = parse_routing(load_yaml(raw, path), path)
    base = os.path.dirname(os.path.realpath(path))
    resolved = {
        name: msgspec.structs.replace(spec, kwargs=_absolute_roots(spec.kwargs, base))
        for name, spec in routing.coordinators.items()
    }
    return msgspec.structs.replace(routing, coordinators=resolved)


def _absolute_roots(kwargs: dict[str, Any], base: str) -> dict[str, Any]:
    """Return a coordinator's kwargs with its roots, and commands that are paths, relative to the folder `base`."""
    import os

    def absolute(path: Any) -> Any:
        return os.path.join(base, os.path.expanduser(path)) if isinstance(path, str) else path

    resolved = dict(kwargs)
    for key, value in kwargs.items():
        if key.endswith("_root"):
            resolved[key] = [absolute(item) for item in value] if isinstance(value, list) else absolute(value)
        elif key.endswith("_executable") and isinstance(value, str) and "/" in value:
            resolved[key] = absolute(value)
    return resolved
