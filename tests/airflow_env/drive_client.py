"""Runs inside the environment of a real Airflow: its own client drives an Execution API through every endpoint.

Prints one JSON object: operation → what it returned, or the error it raised.
"""

import json
import os
import sys
import uuid
from datetime import UTC, datetime, timedelta

OUT = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from airflow.sdk.api.client import Client, ServerResponseError  # noqa: E402
from airflow.sdk.execution_time import comms  # noqa: E402

url, ti_id, token, other_id, put_off_id, put_off_token = sys.argv[1:7]
client = Client(base_url=url, token=token)
ti_id, other_id, put_off_id = uuid.UUID(ti_id), uuid.UUID(other_id), uuid.UUID(put_off_id)
put_off = Client(base_url=url, token=put_off_token).task_instances
now = datetime.now(UTC)
dag, run, task = "conformance", "run-1", "driven"
results = {}


def note(name, call):
    try:
        value = call()
    except ServerResponseError as error:
        value = {"status": error.response.status_code, "detail": error.detail}
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json", by_alias=True)
    results[name] = value


tis, xcoms, variables, store = client.task_instances, client.xcoms, client.variables, client.task_state_store
note("start", lambda: tis.start(ti_id, 42, now))
note("start again", lambda: tis.start(ti_id, 42, now))
note("heartbeat", lambda: tis.heartbeat(ti_id, 42))
note("heartbeat of another process", lambda: tis.heartbeat(ti_id, 43))
note("heartbeat of another task", lambda: tis.heartbeat(other_id, 42))
note("rtif", lambda: tis.set_rtif(ti_id, {"field": "value"}))
note("map index", lambda: tis.set_rendered_map_index(ti_id, "a label"))
note("previous successful run", lambda: tis.get_previous_successful_dagrun(ti_id))
note("reschedule", lambda: tis.get_reschedule_start_date(ti_id))
note("count", lambda: tis.get_count(dag, task_ids=[task], run_ids=[run], states=["running"]))
note("count of a map index", lambda: tis.get_count(dag, map_index=3))
note("states", lambda: tis.get_task_states(dag, run_ids=[run]))
note("breadcrumbs", lambda: tis.get_task_breakcrumbs(dag, run))
note("previous ti", lambda: tis.get_previous(dag, task, logical_date=now + timedelta(days=1)))
note("inlets", lambda: tis.validate_inlets_and_outlets(ti_id))
note("skip downstream", lambda: tis.skip_downstream_tasks(ti_id, comms.SkipDownstreamTasks(tasks=["other"])))
note("connection", lambda: client.connections.get("conformance_db"))
note("no connection", lambda: client.connections.get("none"))
note("variable", lambda: variables.get("conformance_in"))
note("no variable", lambda: variables.get("none"))
note("set variable", lambda: variables.set("a/b", "text", "description"))
note("set variable again", lambda: variables.set("a/b", None))
note("variable keys", lambda: variables.keys(prefix="a", limit=10))
note("delete variable", lambda: variables.delete("a/b"))
note("delete variable again", lambda: variables.delete("a/b"))
for index in range(4):
    note(f"set xcom {index}", lambda i=index: xcoms.set(dag, run, task, "mapped", {"n": i}, i, mapped_length=4))
note("set xcom", lambda: xcoms.set(dag, run, task, "a/key", [1, None, "ü"], dag_result=True))
note("get xcom", lambda: xcoms.get(dag, run, task, "a/key"))
note("get mapped xcom", lambda: xcoms.get(dag, run, task, "mapped", 2))
note("get prior xcom", lambda: xcoms.get(dag, run, task, "a/key", include_prior_dates=True))
note("no xcom", lambda: xcoms.get(dag, run, task, "none"))
note("xcom count", lambda: xcoms.head(dag, run, task, "mapped"))
note("xcom item", lambda: xcoms.get_sequence_item(dag, run, task, "mapped", -1))
note("no xcom item", lambda: xcoms.get_sequence_item(dag, run, task, "mapped", 9))
for bounds in ((None, None, None), (1, 3, None), (-2, None, None), (None, None, -1), (3, 0, -2), (0, -1, 2)):
    note(f"xcom slice {bounds}", lambda b=bounds: xcoms.get_sequence_slice(dag, run, task, "mapped", *b))
note("xcom of another run", lambda: xcoms.get(dag, "run-2", task, "a/key"))
note("set xcom of another task", lambda: xcoms.set(dag, run, "other", "k", 1))
note("delete xcom", lambda: xcoms.delete(dag, run, task, "a/key"))
note("deleted xcom", lambda: xcoms.get(dag, run, task, "a/key"))
note("store set", lambda: store.set(ti_id, "a/key", {"x": 1}, None))
note("store set, ended", lambda: store.set(ti_id, "old", 1, now - timedelta(seconds=1)))
note("store get", lambda: store.get(ti_id, "a/key"))
note("store get, ended", lambda: store.get(ti_id, "old"))
note("store delete", lambda: store.delete(ti_id, "a/key"))
note("store clear", lambda: store.clear(ti_id))
note("store of another", lambda: store.get(other_id, "a/key"))
note("dag run", lambda: client.dag_runs.get_detail(dag, run))
note("dag run state", lambda: client.dag_runs.get_state(dag, run))
note("dag run count", lambda: client.dag_runs.get_count(dag, run_ids=[run], states=["running"]))
note("previous dag run", lambda: client.dag_runs.get_previous(dag, now))
note("dag run of another dag", lambda: client.dag_runs.get_state("else", run))
note("dag", lambda: client.dags.get(dag))
note("trigger", lambda: client.dag_runs.trigger(dag, "new"))
note("asset", lambda: client.assets.get(name="a"))
note("asset alias", lambda: client.assets.get_by_alias("a"))
note("asset events", lambda: client.asset_events.get(name="a"))
note("asset store", lambda: client.asset_state_store.get("k", name="a"))
note("asset store set", lambda: client.asset_state_store.set("k", 1, uri="u"))
note("asset store clear", lambda: client.asset_state_store.clear(name="a"))
note("hitl", lambda: client.hitl.get_detail_response(ti_id))
note("defer", lambda: tis.defer(ti_id, comms.DeferTask(classpath="c", next_method="n")))
note("put off: start", lambda: put_off.start(put_off_id, 42, now))
note("put off", lambda: put_off.reschedule(put_off_id, comms.RescheduleTask(reschedule_date=now, end_date=now)))
note("put off again", lambda: put_off.reschedule(put_off_id, comms.RescheduleTask(reschedule_date=now, end_date=now)))
if hasattr(tis, "update_dagrun_note"):
    note("dag run note", lambda: tis.update_dagrun_note(ti_id, "a note"))
    note("previous iteration", lambda: xcoms.get(dag, run, task, "mapped", 2, previous_iteration=True))
    note("stopped", lambda: put_off.finish(put_off_id, "server_terminated", now, None, pid=42))
note("succeed", lambda: tis.succeed(ti_id, now, [], [], None))
note("succeed again", lambda: tis.succeed(ti_id, now, [], [], None))
note("fail after success", lambda: tis.finish(ti_id, "failed", now, None))
note("heartbeat after the end", lambda: tis.heartbeat(ti_id, 42))
note("retry of another", lambda: tis.retry(other_id, now, None, 1.0, "why"))
print(json.dumps(results, default=str), file=OUT, flush=True)
