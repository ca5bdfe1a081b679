"""The table: message of a runtime → call of the Execution API → answer. One row a message, no I/O.

Paths are below `/execution/` and follow Airflow's Task Execution API. Keys are URL-quoted. Where a status has a
meaning of its own (404 is CONNECTION_NOT_FOUND, 403 is PERMISSION_DENIED and never "not found"), the row says so;
every other refusal becomes API_SERVER_ERROR with its status code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

from polypod_bridge.comm import answers as a
from polypod_bridge.comm import messages as m
from polypod_bridge.comm.exact import UNREADABLE

NO_BODY: Any = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One HTTP request to the Execution API.

    Attributes:
        method: the HTTP method.
        path: relative to the API's base, already quoted.
        params: the query; a key may repeat.
        body: what to send as JSON, or NO_BODY.
    """

    method: str
    path: str
    params: tuple[tuple[str, str], ...] = ()
    body: Any = NO_BODY
    since: str = ""
    """What makes the call one of version 2026-10-30, in words: an older server would silently ignore it."""


@dataclass(frozen=True, slots=True)
class ApiReply:
    """What the Execution API answered: status, headers (lower-case names) and body."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def detail(self) -> Any:
        """Return the `detail` of an error body, the whole body if there is none, or None."""
        try:
            body = msgspec.json.decode(self.body)
        except UNREADABLE:
            text = self.body[:500].decode("utf-8", "replace")
            return text or None
        return body.get("detail", body) if isinstance(body, dict) else body

    def text(self) -> str:
        """Return the error in words, for a person."""
        detail = self.detail()
        if isinstance(detail, dict):
            return str(detail.get("message") or detail.get("reason") or detail)
        return str(detail) if detail else f"HTTP {self.status}"


@dataclass(frozen=True, slots=True)
class Row:
    """How one message is served.

    Attributes:
        call: builds the request.
        read: turns a successful reply into the answer; None answers with an empty body.
        on_status: answers for statuses that have a meaning of their own.
    """

    call: Callable[[Any], ApiCall]
    read: Callable[[Any, ApiReply], a.Answer | None]
    on_status: Mapping[int, Callable[[Any, ApiReply], a.Answer | None]] = field(default_factory=dict)


def interpret(row: Row, message: m.Message, reply: ApiReply) -> tuple[a.Answer | None, a.ErrorResponse | None]:
    """Return the body and the error of the frame that answers `message`."""
    special = row.on_status.get(reply.status)
    try:
        if special is not None:
            return special(message, reply), None
        if reply.ok:
            return row.read(message, reply), None
        return None, api_error(reply.status, reply.text(), reply.detail())
    except (*UNREADABLE, KeyError, TypeError, AttributeError) as error:
        return None, api_error(reply.status, f"the Execution API's answer could not be read: {error}", None)


def api_error(status: int | None, message: str, detail: Any = None) -> a.ErrorResponse:
    """Return the error that stands for a failed call; `status` is None if there was no answer at all."""
    return a.ErrorResponse(
        error="API_SERVER_ERROR", detail={"status_code": status, "message": message, "detail": detail}
    )


def seg(value: str) -> str:
    """Quote one path segment; "." and "..", which a URL would lose, too."""
    return value.replace(".", "%2E") if value in (".", "..") else quote(value, safe="")


def _iso(value: datetime) -> str:
    return value.isoformat()


def _query(**params: Any) -> tuple[tuple[str, str], ...]:
    """Build a query: None is left out, a list repeats its key, booleans are lower case."""
    pairs: list[tuple[str, str]] = []
    for name, value in params.items():
        for item in value if isinstance(value, list) else [value]:
            if item is None:
                continue
            if isinstance(item, bool):
                text = "true" if item else "false"
            else:
                text = _iso(item) if isinstance(item, datetime) else str(item)
            pairs.append((name, text))
    return tuple(pairs)


def _index(map_index: int | None) -> int | None:
    return map_index if map_index is not None and map_index >= 0 else None


def _fields(message: m.Message, *names: str) -> dict[str, Any]:
    return {name: getattr(message, name) for name in names}


def _ok(message: Any, reply: ApiReply) -> a.Answer:
    return a.OKResponse()


def _nothing(message: Any, reply: ApiReply) -> None:
    return None


def _as(answer: type[a.Answer]) -> Callable[[Any, ApiReply], a.Answer]:
    decoder = msgspec.json.Decoder(answer)
    return lambda message, reply: decoder.decode(reply.body)


def _value_as(answer: type[a.Answer], name: str) -> Callable[[Any, ApiReply], a.Answer]:
    """The reply's body is one bare JSON value: it becomes the answer's field `name`."""
    return lambda message, reply: msgspec.convert({name: msgspec.json.decode(reply.body)}, answer)


def _missing(error: str, *names: str) -> Callable[[Any, ApiReply], a.Answer]:
    return lambda message, reply: a.ErrorResponse(error=error, detail=_fields(message, *names))


def _denied(*names: str) -> Callable[[Any, ApiReply], a.Answer]:
    return lambda message, reply: a.ErrorResponse(
        error="PERMISSION_DENIED", detail={**_fields(message, *names), "status_code": reply.status}
    )


def _xcom(msg: Any, suffix: str = "") -> str:
    return f"xcoms/{seg(msg.dag_id)}/{seg(msg.run_id)}/{seg(msg.task_id)}/{seg(msg.key)}{suffix}"


def _xcom_count(message: Any, reply: ApiReply) -> a.Answer:
    # the API counts in a header of its own unit: "map_indexes 3"
    unit, _, number = reply.headers.get("content-range", "").partition(" ")
    if unit != "map_indexes":
        raise ValueError(f"no 'map_indexes N' in Content-Range {reply.headers.get('content-range')!r}")
    return a.XComCountResponse(len=int(number))


def _assets_by_alias(message: Any, reply: ApiReply) -> a.Answer:
    return a.AssetsByAliasResult(assets=msgspec.json.decode(reply.body, type=list[a.AssetResult]))


def _dag_run_exists(message: m.TriggerDagRun, reply: ApiReply) -> a.Answer:
    return a.ErrorResponse(error="DAGRUN_ALREADY_EXISTS")


def _trigger(msg: m.TriggerDagRun) -> ApiCall:
    body = {k: v for k, v in _fields(msg, "logical_date", "run_after", "partition_key", "note").items() if v}
    if msg.reset_dag_run:
        body["reset_dag_run"] = True
    return ApiCall("POST", f"dag-runs/{seg(msg.dag_id)}/{seg(msg.run_id)}", body={"conf": msg.conf or {}, **body})


def _set_xcom(msg: m.SetXCom) -> ApiCall:
    params = _query(
        map_index=_index(msg.map_index),
        dag_result=msg.dag_result or None,
        mapped_length=_index(msg.mapped_length),
    )
    return ApiCall("POST", _xcom(msg), params, msg.value)


def _asset_store(by: str, op: str, method: str) -> Callable[[Any], ApiCall]:
    def call(msg: Any) -> ApiCall:
        params = _query(**{by: getattr(msg, by)}, key=getattr(msg, "key", None))
        body = {"value": msg.value} if method == "PUT" else NO_BODY
        return ApiCall(method, f"store/asset/by-{by}/{op}", params, body)

    return call


_ASSET_FILTERS = ("extra", "partition_key", "partition_key_regexp_pattern")


def _asset_events(msg: m.GetAssetEventByAsset | m.GetAssetEventByAssetAlias) -> ApiCall:
    filters = [name for name in _ASSET_FILTERS if getattr(msg, name)]
    common = _query(
        after=msg.after,
        before=msg.before,
        ascending=msg.ascending,
        limit=msg.limit,
        partition_key=msg.partition_key,
        partition_key_regexp_pattern=msg.partition_key_regexp_pattern,
        extra=[f"{key}={value}" for key, value in (msg.extra or {}).items()],
    )
    since = f"the asset event filter {filters[0]}" if filters else ""
    if isinstance(msg, m.GetAssetEventByAsset):
        # the server wants both, and takes an empty one for "whichever"
        named = _query(name=msg.name or "", uri=msg.uri or "")
        return ApiCall("GET", "asset-events/by-asset", named + common, since=since)
    return ApiCall("GET", "asset-events/by-asset-alias", _query(name=msg.alias_name) + common, since=since)


def _read_xcom(msg: Any, method: str = "GET", suffix: str = "", **params: Any) -> ApiCall:
    """Return the call that reads an XCom, of the previous iteration if that is asked for."""
    previous = msg.previous_iteration
    query = _query(**params, previous_iteration=previous or None)
    return ApiCall(method, _xcom(msg, suffix), query, since="previous_iteration" if previous else "")


def _counted(path: str, *names: str) -> Callable[[Any], ApiCall]:
    def call(msg: Any) -> ApiCall:
        params = _fields(msg, *names)
        if "map_index" in params:
            params["map_index"] = _index(params["map_index"])
        return ApiCall("GET", path, _query(dag_id=msg.dag_id, **params))

    return call


_TI_FILTER = ("map_index", "task_ids", "task_group_id", "logical_dates", "run_ids")
_KEY = ("dag_id", "run_id", "task_id", "key")


def rows(ti_id: str) -> dict[type[m.Message], Row]:
    """Return the table for the task instance `ti_id`: a row for each message that is one API call."""
    ti = f"task-instances/{ti_id}"
    return {
        m.GetConnection: Row(
            lambda x: ApiCall("GET", f"connections/{seg(x.conn_id)}"),
            _as(a.ConnectionResult),
            {
                404: _missing("CONNECTION_NOT_FOUND", "conn_id"),
                401: _denied("conn_id"),
                403: _denied("conn_id"),
            },
        ),
        m.GetVariable: Row(
            lambda x: ApiCall("GET", f"variables/{seg(x.key)}"),
            _as(a.VariableResult),
            {404: _missing("VARIABLE_NOT_FOUND", "key"), 401: _denied("key"), 403: _denied("key")},
        ),
        m.GetVariableKeys: Row(
            lambda x: ApiCall("GET", "variables/keys", _query(limit=x.limit, offset=x.offset, prefix=x.prefix)),
            _as(a.VariableKeysResult),
        ),
        m.PutVariable: Row(
            lambda x: ApiCall("PUT", f"variables/{seg(x.key)}", body={"val": x.value, "description": x.description}),
            _nothing,
        ),
        m.DeleteVariable: Row(lambda x: ApiCall("DELETE", f"variables/{seg(x.key)}"), _ok),
        m.GetXCom: Row(
            lambda x: _read_xcom(x, map_index=_index(x.map_index), include_prior_dates=x.include_prior_dates or None),
            _as(a.XComResult),
            # an XCom that nobody pushed reads as None, as in Airflow
            {404: lambda x, reply: a.XComResult(key=x.key, value=None)},
        ),
        m.GetXComCount: Row(lambda x: _read_xcom(x, "HEAD"), _xcom_count),
        m.GetXComSequenceItem: Row(
            lambda x: _read_xcom(x, suffix=f"/item/{x.offset}"),
            _value_as(a.XComSequenceIndexResult, "root"),
            {404: _missing("XCOM_NOT_FOUND", *_KEY, "offset")},
        ),
        m.GetXComSequenceSlice: Row(
            lambda x: _read_xcom(
                x,
                suffix="/slice",
                start=x.start,
                stop=x.stop,
                step=x.step,
                include_prior_dates=x.include_prior_dates or None,
            ),
            _value_as(a.XComSequenceSliceResult, "root"),
        ),
        m.SetXCom: Row(_set_xcom, _nothing),
        m.DeleteXCom: Row(lambda x: ApiCall("DELETE", _xcom(x), _query(map_index=_index(x.map_index))), _nothing),
        m.SetRenderedFields: Row(
            lambda x: ApiCall("PUT", f"{ti}/rtif", body=x.rendered_fields),
            _nothing,
            # the server archived this try meanwhile; a late overwrite has nothing left to write to
            {410: _nothing},
        ),
        m.SetRenderedMapIndex: Row(
            lambda x: ApiCall("PATCH", f"{ti}/rendered-map-index", body=x.rendered_map_index), _nothing
        ),
        m.SkipDownstreamTasks: Row(
            lambda x: ApiCall("PATCH", f"{ti}/skip-downstream", body={"tasks": x.tasks}), _nothing
        ),
        m.ValidateInletsAndOutlets: Row(
            lambda x: ApiCall("GET", f"task-instances/{seg(x.ti_id)}/validate-inlets-and-outlets"),
            _as(a.InactiveAssetsResult),
        ),
        m.GetPrevSuccessfulDagRun: Row(
            lambda x: ApiCall("GET", f"{ti}/previous-successful-dagrun"), _as(a.PrevSuccessfulDagRunResult)
        ),
        m.GetTaskRescheduleStartDate: Row(
            lambda x: ApiCall("GET", f"task-reschedules/{seg(x.ti_id)}/start_date", _query(try_number=x.try_number)),
            _value_as(a.TaskRescheduleStartDate, "start_date"),
        ),
        m.GetTaskStateStore: Row(
            lambda x: ApiCall("GET", f"store/ti/{seg(x.ti_id)}/{seg(x.key)}"),
            _as(a.TaskStateStoreResult),
            {404: _missing("TASK_STORE_NOT_FOUND", "key")},
        ),
        m.SetTaskStateStore: Row(
            lambda x: ApiCall(
                "PUT",
                f"store/ti/{seg(x.ti_id)}/{seg(x.key)}",
                body={"value": x.value, "expires_at": x.expires_at},
            ),
            _ok,
        ),
        m.DeleteTaskStateStore: Row(lambda x: ApiCall("DELETE", f"store/ti/{seg(x.ti_id)}/{seg(x.key)}"), _ok),
        m.ClearTaskStateStore: Row(lambda x: ApiCall("DELETE", f"store/ti/{seg(x.ti_id)}"), _ok),
        m.TriggerDagRun: Row(_trigger, _ok, {409: _dag_run_exists}),
        m.UpdateDagRunNote: Row(
            lambda x: ApiCall(
                "PATCH",
                f"task-instances/{seg(x.ti_id)}/dag-run-note",
                body={"note": x.note},
                since="UpdateDagRunNote",
            ),
            _ok,
        ),
        m.GetDagRun: Row(lambda x: ApiCall("GET", f"dag-runs/{seg(x.dag_id)}/{seg(x.run_id)}"), _as(a.DagRunResult)),
        m.GetDagRunState: Row(
            lambda x: ApiCall("GET", f"dag-runs/{seg(x.dag_id)}/{seg(x.run_id)}/state"),
            _as(a.DagRunStateResult),
        ),
        m.GetDRCount: Row(
            _counted("dag-runs/count", "logical_dates", "run_ids", "states"), _value_as(a.DRCount, "count")
        ),
        m.GetTICount: Row(_counted("task-instances/count", *_TI_FILTER, "states"), _value_as(a.TICount, "count")),
        m.GetTaskStates: Row(_counted("task-instances/states", *_TI_FILTER), _as(a.TaskStatesResult)),
        m.GetTaskBreadcrumbs: Row(
            lambda x: ApiCall("GET", "task-instances/breadcrumbs", _query(dag_id=x.dag_id, run_id=x.run_id)),
            _as(a.TaskBreadcrumbsResult),
        ),
        m.GetPreviousDagRun: Row(
            lambda x: ApiCall(
                "GET",
                "dag-runs/previous",
                _query(dag_id=x.dag_id, logical_date=x.logical_date, state=x.state),
            ),
            _value_as(a.PreviousDagRunResult, "dag_run"),
        ),
        m.GetPreviousTI: Row(
            lambda x: ApiCall(
                "GET",
                f"task-instances/previous/{seg(x.dag_id)}/{seg(x.task_id)}",
                _query(map_index=x.map_index, logical_date=x.logical_date, state=x.state),
            ),
            _value_as(a.PreviousTIResult, "task_instance"),
        ),
        m.GetDag: Row(lambda x: ApiCall("GET", f"dags/{seg(x.dag_id)}"), _as(a.DagResult)),
        m.GetAssetByName: Row(
            lambda x: ApiCall("GET", "assets/by-name", _query(name=x.name)),
            _as(a.AssetResult),
            {404: _missing("ASSET_NOT_FOUND", "name")},
        ),
        m.GetAssetByUri: Row(
            lambda x: ApiCall("GET", "assets/by-uri", _query(uri=x.uri)),
            _as(a.AssetResult),
            {404: _missing("ASSET_NOT_FOUND", "uri")},
        ),
        m.GetAssetsByAlias: Row(
            lambda x: ApiCall("GET", "assets/by-alias", _query(alias_name=x.alias_name)), _assets_by_alias
        ),
        m.GetAssetEventByAsset: Row(_asset_events, _as(a.AssetEventsResult)),
        m.GetAssetEventByAssetAlias: Row(_asset_events, _as(a.AssetEventsResult)),
        m.GetAssetStateStoreByName: Row(
            _asset_store("name", "value", "GET"),
            _as(a.AssetStateStoreResult),
            {404: _missing("ASSET_STORE_NOT_FOUND", "key")},
        ),
        m.GetAssetStateStoreByUri: Row(
            _asset_store("uri", "value", "GET"),
            _as(a.AssetStateStoreResult),
            {404: _missing("ASSET_STORE_NOT_FOUND", "key")},
        ),
        m.SetAssetStateStoreByName: Row(_asset_store("name", "value", "PUT"), _ok),
        m.SetAssetStateStoreByUri: Row(_asset_store("uri", "value", "PUT"), _ok),
        m.DeleteAssetStateStoreByName: Row(_asset_store("name", "value", "DELETE"), _ok),
        m.DeleteAssetStateStoreByUri: Row(_asset_store("uri", "value", "DELETE"), _ok),
        m.ClearAssetStateStoreByName: Row(_asset_store("name", "clear", "DELETE"), _ok),
        m.ClearAssetStateStoreByUri: Row(_asset_store("uri", "clear", "DELETE"), _ok),
        m.CreateHITLDetailPayload: Row(
            lambda x: ApiCall("POST", f"hitlDetails/{seg(x.ti_id)}", body=_without_nulls(x)),
            _as(a.HITLDetailRequestResult),
        ),
        m.UpdateHITLDetail: Row(
            lambda x: ApiCall("PATCH", f"hitlDetails/{seg(x.ti_id)}", body=_without_nulls(x)),
            _as(a.HITLDetailResponse),
        ),
        m.GetHITLDetailResponse: Row(
            lambda x: ApiCall("GET", f"hitlDetails/{seg(x.ti_id)}"), _as(a.HITLDetailResponse)
        ),
        **{kind: Row(lambda x: state_call(ti_id, x), _nothing) for kind in m.TERMINAL_TYPES},
    }


LOCAL_TYPES: frozenset[type[m.Message]] = frozenset({m.MaskSecret, m.SetExecutionTimeout, m.ResendLoggingFD})
"""Messages that the supervisor answers by itself."""


def _body(message: m.Message) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(message)
    del fields["type"]
    return fields


def _without_nulls(message: m.Message) -> dict[str, Any]:
    # the API has defaults of its own, and takes no null in their place
    return {key: value for key, value in _body(message).items() if value is not None}


NEWER_STATE_FIELDS: dict[type[m.Message], tuple[str, ...]] = {
    m.SucceedTask: ("loop_decision",),
    m.TaskState: ("loop_decision", "retry_reason"),
}
"""Fields of terminal messages that a server older than 2026-10-30 refuses."""


def unknown_to_older(message: m.Message) -> list[str]:
    """Return the fields of a terminal message that are set and that an older server cannot be told."""
    return [name for name in NEWER_STATE_FIELDS.get(type(message), ()) if getattr(message, name) is not None]


def speaks_2026_10_30(reply: ApiReply) -> bool:
    """Tell from a server's answer to `run` whether it speaks version 2026-10-30."""
    try:
        return msgspec.json.decode(reply.body, type=a.TIRunContext).is_of_2026_10_30
    except UNREADABLE:
        return False


