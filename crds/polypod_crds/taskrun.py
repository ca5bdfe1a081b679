"""The TaskRun: one task of one run, and what became of it. The CRD is generated from these models (`crd.py`)."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
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

GROUP = "polypod.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "TaskRun"
PLURAL = "taskruns"

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
Key = Annotated[str, StringConstraints(min_length=1, max_length=253)]


class Model(BaseModel):
    """Base of all: camelCase outside, an unknown field is an error."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class FromXCom(Model):
    """Where an argument's value comes from: what another task of the same run returned."""

    task_id: AirflowId = Field(description="The task whose return value is taken.")


class Argument(Model):
    """One argument of the task: a value, or another task's XCom."""

    name: Name = Field(description="The parameter that receives it; case and underscores are ignored.")
    value: AnyValue = Field(default=None, description="The value itself: any JSON, of at most 64 levels.")
    from_x_com: FromXCom | None = Field(default=None, alias="fromXCom", description="Take another task's return value.")

    @model_validator(mode="after")
    def one_source(self) -> Argument:
        given = self.model_fields_set & {"value", "from_x_com"}
        if len(given) != 1:
            raise ValueError(f"argument {self.name!r} needs exactly one of value and fromXCom")
        return self


class Dependency(Model):
    """Another task of the same run that must have ended first."""

    task_id: AirflowId = Field(description="The task; of a mapped one, all its TaskRuns that there are.")
    when: Literal["succeeded", "finished"] = Field(
        default="succeeded",
        description="succeeded: if it fails, this task becomes upstream_failed, and if it is skipped, skipped; "
        "finished: this task starts however it has ended.",
    )


class Retries(Model):
    """The user's own retries, after a failure of the task."""

    limit: int = Field(default=0, ge=0, le=1000, description="How many more tries the task has after its first.")
    delay: Duration = Field(default="5s", description="Time before the next try.")
    backoff: Literal["fixed", "exponential"] = Field(
        default="fixed", description="fixed: always `delay`; exponential: doubled each time."
    )
    max_delay: Duration = Field(default="10m", description="Longest time before a try.")


class Timeouts(Model):
    """How long an attempt may take, step by step."""

    pending: Timeout = Field(default="10m", description="From the pod's creation to its start (cluster only).")
    startup: Timeout | None = Field(
        default=None, description="From the runtime's start until it has connected; by default the coordinator's."
    )
    execution: Timeout | None = Field(default=None, description="From the runtime's start to its end.")


class LocalRef(Model):
    """An object of the same namespace."""

    name: ObjectName = Field(description="The object's name.")


class SecretKeyRef(Model):
    """One key of a Secret of the same namespace."""

    name: ObjectName = Field(description="The Secret's name.")
    key: Key = Field(description="The key in its data.")


class ConnectionSource(Model):
    """A Secret whose keys are `AIRFLOW_CONN_<ID>`."""

    secret_ref: LocalRef = Field(description="The Secret; its keys are AIRFLOW_CONN_<ID>, in upper case.")


class VariableSource(Model):
    """A ConfigMap or Secret whose keys are `AIRFLOW_VAR_<KEY>`."""

    model_config = ConfigDict(json_schema_extra=rules(Rule.VARIABLE_SOURCE))

    config_map_ref: LocalRef | None = Field(
        default=None, description="A ConfigMap; its keys are AIRFLOW_VAR_<KEY>, in upper case."
    )
    secret_ref: LocalRef | None = Field(
        default=None, description="A Secret; its keys are AIRFLOW_VAR_<KEY>, in upper case."
    )

    @model_validator(mode="after")
    def one_source(self) -> VariableSource:
        if (self.config_map_ref is None) == (self.secret_ref is None):
            raise ValueError("needs exactly one of configMapRef and secretRef")
        return self


class DataInterval(Model):
    """The data that the run is about."""

    model_config = ConfigDict(json_schema_extra=rules(Rule.INTERVAL_ORDER))

    start: AwareDatetime = Field(description="Start of the interval, with a time zone.")
    end: AwareDatetime = Field(description="End of the interval, with a time zone.")

    @model_validator(mode="after")
    def in_order(self) -> DataInterval:
        if self.end < self.start:
            raise ValueError("dataInterval.end is before dataInterval.start")
        return self


