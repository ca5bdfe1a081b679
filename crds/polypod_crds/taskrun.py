"""The TaskRun: one task of one run, and what became of it. The CRD is generated from these models (`crd.py`)."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from polypod_crds.durations import Duration, Timeout
from polypod_crds.nesting import AnyMapping, AnyValue
from polypod_crds.rules import Rule, rules
from polypod_crds.times import ExactTime, Time

Name = Annotated[str, Field(min_length=1, max_length=250)]


def _airflow_id(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+", text) or text in (".", ".."):
        raise ValueError(Rule.AIRFLOW_ID.message)
    return text


def _run_id(text: str) -> str:
    if not re.fullmatch(r"[\w.~:+@ -]+", text) or text in (".", ".."):
        raise ValueError(Rule.RUN_ID.message)
    return text


AirflowId = Annotated[Name, AfterValidator(_airflow_id), Field(json_schema_extra=rules(Rule.AIRFLOW_ID))]
RunId = Annotated[Name, AfterValidator(_run_id), Field(json_schema_extra=rules(Rule.RUN_ID))]
ObjectName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=253),
    Field(json_schema_extra=rules(Rule.OBJECT_NAME)),
]


DataKey = Annotated[str, StringConstraints(min_length=1, max_length=253)]


class Model(BaseModel):
    """Base of all: camelCase outside, an unknown field is an error."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class FromXCom(Model):
    """An argument's value, taken from the return value of another task of the same run."""

    task_id: AirflowId = Field(description="Task whose return value is used.")


class Argument(Model):
    """One argument of the task: a value, or another task's XCom."""

    name: Name = Field(description="Name of the parameter; case and underscores are ignored.")
    value: AnyValue = Field(default=None, description="Value: any JSON, nested at most 64 levels deep.")
    from_x_com: FromXCom | None = Field(
        default=None, alias="fromXCom", description="Use the return value of another task."
    )

    @model_validator(mode="after")
    def one_source(self) -> Argument:
        given = self.model_fields_set & {"value", "from_x_com"}
        if len(given) != 1:
            raise ValueError(f"argument {self.name!r} needs exactly one of value and fromXCom")
        return self


class Dependency(Model):
    """Another task of the same run that must finish first."""

    task_id: AirflowId = Field(description="Task ID; for a mapped task, all of its TaskRuns that exist.")
    when: Literal["succeeded", "finished"] = Field(
        default="succeeded",
        description="succeeded: if that task fails, this one becomes upstream_failed; if skipped, so is this one. "
        "finished: this task starts whatever the outcome.",
    )


class Retries(Model):
    """Retries after a failure of the task."""

    limit: int = Field(default=0, ge=0, le=1000, description="Number of retries after the first try.")
    delay: Duration = Field(default="5s", description="Delay before the next try.")
    backoff: Literal["fixed", "exponential"] = Field(
        default="fixed", description="fixed: always `delay`; exponential: doubled each time."
    )
    max_delay: Duration = Field(default="10m", description="Maximum delay before a try.")


class Timeouts(Model):
    """Timeouts of an attempt, by step."""

    pending: Timeout = Field(default="10m", description="From creation of the pod to its start (cluster only).")
    startup: Timeout | None = Field(
        default=None,
        description="From the start of the runtime until it connects; defaults to the coordinator's timeout.",
    )
    execution: Timeout | None = Field(default=None, description="From the start of the runtime to its end.")


class LocalRef(Model):
    """An object in the same namespace."""

    name: ObjectName = Field(description="Name of the object.")


