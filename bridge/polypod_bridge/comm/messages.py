"""The messages a runtime may send, typed, one struct each (supervisor schema 2026-06-16 and 2026-10-30).

Field names and types follow Airflow's published supervisor schema. Fields that a version does not know are in
`schema.py`. A datetime is accepted as a msgpack timestamp or as an RFC 3339 string.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from polypod_bridge.comm.exact import UNREADABLE, json_problem

Aware = Annotated[datetime, Meta(tz=True)]


class Message(msgspec.Struct, kw_only=True, frozen=True, tag_field="type", tag=True):
    """Base of every message; its class name is the `type` on the wire."""


# Terminal: how the task ended.


class LoopDecision(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What the gate of a loop has decided (schema 2026-10-30)."""

    stop: bool
    reason: str | None = None


class SucceedTask(Message, kw_only=True, frozen=True):
    state: Literal["success"] = "success"
    end_date: Aware
    task_outlets: list[dict[str, Any]] | None = None
    outlet_events: list[dict[str, Any]] | None = None
    rendered_map_index: str | None = None
    loop_decision: LoopDecision | None = None


class RetryTask(Message, kw_only=True, frozen=True):
    state: Literal["up_for_retry"] = "up_for_retry"
    end_date: Aware
    rendered_map_index: str | None = None
    retry_delay_seconds: float | None = None
    retry_reason: str | None = None


class TaskState(Message, kw_only=True, frozen=True):
    state: Literal["failed", "skipped", "removed"]
    end_date: datetime | None = None
    rendered_map_index: str | None = None
    retry_reason: str | None = None
    loop_decision: LoopDecision | None = None


class DeferTask(Message, kw_only=True, frozen=True):
    state: Literal["deferred"] = "deferred"
    classpath: str
    trigger_kwargs: dict[str, Any] | str | None = None
    trigger_timeout: Any = None
    queue: str | None = None
    next_method: str
    next_kwargs: dict[str, Any] | None = None
    rendered_map_index: str | None = None


class RescheduleTask(Message, kw_only=True, frozen=True):
    state: Literal["up_for_reschedule"] = "up_for_reschedule"
    reschedule_date: Aware
    end_date: Aware


class AwaitInputTask(Message, kw_only=True, frozen=True):
    state: Literal["awaiting_input"] = "awaiting_input"
    timeout: Any = None
    next_method: str
    next_kwargs: dict[str, Any] | None = None
    rendered_map_index: str | None = None


# Connections, variables, secrets.


class GetConnection(Message, kw_only=True, frozen=True):
    conn_id: str


class GetVariable(Message, kw_only=True, frozen=True):
    key: str


class GetVariableKeys(Message, kw_only=True, frozen=True):
    prefix: str | None = None
    limit: int = 1000
    offset: int = 0


class PutVariable(Message, kw_only=True, frozen=True):
    key: str
    value: str | None
    description: str | None = None


class DeleteVariable(Message, kw_only=True, frozen=True):
    key: str


class MaskSecret(Message, kw_only=True, frozen=True):
    value: Any
    name: str | None = None


# XCom.


class GetXCom(Message, kw_only=True, frozen=True):
    key: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int | None = None
    include_prior_dates: bool = False
    previous_iteration: bool = False


class GetXComCount(Message, kw_only=True, frozen=True):
    key: str
    dag_id: str
    run_id: str
    task_id: str
    previous_iteration: bool = False


class GetXComSequenceItem(Message, kw_only=True, frozen=True):
    key: str
    dag_id: str
    run_id: str
    task_id: str
    offset: int
    previous_iteration: bool = False


class GetXComSequenceSlice(Message, kw_only=True, frozen=True):
    key: str
    dag_id: str
    run_id: str
    task_id: str
    start: int | None = None
    stop: int | None = None
    step: int | None = None
    include_prior_dates: bool = False
    previous_iteration: bool = False


class SetXCom(Message, kw_only=True, frozen=True):
    key: str
    value: Any
    dag_id: str
    run_id: str
    task_id: str
    map_index: int | None = None
    dag_result: bool = False
    mapped_length: int | None = None