class ExecutionApi(Model):
    """An Execution API other than the operator's own."""

    url: Annotated[str, Field(max_length=2048, json_schema_extra=rules(Rule.URL))] = Field(
        description="Its base URL, such as https://airflow.example/execution/."
    )
    token_secret_ref: SecretKeyRef | None = Field(
        default=None,
        description="The Secret with the token of one task instance. Without it, the pod's own service account token "
        "is sent.",
    )


class Artifacts(Model):
    """Where jars or bundles come from, if they are not in the language image."""

    model_config = ConfigDict(json_schema_extra=rules(Rule.ARTIFACT_SOURCE))

    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        default=None,
        description="An image that holds them: mounted as a volume, or copied from.",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        default=None, description="When that image is pulled."
    )
    persistent_volume_claim: ObjectName | None = Field(
        default=None, description="A claim whose volume holds them; it is mounted read-only."
    )
    path: Annotated[str, Field(max_length=1024)] = Field(
        default="", description="The folder in the image or volume; by default all of it."
    )
    mount_path: Annotated[str, Field(max_length=1024, json_schema_extra=rules(Rule.ABSOLUTE))] = Field(
        default="/artifacts", description="Where they appear in the language container."
    )

    @model_validator(mode="after")
    def only_one_source(self) -> Artifacts:
        if (self.image is None) == (self.persistent_volume_claim is None):
            raise ValueError("artifacts needs exactly one of image and persistentVolumeClaim")
        return self


