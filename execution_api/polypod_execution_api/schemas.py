"""The bodies of requests and answers, as Airflow's Task Execution API has them (version 2026-10-30)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from polypod_crds.times import ExactTime
from pydantic import BaseModel, ConfigDict, Field, JsonValue


class Payload(BaseModel):
    """Base of what a caller sends: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")


class Running(Payload):
    state: Literal["running"] = "running"
    hostname: str
    unixname: str
    pid: int
    start_date: ExactTime


class Heartbeat(Payload):
    hostname: str
    pid: int


class LoopDecision(Payload):
    stop: bool
    reason: str | None = None


class Ended(Payload):
    state: Literal["failed", "skipped", "removed", "upstream_failed"]
    end_date: ExactTime
    rendered_map_index: str | None = None
    retry_reason: str | None = None
    loop_decision: LoopDecision | None = None


class Succeeded(Payload):
    state: Literal["success"]
    end_date: ExactTime
    task_outlets: list[Any] = []
    outlet_events: list[Any] = []
    rendered_map_index: str | None = None
    loop_decision: LoopDecision | None = None


class Retry(Payload):
    state: Literal["up_for_retry"]
    end_date: ExactTime
    rendered_map_index: str | None = None
    retry_delay_seconds: float | None = None
    retry_reason: str | None = None


class Rescheduled(Payload):
    state: Literal["up_for_reschedule"]
    reschedule_date: ExactTime
    end_date: ExactTime


class Stopped(Payload):
    """A supervisor has ended a task that the server did not want any more."""

    state: Literal["server_terminated"]
    end_date: ExactTime
    rendered_map_index: str | None = None
    retry_reason: str | None = None
    hostname: str | None = None
    pid: int | None = None
    loop_decision: LoopDecision | None = None


class NeedsScheduler(BaseModel):
    """A transition that only Airflow's scheduler or triggerer can end."""

    model_config = ConfigDict(extra="allow")
    state: Literal["deferred", "awaiting_input"]


StateUpdate = Annotated[
    Ended | Succeeded | Retry | Rescheduled | Stopped | NeedsScheduler, Field(discriminator="state")
]


class SkipDownstream(Payload):
    tasks: list[str | tuple[str, int]]


class VariableBody(Payload):
    val: str | None
    description: str | None = None


class StoreBody(Payload):
    value: JsonValue
    expires_at: ExactTime | None = None


class DagRunOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    dag_id: str
    run_id: str
    logical_date: datetime | None
    data_interval_start: datetime | None
    data_interval_end: datetime | None
    run_after: datetime
    start_date: datetime | None
    end_date: datetime | None
    clear_number: int = 0
    run_type: str
    state: str
    conf: dict[str, Any] | None = None
    triggering_user_name: str | None = None
    consumed_asset_events: list[Any] = []
    partition_key: str | None = None
    partition_date: datetime | None = None
    note: str | None = None
    team_name: str | None = None


class ConnectionOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    conn_id: str
    conn_type: str
    host: str | None
    schema_: str | None = Field(alias="schema")
    login: str | None
    password: str | None
    port: int | None
    extra: str | None


class VariableOut(BaseModel):
    key: str
    value: str | None


class VariableKeysOut(BaseModel):
    keys: list[str]
    total_entries: int


class RunContext(BaseModel):
    """The answer to a start: what StartupDetails carries to the runtime."""

    dag_run: DagRunOut
    task_reschedule_count: int = 0
    max_tries: int
    variables: list[Any] = []
    connections: list[Any] = []
    xcom_keys_to_clear: list[str] = []
    should_retry: bool
    start_date: datetime | None = None
    next_method: str | None = None
    next_kwargs: dict[str, Any] | None = None
    arg_bindings: list[Any] | None = None
    loop: None = None
    first_task_reschedule_start_date: datetime | None = None
    multi_team: bool = False


class PreviousTi(BaseModel):
    task_id: str
    dag_id: str
    run_id: str
    logical_date: datetime | None = None
    start_date: datetime | None = None
    end_date: datetime | None = None
    state: str | None = None
    try_number: int
    map_index: int | None = -1
    duration: float | None = None


class PreviousSuccess(BaseModel):
    data_interval_start: datetime | None = None
    data_interval_end: datetime | None = None
    start_date: datetime | None = None
    end_date: datetime | None = None


class DagOut(BaseModel):
    dag_id: str
    is_paused: bool = False
    bundle_name: str | None = None
    bundle_version: str | None = None
    relative_fileloc: str | None = None
    owners: str | None = None
    tags: list[str] = []
    next_dagrun: datetime | None = None


class TaskStates(BaseModel):
    task_states: dict[str, Any]


class Breadcrumbs(BaseModel):
    breadcrumbs: list[dict[str, Any]]


class InactiveAssets(BaseModel):
    inactive_assets: list[Any] = []


class StoreOut(BaseModel):
    value: JsonValue


class RunState(BaseModel):
    state: str
