"""What the bridge is told: its configuration, and Airflow's workloads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from polypod_core.routing import CoordinatorSpec

from polypod_bridge.comm.answers import BundleInfo, TaskInstance
from polypod_bridge.comm.exact import UNREADABLE

AIRFLOW_SETTINGS = {
    "AIRFLOW__API__BASE_URL": "/",
    "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "False",
    "AIRFLOW__TRIGGERER__QUEUES_ENABLED": "False",
    "AIRFLOW__STATE_STORE__DEFAULT_RETENTION_DAYS": "30",
}
"""Settings of Airflow that a runtime of schema 2026-10-30 finds in its environment, with Airflow's own defaults."""


def airflow_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return those settings as an environment has them."""
    return {name: environ.get(name, default) for name, default in AIRFLOW_SETTINGS.items()}


class ExecutionApiConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where the Execution API is; times in seconds. `authority`: the only certificates to be trusted, PEM."""

    url: str
    timeout: float = 10.0
    retries: int = 10
    retry_wait_min: float = 1.0
    retry_wait_max: float = 16.0
    ca_file: str | None = None
    public_cas: bool = True
    client_cert: str | None = None
    client_key: str | None = None
    authority: str = ""


class Timeouts(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Times in seconds; a startup of None takes the coordinator's `task_startup_timeout`.

    Attributes:
        heartbeat_limit: the longest time without an answered heartbeat, after which the runtime is ended. Less than
            Airflow waits before it gives the task to somebody else (300 s), and less than the operator leaves a pod
            on a silent node. As long as Airflow 3.4's own: 30 heartbeats (`[workers] max_failed_heartbeats`).
    """

    startup: float | None = None
    execution: float | None = None
    stop_grace: float = 25.0
    kill_grace: float = 5.0
    heartbeat_interval: float = 5.0
    heartbeat_limit: float = 150.0
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


class TaskHandlerArtifact(msgspec.Struct, kw_only=True):
    """The artifact that Airflow has bound a stub task to when it parsed the Dag (upstream's ADR 0013).

    Attributes:
        bundle_info: the Dag bundle that holds it; None for the task's own.
        rel_path: its path in there.
    """

    bundle_info: BundleInfo | None = None
    rel_path: str


class Refusal(msgspec.Struct, kw_only=True):
    """Why a task cannot run, as one word and for a person."""

    reason: str
    message: str


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
        token_file: a file with the token, read again for each call, as the kubelet renews it.
        dag_bundles: the folder of each Dag bundle that the routing knows.
        task_handler_artifact: the artifact to run, if Airflow has named it.
        unknown_fields: fields of Airflow's workload that are not known here.
        pod: set if the runtime is in another container.
        refusal: set if there is none, and the task is only to be failed, for this reason.
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
    dag_bundles: dict[str, str] = {}
    task_handler_artifact: TaskHandlerArtifact | None = None
    unknown_fields: list[str] = []
    pod: PodConfig | None = None
    refusal: Refusal | None = None


class NotAWorkload(Exception):
    """The message says what is wrong, and quotes no value."""


class Workload(msgspec.Struct, kw_only=True):
    """Airflow's `ExecuteTask` workload, of any version: what is not known here is ignored."""

    token: str
    ti: TaskInstance
    dag_rel_path: str
    bundle_info: BundleInfo
    log_path: str | None = None
    sentry_integration: str = ""
    task_handler_artifact: TaskHandlerArtifact | None = None


_NOT_NEEDED = frozenset({"type", "pool_slots", "priority_weight", "external_executor_id", "executor_config"})
"""Fields of a workload that are for executors."""


def parse_workload(raw: bytes) -> tuple[Workload, list[str]]:
    """Parse a workload; return it with the names of the fields that are not known here.

    Raises:
        NotAWorkload: it is no ExecuteTask workload.
    """
    try:
        workload, document = msgspec.json.decode(raw, type=Workload), msgspec.json.decode(raw)
    except msgspec.ValidationError as error:
        # it names a field and its type
        problem = str(error)
    except UNREADABLE:
        problem = "it is not JSON in UTF-8"
    else:
        return workload, _unknown(document)
    # after the handlers: an error of decoding holds all that was read, the token as well
    raise NotAWorkload(problem)


def _unknown(document: dict[str, Any]) -> list[str]:
    known = {field.name for kind in (Workload, TaskInstance) for field in msgspec.structs.fields(kind)} | _NOT_NEEDED
    return sorted((document.keys() | {f"ti.{key}" for key in document["ti"]}) - known - {f"ti.{key}" for key in known})