class TaskRunSpec(Model):
    """What is to run."""

    model_config = ConfigDict(json_schema_extra=rules(*Rule.of_spec()))

    queue: Name = Field(description="The routing leads it to a coordinator and an image.")
    dag_id: AirflowId = Field(description="The Dag that the artifact must hold.")
    task_id: AirflowId = Field(description="The task of that Dag.")
    run_id: RunId = Field(description="The run; XComs flow between the tasks of one run.")
    map_index: int = Field(default=-1, ge=-1, description="The index of a mapped task, -1 if it is not mapped.")
    arguments: Annotated[list[Argument], Field(max_length=256)] = Field(
        default=[], description="What the task's function receives."
    )
    depends_on: Annotated[list[Dependency], Field(max_length=256)] = Field(
        default=[],
        description="Tasks of the same run (namespace, dagId, runId) that must have ended first. Those of fromXCom "
        "need not be named.",
    )
    params: AnyMapping = Field(default={}, description="The run's params (its conf), of at most 64 levels.")
    logical_date: AwareDatetime | None = Field(default=None, description="The run's logical date, with a time zone.")
    data_interval: DataInterval | None = Field(default=None, description="The data that the run is about.")
    priority: int = Field(
        default=0,
        ge=-2_147_483_648,
        le=2_147_483_647,
        description="Larger goes first among those that wait for a place in their queue (queue_limits of the routing).",
    )
    retries: Retries = Field(default_factory=Retries, description="The user's own retries.")
    timeouts: Timeouts = Field(default_factory=Timeouts, description="How long an attempt may take.")
    connections_from: Annotated[list[ConnectionSource], Field(max_length=32)] = Field(
        default=[], description="Secrets with connections."
    )
    variables_from: Annotated[list[VariableSource], Field(max_length=32)] = Field(
        default=[], description="ConfigMaps or Secrets with variables."
    )
    coordinator: Name | None = Field(
        default=None, description="A coordinator of the routing, in place of the one that the queue leads to."
    )
    artifacts: Artifacts | None = Field(
        default=None, description="Where the jars or bundles come from, in place of the routing's source."
    )
    pod_template: AnyMapping = Field(
        default={},
        description="A PodTemplateSpec, merged over the routing's pod settings by name. The language container is "
        "called `task`.",
    )
    execution_api: ExecutionApi | None = Field(
        default=None, description="An Execution API other than the operator's own."
    )
    workload_secret_ref: SecretKeyRef | None = Field(
        default=None, description="A Secret with one of Airflow's ExecuteTask workloads, as JSON, token included."
    )
    cancel: bool = Field(default=False, description="End the task now and for good.")
    suspend: bool = Field(
        default=False, description="Start nothing, and end what runs; set to false, a new attempt starts."
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None, ge=0, le=2_147_483_647, description="Delete the TaskRun that many seconds after its end."
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
    """Base of what the operator writes: what a later version has added is left out, and no error."""

    model_config = ConfigDict(extra="ignore")


class StoredLog(Observed):
    """Where an attempt's log is kept, and what it takes to read it there."""

    url: str = Field(description="The log; a long one goes on in objects whose names begin so.")
    secret_name: str | None = Field(
        default=None, description="The Secret with the storage's options, in the TaskRun's namespace."
    )
    persistent_volume_claim: str | None = Field(
        default=None, description="The claim whose volume the log is on, in the TaskRun's namespace."
    )
    service_account_name: str | None = Field(
        default=None, description="The service account of the attempt's pod, if it was not the default one."
    )
    image_pull_secrets: list[str] = Field(default=[], description="The Secrets to pull that image with.")
    reader_image: str = Field(description="The image that can read it: the sidecar's.")


class Attempt(Observed):
    """One attempt: one pod."""

    number: int = Field(description="Counted from 1.")
    state: str = Field(description="Airflow's name: queued, running, or the state that it ended in.")
    reason: str = Field(default="", description="Why, as one word; see docs/reasons.md.")
    message: str = Field(default="", description="Why, for a person.")
    pod_name: str | None = Field(default=None, description="The pod.")
    pod_uid: str | None = Field(default=None, description="The pod's uid.")
    node_name: str | None = Field(default=None, description="The node that it ran on.")
    image: str | None = Field(default=None, description="The language image.")
    coordinator: str | None = Field(default=None, description="The coordinator, by its name in the routing.")
    exit_code: int | None = Field(default=None, description="The runtime's exit code, if it exited.")
    signal: int | None = Field(default=None, description="The signal that ended the runtime, if one did.")
    create_time: datetime | None = Field(default=None, description="When its pod was created.")
    start_time: datetime | None = Field(default=None, description="When its language container started.")
    connect_time: datetime | None = Field(default=None, description="When its runtime connected to the bridge.")
    finish_time: datetime | None = Field(default=None, description="When it ended.")
    reported: bool | None = Field(
        default=None, description="True if the Execution API (Airflow) was told the state when it ended."
    )
    peak_memory_bytes: int | None = Field(default=None, description="Largest resident set of the runtime, in bytes.")
    cpu_seconds: float | None = Field(default=None, description="CPU time of the runtime, in seconds.")
    log: StoredLog | None = Field(default=None, description="Its log, if logs are kept when their pod is gone.")


class Condition(Observed):
    """One condition, in the form of metav1.Condition."""

    type: str = Field(description="Routed, Started, Complete or Succeeded.")
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    reason: str = Field(description="Why, as one word; see docs/reasons.md.")
    message: str = Field(default="", description="Why, for a person.")
    last_transition_time: datetime = Field(description="When the status changed last.")
    observed_generation: int | None = Field(default=None, description="The generation that it was worked out from.")


Phase = Literal["Pending", "Running", "Succeeded", "Failed"]


class TaskRunStatus(Observed):
    """What became of it."""

    phase: Phase = Field(default="Pending", description="Pending, Running, Succeeded or Failed.")
    state: str | None = Field(default=None, description="Airflow's name of the last attempt's state.")
    reason: str = Field(default="", description="Why it is in this phase, as one word; see docs/reasons.md.")
    message: str = Field(default="", description="Why, for a person.")
    coordinator: str | None = Field(default=None, description="The coordinator that the queue led to.")
    tries: int = Field(default=0, description="How many attempts there were.")
    failed_tries: int = Field(default=0, description="How many of the user's tries have failed.")
    infrastructure_failures: int = Field(
        default=0, description="How many attempts were lost with what they ran on; none of the user's tries."
    )
    attempts: list[Attempt] = Field(default=[], description="The attempts, the oldest first; the last 20 are kept.")
    conditions: list[Condition] = Field(default=[], description="Routed, Started, Complete, Succeeded.")
    start_time: datetime | None = Field(default=None, description="When the first attempt started.")
    finish_time: datetime | None = Field(default=None, description="When it reached its final phase.")
    next_attempt_time: datetime | None = Field(default=None, description="When the next attempt starts.")
    queue_place: int | None = Field(
        default=None,
        description="Its place among those that wait for their turn in the queue, roughly beyond 10; 1 is next.",
    )
    observed_generation: int | None = Field(default=None, description="The generation that this status is about.")
    x_coms: list[str] = Field(
        default=[], alias="xcoms", description="The keys of the XComs that the task left (of `polypod run` only)."
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