class SecretKeyRef(Model):
    """A key of a Secret in the same namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: DataKey = Field(description="Key in its data.")


class ConnectionSource(Model):
    """A Secret whose keys are `AIRFLOW_CONN_<ID>`."""

    secret_ref: LocalRef = Field(description="Secret with keys AIRFLOW_CONN_<ID>, in upper case.")


class VariableSource(Model):
    """A ConfigMap or Secret whose keys are `AIRFLOW_VAR_<KEY>`."""

    model_config = ConfigDict(json_schema_extra=rules(Rule.VARIABLE_SOURCE))

    config_map_ref: LocalRef | None = Field(
        default=None, description="ConfigMap with keys AIRFLOW_VAR_<KEY>, in upper case."
    )
    secret_ref: LocalRef | None = Field(default=None, description="Secret with keys AIRFLOW_VAR_<KEY>, in upper case.")

    @model_validator(mode="after")
    def one_source(self) -> VariableSource:
        if (self.config_map_ref is None) == (self.secret_ref is None):
            raise ValueError("needs exactly one of configMapRef and secretRef")
        return self


class DataInterval(Model):
    """The data interval of the run."""

    model_config = ConfigDict(json_schema_extra=rules(Rule.INTERVAL_ORDER))

    start: ExactTime = Field(description="Start of the interval, with a time zone.")
    end: ExactTime = Field(description="End of the interval, with a time zone.")

    @model_validator(mode="after")
    def in_order(self) -> DataInterval:
        if self.end < self.start:
            raise ValueError("dataInterval.end is before dataInterval.start")
        return self


class ExecutionApi(Model):
    """An Execution API other than the operator's default."""

    url: Annotated[str, Field(max_length=2048, json_schema_extra=rules(Rule.URL))] = Field(
        description="Base URL, such as https://airflow.example/execution/."
    )
    token_secret_ref: SecretKeyRef | None = Field(
        default=None,
        description="Secret with the token of one task instance. Defaults to the service account token of the pod.",
    )


class Artifacts(Model):
    """Source of jars or bundles that are not in the language image."""

    model_config = ConfigDict(json_schema_extra=rules(Rule.ARTIFACT_SOURCE))

    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        default=None,
        description="Image that contains them; it is mounted as a volume, or copied from.",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        default=None, description="Pull policy of that image."
    )
    persistent_volume_claim: ObjectName | None = Field(
        default=None, description="PersistentVolumeClaim that contains them; it is mounted read-only."
    )
    path: Annotated[str, Field(max_length=1024)] = Field(
        default="", description="Folder in the image or volume; defaults to its root."
    )
    mount_path: Annotated[str, Field(max_length=1024, json_schema_extra=rules(Rule.ABSOLUTE))] = Field(
        default="/artifacts", description="Mount path in the language container."
    )

    @model_validator(mode="after")
    def only_one_source(self) -> Artifacts:
        if (self.image is None) == (self.persistent_volume_claim is None):
            raise ValueError("artifacts needs exactly one of image and persistentVolumeClaim")
        return self