def terminated_call(ti_id: str, hostname: str, pid: int, when: datetime) -> ApiCall:
    """Return the call by which a server of version 2026-10-30 hears that a task it gave up has ended.

    Args:
        hostname: the one that `run` was called with, like the pid.
    """
    body = {"state": "server_terminated", "end_date": when, "hostname": hostname, "pid": pid}
    return ApiCall("PATCH", f"task-instances/{ti_id}/state", body=body)


def state_call(ti_id: str, message: m.Message, *, newest: bool = True) -> ApiCall:
    """Return the call that reports a terminal message.

    Args:
        newest: whether the server speaks version 2026-10-30; to an older one the fields of that version are not sent.
    """
    body = _body(message)
    for name in NEWER_STATE_FIELDS.get(type(message), ()):
        if body[name] is None or not newest:
            del body[name]
    if isinstance(message, m.SucceedTask):
        # the API takes lists here, never null
        body["task_outlets"] = message.task_outlets or []
        body["outlet_events"] = message.outlet_events or []
    elif isinstance(message, m.DeferTask | m.AwaitInputTask):
        body = {k: v for k, v in body.items() if v is not None}
    return ApiCall("PATCH", f"task-instances/{ti_id}/state", body=body)


def run_call(ti_id: str, hostname: str, unixname: str, pid: int, start_date: datetime) -> ApiCall:
    """Return the call that asks the API's leave to run the task."""
    body = {
        "state": "running",
        "hostname": hostname,
        "unixname": unixname,
        "pid": pid,
        "start_date": start_date,
    }
    return ApiCall("PATCH", f"task-instances/{ti_id}/run", body=body)


def heartbeat_call(ti_id: str, hostname: str, pid: int) -> ApiCall:
    """Return the call that says the task still runs."""
    return ApiCall("PUT", f"task-instances/{ti_id}/heartbeat", body={"hostname": hostname, "pid": pid})
