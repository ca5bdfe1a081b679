"""The TaskRun: one task of one run, and what became of it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from polypod_crds.durations import Duration

API_VERSION = "polypod.dev/v1alpha1"
KIND = "TaskRun"

Name = Annotated[str, Field(min_length=1, max_length=250)]


class Model(BaseModel):
    """Base of all: camelCase outside, an unknown field is an error."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class FromXCom(Model):
    """Where an argument's value comes from: what another task of the same run returned."""

    task_id: Name = Field(description="The task whose return value is taken.")


class Argument(Model):
    """One argument of the task: a value, or another task's XCom."""

    name: Name = Field(description="The parameter that receives it; case and underscores are ignored.")
    value: Any = Field(default=None, description="The value itself.")
    from_x_com: FromXCom | None = Field(default=None, alias="fromXCom", description="Take another task's return value.")

    @model_validator(mode="after")
    def one_source(self) -> Argument:
        given = self.model_fields_set & {"value", "from_x_com"}
        if len(given) != 1:
            raise ValueError(f"argument {self.name!r} needs exactly one of value and fromXCom")
        return self


class Retries(Model):
    """The user's own retries, after a failure of the task."""

    limit: int = Field(default=0, ge=0, description="How many more tries the task has after its first.")
    delay: Duration = Field(default="5s", description="Time before the next try.")
    backoff: Literal["fixed", "exponential"] = Field(
        default="fixed", description="fixed: always `delay`; exponential: doubled each time."
    )
    max_delay: Duration = Field(default="10m", description="Longest time before a try.")


class Timeouts(Model):
    """How long an attempt may take, step by step."""

    pending: Duration = Field(default="10m", description="From the pod's creation to its start (cluster only).")
    startup: Duration | None = Field(
        default=None, description="From the runtime's start until it has connected; by default the coordinator's."
    )
    execution: Duration | None = Field(default=None, description="From the runtime's start to its end.")


class LocalRef(Model):
    name: Name


class ConnectionSource(Model):
    """A Secret whose keys are `AIRFLOW_CONN_<ID>`."""

    secret_ref: LocalRef


class VariableSource(Model):
    """A ConfigMap or Secret whose keys are `AIRFLOW_VAR_<KEY>`."""

    config_map_ref: LocalRef | None = None
    secret_ref: LocalRef | None = None

    @model_validator(mode="after")
    def one_source(self) -> VariableSource:
        if (self.config_map_ref is None) == (self.secret_ref is None):
            raise ValueError("needs exactly one of configMapRef and secretRef")
        return self


class DataInterval(Model):
    start: AwareDatetime
    end: AwareDatetime


class TaskRunSpec(Model):
    """What is to run."""

    queue: Name = Field(description="The routing leads it to a coordinator and an image.")
    dag_id: Name = Field(description="The Dag that the artifact must hold.")
    task_id: Name = Field(description="The task of that Dag.")
    run_id: Name = Field(description="The run; XComs flow between the tasks of one run.")
    map_index: int = Field(default=-1, ge=-1, description="The index of a mapped task, -1 if it is not mapped.")
    arguments: list[Argument] = Field(default=[], description="What the task's function receives.")
    params: dict[str, Any] = Field(default={}, description="The run's params (its conf).")
    logical_date: AwareDatetime | None = Field(default=None, description="The run's logical date.")
    data_interval: DataInterval | None = Field(default=None, description="The data that the run is about.")
    retries: Retries = Field(default_factory=Retries)
    timeouts: Timeouts = Field(default_factory=Timeouts)
    connections_from: list[ConnectionSource] = Field(default=[], description="Secrets with connections.")
    variables_from: list[VariableSource] = Field(default=[], description="ConfigMaps or Secrets with variables.")
    pod_template: dict[str, Any] = Field(default={}, description="Merged over the routing's pod settings, by name.")


class Attempt(Model):
    """One try."""

    number: int
    state: str
    reason: str
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    start_time: datetime | None = None
    finish_time: datetime | None = None
    peak_memory_bytes: int | None = None
    cpu_seconds: float | None = None


class TaskRunStatus(Model):
    """What became of it."""

    phase: Literal["Pending", "Running", "Succeeded", "Failed"] = "Pending"
    state: str | None = None
    attempts: list[Attempt] = []
    x_coms: list[str] = Field(default=[], alias="xcoms", description="The keys of the XComs that the task left.")


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