class TaskRunSpec(Model):
    """Desired state: the task to run."""

    model_config = ConfigDict(json_schema_extra=rules(*Rule.of_spec()))

    queue: Name = Field(description="Queue, which the routing maps to a coordinator and an image.")
    dag_id: AirflowId = Field(description="Dag ID; the artifact must contain this Dag.")
    task_id: AirflowId = Field(description="Task ID in that Dag.")
    run_id: RunId = Field(description="Run ID; tasks of the same run share XComs.")
    map_index: int = Field(default=-1, ge=-1, description="Index of a mapped task; -1 if the task is not mapped.")
    arguments: Annotated[list[Argument], Field(max_length=256)] = Field(
        default=[], description="Arguments of the task's function."
    )
    depends_on: Annotated[list[Dependency], Field(max_length=256)] = Field(
        default=[],
        description="Tasks of the same run (namespace, dagId, runId) that must finish first. Tasks in fromXCom are "
        "implied.",
    )
    params: AnyMapping = Field(default={}, description="Params of the run (its conf), nested at most 64 levels deep.")
    logical_date: Time | None = Field(default=None, description="Logical date of the run, with a time zone.")
    data_interval: DataInterval | None = Field(default=None, description="Data interval of the run.")
    priority: int = Field(
        default=0,
        ge=-2_147_483_648,
        le=2_147_483_647,
        description="Priority in the queue, higher first, if the queue has a limit (queue_limits of the routing).",
    )
    retries: Retries = Field(default_factory=Retries, description="Retries after a failure of the task.")
    timeouts: Timeouts = Field(default_factory=Timeouts, description="Timeouts of an attempt.")
    connections_from: Annotated[list[ConnectionSource], Field(max_length=32)] = Field(
        default=[], description="Secrets with connections."
    )
    variables_from: Annotated[list[VariableSource], Field(max_length=32)] = Field(
        default=[], description="ConfigMaps or Secrets with variables."
    )
    coordinator: Name | None = Field(
        default=None, description="Coordinator from the routing; overrides the coordinator of the queue."
    )
    artifacts: Artifacts | None = Field(
        default=None, description="Source of the jars or bundles; overrides the source in the routing."
    )
    pod_template: AnyMapping = Field(
        default={},
        description="PodTemplateSpec, merged by name over the pod settings of the routing. The language container is "
        "named `task`.",
    )
    execution_api: ExecutionApi | None = Field(
        default=None, description="Execution API; overrides the operator's default."
    )
    workload_secret_ref: SecretKeyRef | None = Field(
        default=None, description="Secret with an ExecuteTask workload of Airflow as JSON, token included."
    )
    cancel: bool = Field(default=False, description="Stop the task; it is not retried.")
    suspend: bool = Field(
        default=False, description="Stop a running attempt and start none; set to false, a new attempt starts."
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None, ge=0, le=2_147_483_647, description="Seconds after which a finished TaskRun is deleted."
    )

    @property
    def started_by_airflow(self) -> bool:
        """Tell whether Airflow decides when the task is started, and does so in a TaskRun of its own."""
        own_token = self.execution_api is not None and self.execution_api.token_secret_ref is not None
        return self.workload_secret_ref is not None or own_token

    @field_validator("depends_on")
    @classmethod
    def each_once(cls, given: list[Dependency]) -> list[Dependency]:
        names = [item.task_id for item in given]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"dependsOn names task {twice!r} twice")
        return given

    @model_validator(mode="after")
    def not_itself(self) -> TaskRunSpec:
        if any(item.task_id == self.task_id for item in self.depends_on):
            raise ValueError(f"dependsOn: task {self.task_id!r} cannot wait for itself")
        taken = (item for item in self.arguments if item.from_x_com is not None)
        if any(item.from_x_com is not None and item.from_x_com.task_id == self.task_id for item in taken):
            raise ValueError(f"arguments: fromXCom names task {self.task_id!r} itself, which cannot wait for itself")
        return self


class Observed(Model):
    """Base of what the operator writes. Unknown fields, added by a later version, are ignored."""

    model_config = ConfigDict(extra="ignore")


class StoredLog(Observed):
    """Where an attempt's log is stored, and what is needed to read it."""

    url: str = Field(description="URL of the log; a long log continues in objects with this prefix.")
    secret_name: str | None = Field(
        default=None, description="Secret with the storage options, in the TaskRun's namespace."
    )
    persistent_volume_claim: str | None = Field(
        default=None, description="PersistentVolumeClaim that contains the log, in the TaskRun's namespace."
    )
    service_account_name: str | None = Field(
        default=None, description="Service account of the attempt's pod, unless it is the default."
    )
    image_pull_secrets: list[str] = Field(default=[], description="Pull secrets for the reader image.")
    reader_image: str = Field(description="Image that can read the log: the bridge's.")