class DeleteXCom(Message, kw_only=True, frozen=True):
    key: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int | None = None


# The task instance itself.


class SetRenderedFields(Message, kw_only=True, frozen=True):
    rendered_fields: dict[str, Any]


class SetRenderedMapIndex(Message, kw_only=True, frozen=True):
    rendered_map_index: str


class SkipDownstreamTasks(Message, kw_only=True, frozen=True):
    tasks: list[Any]


class ValidateInletsAndOutlets(Message, kw_only=True, frozen=True):
    ti_id: str


class SetExecutionTimeout(Message, kw_only=True, frozen=True):
    """The task's own `execution_timeout`, for the supervisor to enforce from outside (schema 2026-10-30)."""

    timeout_seconds: Annotated[float, Meta(gt=0)]


class GetTaskRescheduleStartDate(Message, kw_only=True, frozen=True):
    ti_id: str
    try_number: int = 1


class GetTaskStateStore(Message, kw_only=True, frozen=True):
    ti_id: str
    key: str


class SetTaskStateStore(Message, kw_only=True, frozen=True):
    ti_id: str
    key: str
    value: Any
    expires_at: datetime | None = None


class DeleteTaskStateStore(Message, kw_only=True, frozen=True):
    ti_id: str
    key: str


class ClearTaskStateStore(Message, kw_only=True, frozen=True):
    ti_id: str


# Dag runs and other task instances.


class TriggerDagRun(Message, kw_only=True, frozen=True):
    dag_id: str
    run_id: str
    logical_date: datetime | None = None
    run_after: datetime | None = None
    conf: dict[str, Any] | None = None
    reset_dag_run: bool | None = False
    partition_key: str | None = None
    note: str | None = None


class UpdateDagRunNote(Message, kw_only=True, frozen=True):
    ti_id: str
    note: str | None


class GetDagRun(Message, kw_only=True, frozen=True):
    dag_id: str
    run_id: str


class GetDagRunState(Message, kw_only=True, frozen=True):
    dag_id: str
    run_id: str


class GetDRCount(Message, kw_only=True, frozen=True):
    dag_id: str
    logical_dates: list[Aware] | None = None
    run_ids: list[str] | None = None
    states: list[str] | None = None


class GetTICount(Message, kw_only=True, frozen=True):
    dag_id: str
    map_index: int | None = None
    task_ids: list[str] | None = None
    task_group_id: str | None = None
    logical_dates: list[Aware] | None = None
    run_ids: list[str] | None = None
    states: list[str] | None = None


class GetTaskStates(Message, kw_only=True, frozen=True):
    dag_id: str
    map_index: int | None = None
    task_ids: list[str] | None = None
    task_group_id: str | None = None
    logical_dates: list[Aware] | None = None
    run_ids: list[str] | None = None


class GetTaskBreadcrumbs(Message, kw_only=True, frozen=True):
    dag_id: str
    run_id: str


class GetPreviousDagRun(Message, kw_only=True, frozen=True):
    dag_id: str
    logical_date: Aware
    state: str | None = None


class GetPrevSuccessfulDagRun(Message, kw_only=True, frozen=True):
    ti_id: str


class GetPreviousTI(Message, kw_only=True, frozen=True):
    dag_id: str
    task_id: str
    logical_date: Aware | None = None
    map_index: int = -1
    state: str | None = None


class GetDag(Message, kw_only=True, frozen=True):
    dag_id: str


# Assets.


class GetAssetByName(Message, kw_only=True, frozen=True):
    name: str


class GetAssetByUri(Message, kw_only=True, frozen=True):
    uri: str


class GetAssetsByAlias(Message, kw_only=True, frozen=True):
    alias_name: str


class GetAssetEventByAsset(Message, kw_only=True, frozen=True):
    name: str | None = None
    uri: str | None = None
    after: Aware | None = None
    before: Aware | None = None
    limit: int | None = None
    ascending: bool = True
    extra: dict[str, str] | None = None
    partition_key: str | None = None
    partition_key_regexp_pattern: str | None = None


