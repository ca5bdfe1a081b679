"""What the supervisor sends to a runtime: StartupDetails first, then one answer a request.

An answer holds what the Execution API said: a field that the server left out is left out here too (UNSET).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType


class Record(msgspec.Struct, kw_only=True):
    """A part of a message that has no `type` of its own."""


class Answer(msgspec.Struct, kw_only=True, tag_field="type", tag=True):
    """Base of every message to a runtime; its class name is the `type` on the wire."""


class TaskInstance(Record, kw_only=True):
    """Which task instance an attempt runs, as Airflow's workloads and StartupDetails carry it."""

    id: str
    task_id: str
    dag_id: str
    run_id: str
    try_number: int
    dag_version_id: str
    map_index: int | None = -1
    hostname: str | None = None
    context_carrier: dict[str, Any] | None = None
    queue: str | None = "default"
    region_id: str | UnsetType | None = UNSET
    region_index: int | UnsetType | None = UNSET


class BundleInfo(Record, kw_only=True):
    """The Dag bundle that the task's Dag came from."""

    name: str
    version: str | None = None
    version_data: dict[str, Any] | UnsetType | None = UNSET


class DagRun(Record, kw_only=True):
    dag_id: str
    run_id: str
    logical_date: datetime | None = None
    data_interval_start: datetime | None = None
    data_interval_end: datetime | None = None
    run_after: datetime
    start_date: datetime | None = None
    end_date: datetime | None = None
    clear_number: int | None = 0
    run_type: str
    state: str = "running"
    conf: dict[str, Any] | None = None
    triggering_user_name: str | None = None
    consumed_asset_events: list[dict[str, Any]] = []
    partition_key: str | None = None
    partition_date: datetime | None = None
    note: str | None = None
    team_name: str | None = None


class ArgBinding(Record, kw_only=True):
    """One argument of the stub call, in call order (schema 2026-10-30)."""

    kind: Literal["xcom", "literal"]
    name: str
    task_id: str | UnsetType = UNSET
    value: Any = UNSET
    value_schema: dict[str, Any] | UnsetType | None = UNSET
    from_default: bool | UnsetType = UNSET


class LoopContext(Record, kw_only=True):
    """The iteration of a loop that the task instance belongs to (schema 2026-10-30)."""

    node_id: str
    index: int
    max_iterations: int
    terminal_task_id: str
    terminal_is_mapped: bool


class TIRunContext(Record, kw_only=True):
    """The Execution API's answer to `PATCH task-instances/{id}/run`."""

    dag_run: DagRun
    task_reschedule_count: int | None = 0
    max_tries: int
    variables: list[dict[str, Any]] | None = None
    connections: list[dict[str, Any]] | None = None
    next_method: str | None = None
    next_kwargs: dict[str, Any] | str | None = None
    xcom_keys_to_clear: list[str] | None = None
    should_retry: bool | None = False
    start_date: datetime | None = None
    arg_bindings: list[ArgBinding] | UnsetType | None = UNSET
    loop: LoopContext | UnsetType | None = UNSET
    first_task_reschedule_start_date: datetime | UnsetType | None = UNSET
    multi_team: bool | UnsetType = UNSET

    @property
    def is_of_2026_10_30(self) -> bool:
        """Tell whether the server answered in version 2026-10-30, which always says `multi_team`."""
        return self.multi_team is not UNSET


class StartupDetails(Answer, kw_only=True):
    """Frame 0: all that a runtime needs to start the task."""

    ti: TaskInstance
    dag_rel_path: str
    bundle_info: BundleInfo
    start_date: datetime
    ti_context: TIRunContext
    sentry_integration: str = ""


class ErrorResponse(Answer, kw_only=True):
    """An error for the task's code; `error` is one of Airflow's ErrorTypes."""

    error: str = "GENERIC_ERROR"
    detail: dict[str, Any] | None = None


class OKResponse(Answer, kw_only=True):
    ok: bool = True


class ConnectionResult(Answer, kw_only=True):
    conn_id: str
    conn_type: str
    host: str | UnsetType | None = UNSET
    schema: str | UnsetType | None = UNSET
    login: str | UnsetType | None = UNSET
    password: str | UnsetType | None = UNSET
    port: int | UnsetType | None = UNSET
    extra: str | UnsetType | None = UNSET


class VariableResult(Answer, kw_only=True):
    key: str
    value: str | UnsetType | None = UNSET


class VariableKeysResult(Answer, kw_only=True):
    keys: list[str]
    total_entries: int


class XComResult(Answer, kw_only=True):
    key: str
    value: Any = None


class XComCountResponse(Answer, kw_only=True):
    len: int


class XComSequenceIndexResult(Answer, kw_only=True):
    root: Any


class XComSequenceSliceResult(Answer, kw_only=True):
    root: list[Any]


class TaskRescheduleStartDate(Answer, kw_only=True):
    start_date: datetime | None


class TICount(Answer, kw_only=True):
    count: int


class DRCount(Answer, kw_only=True):
    count: int


class TaskStatesResult(Answer, kw_only=True):
    task_states: dict[str, Any]


class TaskBreadcrumbsResult(Answer, kw_only=True):
    breadcrumbs: list[dict[str, Any]]


class PreviousTIResult(Answer, kw_only=True):
    task_instance: dict[str, Any] | None = None


class PreviousDagRunResult(Answer, kw_only=True):
    dag_run: DagRun | None = None


class PrevSuccessfulDagRunResult(Answer, kw_only=True):
    data_interval_start: datetime | UnsetType | None = UNSET
    data_interval_end: datetime | UnsetType | None = UNSET
    start_date: datetime | UnsetType | None = UNSET
    end_date: datetime | UnsetType | None = UNSET


class DagRunResult(Answer, DagRun, kw_only=True):
    """A Dag run, as the answer to GetDagRun."""


class DagRunStateResult(Answer, kw_only=True):
    state: str


class DagResult(Answer, kw_only=True):
    dag_id: str
    is_paused: bool
    bundle_name: str | None = None
    bundle_version: str | None = None
    relative_fileloc: str | None = None
    owners: str | None = None
    tags: list[str] = []
    next_dagrun: datetime | None = None


class TaskStateStoreResult(Answer, kw_only=True):
    value: Any = None


class AssetStateStoreResult(Answer, kw_only=True):
    value: Any = None


class AssetResult(Answer, kw_only=True):
    name: str
    uri: str
    group: str
    extra: dict[str, Any] | UnsetType | None = UNSET


class AssetsByAliasResult(Answer, kw_only=True):
    assets: list[AssetResult]


class AssetEventsResult(Answer, kw_only=True):
    asset_events: list[dict[str, Any]]


class InactiveAssetsResult(Answer, kw_only=True):
    inactive_assets: list[dict[str, Any]] | UnsetType | None = UNSET


class HITLDetailRequestResult(Answer, kw_only=True):
    ti_id: str
    options: list[str]
    subject: str
    body: str | UnsetType | None = UNSET
    defaults: list[str] | UnsetType | None = UNSET
    multiple: bool | UnsetType | None = UNSET
    params: dict[str, Any] | UnsetType | None = UNSET
    assigned_users: list[dict[str, Any]] | UnsetType | None = UNSET


class HITLDetailResponse(Answer, kw_only=True):
    response_received: bool
    responded_by_user: dict[str, Any] | UnsetType | None = UNSET
    responded_at: datetime | UnsetType | None = UNSET
    chosen_options: list[str] | UnsetType | None = UNSET
    params_input: dict[str, Any] | UnsetType | None = UNSET