class Attempt(Observed):
    """One attempt: one pod."""

    number: int = Field(description="Counted from 1.")
    state: str = Field(description="Airflow state: queued, running, or the final state.")
    reason: str = Field(default="", description="Machine-readable reason; see docs/reasons.md.")
    message: str = Field(default="", description="Human-readable explanation.")
    pod_name: str | None = Field(default=None, description="Name of the pod.")
    pod_uid: str | None = Field(default=None, description="UID of the pod.")
    node_name: str | None = Field(default=None, description="Node that the pod runs on.")
    image: str | None = Field(default=None, description="Language image.")
    coordinator: str | None = Field(default=None, description="Coordinator, by its name in the routing.")
    exit_code: int | None = Field(default=None, description="Exit code of the runtime, if it exited.")
    signal: int | None = Field(default=None, description="Signal that terminated the runtime, if any.")
    create_time: datetime | None = Field(default=None, description="Time when the pod was created.")
    start_time: datetime | None = Field(default=None, description="Time when the language container started.")
    connect_time: datetime | None = Field(default=None, description="Time when the runtime connected to the bridge.")
    finish_time: datetime | None = Field(default=None, description="Time when the attempt ended.")
    reported: bool | None = Field(
        default=None, description="True if the final state was reported to the Execution API (Airflow)."
    )
    peak_memory_bytes: int | None = Field(default=None, description="Peak resident memory of the runtime, in bytes.")
    cpu_seconds: float | None = Field(default=None, description="CPU time of the runtime, in seconds.")
    log: StoredLog | None = Field(default=None, description="Stored log, if logs outlive their pods.")


class Condition(Observed):
    """One condition, in the form of metav1.Condition."""

    type: str = Field(description="Routed, Started, Complete or Succeeded.")
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    reason: str = Field(description="Machine-readable reason; see docs/reasons.md.")
    message: str = Field(default="", description="Human-readable explanation.")
    last_transition_time: datetime = Field(description="Time of the last status change.")
    observed_generation: int | None = Field(default=None, description="Generation that the condition is based on.")


Phase = Literal["Pending", "Running", "Succeeded", "Failed"]


class TaskRunStatus(Observed):
    """Observed state."""

    phase: Phase = Field(default="Pending", description="Pending, Running, Succeeded or Failed.")
    state: str | None = Field(default=None, description="Airflow state of the last attempt.")
    reason: str = Field(default="", description="Machine-readable reason of the phase; see docs/reasons.md.")
    message: str = Field(default="", description="Human-readable explanation.")
    coordinator: str | None = Field(default=None, description="Coordinator that the queue maps to.")
    tries: int = Field(default=0, description="Number of attempts.")
    failed_tries: int = Field(default=0, description="Number of failed tries; limited by spec.retries.")
    infrastructure_failures: int = Field(
        default=0, description="Number of attempts lost to infrastructure; these do not count as tries."
    )
    attempts: list[Attempt] = Field(default=[], description="Attempts, oldest first; the last 20 are kept.")
    conditions: list[Condition] = Field(default=[], description="Routed, Started, Complete, Succeeded.")
    start_time: datetime | None = Field(default=None, description="Time when the first attempt started.")
    finish_time: datetime | None = Field(default=None, description="Time when the final phase was reached.")
    next_attempt_time: datetime | None = Field(default=None, description="Time when the next attempt starts.")
    queue_place: int | None = Field(
        default=None,
        description="Position in line for the queue; 1 is next, approximate beyond 10.",
    )
    observed_generation: int | None = Field(default=None, description="Generation that this status is based on.")
    x_coms: list[str] = Field(
        default=[], alias="xcoms", description="Keys of the XComs that the task pushed (`polypod run` only)."
    )


class ObjectMeta(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: Name
    namespace: str | None = None


class TaskRun(Model):
    """A TaskRun."""

    api_version: Literal["polypod.dev/v1alpha1"] = "polypod.dev/v1alpha1"
    kind: Literal["TaskRun"] = "TaskRun"
    metadata: ObjectMeta
    spec: TaskRunSpec
    status: TaskRunStatus | None = None