class GetAssetEventByAssetAlias(Message, kw_only=True, frozen=True):
    alias_name: str
    after: Aware | None = None
    before: Aware | None = None
    limit: int | None = None
    ascending: bool = True
    extra: dict[str, str] | None = None
    partition_key: str | None = None
    partition_key_regexp_pattern: str | None = None


class GetAssetStateStoreByName(Message, kw_only=True, frozen=True):
    name: str
    key: str


class GetAssetStateStoreByUri(Message, kw_only=True, frozen=True):
    uri: str
    key: str


class SetAssetStateStoreByName(Message, kw_only=True, frozen=True):
    name: str
    key: str
    value: Any


class SetAssetStateStoreByUri(Message, kw_only=True, frozen=True):
    uri: str
    key: str
    value: Any


class DeleteAssetStateStoreByName(Message, kw_only=True, frozen=True):
    name: str
    key: str


class DeleteAssetStateStoreByUri(Message, kw_only=True, frozen=True):
    uri: str
    key: str


class ClearAssetStateStoreByName(Message, kw_only=True, frozen=True):
    name: str


class ClearAssetStateStoreByUri(Message, kw_only=True, frozen=True):
    uri: str


# People, and what only a Python runtime can use.


class CreateHITLDetailPayload(Message, kw_only=True, frozen=True):
    ti_id: str
    options: list[str]
    subject: str
    body: str | None = None
    defaults: list[str] | None = None
    multiple: bool | None = False
    params: dict[str, Any] | None = None
    assigned_users: list[dict[str, Any]] | None = None


class UpdateHITLDetail(Message, kw_only=True, frozen=True):
    ti_id: str
    chosen_options: list[str]
    params_input: dict[str, Any] | None = None


class GetHITLDetailResponse(Message, kw_only=True, frozen=True):
    ti_id: str


class ResendLoggingFD(Message, kw_only=True, frozen=True):
    pass


REQUEST_TYPES: dict[str, type[Message]] = {cls.__name__: cls for cls in Message.__subclasses__()}
"""Every message a runtime may send, by its `type`."""

TERMINAL_TYPES = (SucceedTask, RetryTask, TaskState, DeferTask, RescheduleTask, AwaitInputTask)
"""The messages that say how the task ended."""

Terminal = SucceedTask | RetryTask | TaskState | DeferTask | RescheduleTask | AwaitInputTask


class MessageError(Exception):
    """A frame's body is not a message; the channel itself is still sound."""


class _Typed(msgspec.Struct):
    type: str | None = None


_type_decoder = msgspec.msgpack.Decoder(_Typed)
_decoders: dict[str, msgspec.msgpack.Decoder[Message]] = {}


def decode_request(body: bytes) -> Message:
    """Decode the body of a runtime's frame.

    Raises:
        MessageError: no map, no `type`, an unknown `type`, a field that is missing or of another type, or a value that
            the Execution API could not be told exactly.
    """
    try:
        name = _type_decoder.decode(body).type
    except UNREADABLE as error:
        raise MessageError(f"the body is not a map with a 'type': {error}") from None
    if name is None:
        raise MessageError("the body has no 'type'")
    decoder = _decoders.get(name)
    if decoder is None:
        if name not in REQUEST_TYPES:
            raise MessageError(f"unknown message type {name!r}")
        decoder = _decoders[name] = msgspec.msgpack.Decoder(REQUEST_TYPES[name])
    try:
        message = decoder.decode(body)
    except UnicodeDecodeError as error:
        # as of half a surrogate pair, which JavaScript's texts may hold
        part = bytes(error.object[error.start : error.start + 3]).hex(" ")
        raise MessageError(f"{name}: a text is not valid UTF-8, at the bytes {part}") from None
    except UNREADABLE as error:
        raise MessageError(f"{name}: {error}") from None
    problem = json_problem(message)
    if problem:
        raise MessageError(f"{name}: {problem}")
    return message
