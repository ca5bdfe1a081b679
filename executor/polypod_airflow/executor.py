"""The executor: each workload of Airflow's becomes a TaskRun, and Polypod's operator runs it as a pod.

Airflow's scheduler gives every queueing of a task instance a UUID (`external_executor_id`); the TaskRun is named after
it. So a scheduler that starts anew finds what an earlier one has made, and nothing is made twice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from queue import Empty
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf
from airflow.executors.base_executor import BaseExecutor
from airflow.executors.workloads import ExecuteTask

from polypod_airflow.cluster import Cluster, ClusterError
from polypod_airflow.connection import ConnectionProblem, connection
from polypod_airflow.creator import Absent, Creator, Made, Refused
from polypod_airflow.informer import Gone, Informer, Listed, Seen
from polypod_airflow.settings import settings
from polypod_airflow.taskruns import PREFIX, Work, collection
from polypod_airflow.verdicts import Event, TaskRun, Verdict, lost, problem, verdict

if TYPE_CHECKING:
    from airflow.cli.cli_config import GroupCommand
    from airflow.models.taskinstance import TaskInstance

log = logging.getLogger(__name__)

_NEW_KEYS = hasattr(BaseExecutor, "get_task_key")
"""Airflow 3.4: a task's key is the task instance's UUID."""
_SECTION = "polypod"
_FIRST_LIST = 20.0
_END_WITHIN = 20.0
_LOG_LINES = "2000"
_NEWS_AT_ONCE = 2_000
"""News that a scheduler's loop takes at most: the rest comes with the next one."""


class PolypodExecutor(BaseExecutor):
    """Runs the tasks of mapped queues as TaskRuns."""

    pre_assigns_external_executor_id = True
    supports_task_instance_uuid = True
    supports_ad_hoc_ti_run = False

    # Every process that shows a log makes an executor: nothing is connected before `start`.
    _cluster: Cluster | None = None

    def start(self) -> None:
        """Connect to the API server, and begin to watch."""
        self._settings = settings(self._cluster_for_logs().namespace)
        self._names: dict[Any, str] = {}
        self._keys: dict[str, Any] = {}
        self._made: set[str] = set()
        self._told: dict[str, str] = {}
        self._again: list[TaskRun] = []
        cluster = self._cluster_for_logs()
        self._informer = Informer(cluster, self._settings)
        self._creator = Creator(cluster, self._settings)
        self._creator.start()
        self._informer.start()

    def _cluster_for_logs(self) -> Cluster:
        if self._cluster is None:
            self._cluster = Cluster(connection(conf.get(_SECTION, "kubeconfig", fallback="")))
        return self._cluster

    # What Airflow asks for.

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        works = []
        for workload in workload_items:
            if not isinstance(workload, ExecuteTask):
                raise TypeError(f"PolypodExecutor runs tasks, and no {type(workload).__name__}")
            key = self._key(workload.ti)
            self._unqueue(key)
            work = work_of(workload)
            # of a task that was resumed, the end of the TaskRun before is of no interest any more
            self._forget(key)
            self.running.add(key)
            self._names[key], self._keys[work.name] = work.name, key
            works.append(work)
        self._creator.create(works)

    def sync(self) -> None:
        """Tell the scheduler what it cannot know; never waits for the API server."""
        for run in self._again:
            self._saw(run)
        self._again.clear()
        for result in _drain(self._creator.results):
            match result:
                case Made(name) if name in self._keys:
                    self._made.add(name)
                case Refused(name, why, for_good):
                    self._tell(name, why)
                    if for_good:
                        self._ended(name, Verdict(Event.FAILED, why))
                case Absent(name):
                    self._ended(name, lost(name))
        for news in _drain(self._informer.news):
            match news:
                case Seen(run):
                    self._saw(run)
                case Gone(run):
                    self._ended(run.name, verdict(run) or lost(run.name))
                case Listed(names):
                    # one that was made meanwhile is in no list yet, so each is asked for
                    for name in self._made - names:
                        self._creator.look_for(name)

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """Take over what an earlier scheduler has started; return what was never started, or is gone."""
        listed = self._informer.listed.wait(_FIRST_LIST)
        left = []
        for ti in tis:
            name = f"{PREFIX}{ti.external_executor_id}"
            run = self._informer.get(name)
            if not ti.external_executor_id or (run is None and listed):
                left.append(ti)
                continue
            key = self._key(ti)
            self.running.add(key)
            self._names[key], self._keys[name] = name, key
            self._made.add(name)
            if run is not None:
                self._again.append(run)
            else:
                # the API server is away: to reset it would run it twice
                self._creator.look_for(name)
        return left

    def revoke_task(self, *, ti: TaskInstance) -> None:
        """Give up what has been queued for too long; the scheduler goes on with it."""
        key = self._key(ti)
        self._unqueue(key)
        self.running.discard(key)
        name = self._forget(key)
        if name is not None:
            self._creator.delete(name)

    def get_task_log(self, ti: TaskInstance, try_number: int) -> tuple[list[str], list[str]]:
        """Return what a task has logged so far: from its pod."""
        name = f"{PREFIX}{ti.external_executor_id}"
        try:
            cluster = self._cluster_for_logs()
            namespace = settings(cluster.namespace).namespace
            raw = cluster.call("GET", collection(namespace, name), attempts=1)
            pod = _decode(raw).last.pod_name
            if not pod:
                return [f"Polypod: TaskRun {namespace}/{name} has no pod yet"], []
            params = {"container": "bridge", "tailLines": _LOG_LINES}
            text = cluster.call("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}/log", params=params, attempts=1)
        except (ClusterError, ConnectionProblem) as error:
            return [f"Polypod: the log of TaskRun {name} cannot be read: {error}"], []
        return [f"Polypod: pod {namespace}/{pod}"], [text.decode("utf-8", "replace")]

    def end(self) -> None:
        """Finish what was asked for. What runs goes on, and the next scheduler takes it over."""
        self._informer.close()
        self._creator.close(_END_WITHIN)
        self._cluster_for_logs().close()

    def terminate(self) -> None:
        self.end()

    @staticmethod
    def get_cli_commands() -> list[GroupCommand]:
        """Return `airflow polypod …`."""
        from polypod_airflow.cli import commands

        return commands()

    # What is seen.

    def _saw(self, run: TaskRun) -> None:
        found = verdict(run)
        if found is not None:
            self._ended(run.name, found)
        elif (trouble := problem(run)) != "":
            self._tell(run.name, trouble)

    def _tell(self, name: str, trouble: str) -> None:
        """Write into Airflow's audit log what keeps a task waiting, once."""
        key = self._keys.get(name)
        if key is not None and self._told.get(name) != trouble:
            self._told[name] = trouble
            self.log_task_event(event="polypod", extra=trouble, ti_key=key)

    def _ended(self, name: str, found: Verdict) -> None:
        key = self._keys.get(name)
        if key is None:
            return
        self._forget(key)
        match found.event:
            case Event.NONE:
                self.running.discard(key)
            case Event.SUCCESS:
                self.success(key, info=found.info)
            case Event.FAILED:
                self.fail(key, info=found.info)

    def _forget(self, key: Any) -> str | None:
        name = self._names.pop(key, None)
        if name is not None:
            self._keys.pop(name, None)
            self._told.pop(name, None)
            self._made.discard(name)
        return name

    def _key(self, ti: Any) -> Any:
        return self.get_task_key(ti) if _NEW_KEYS else ti.key

    def _unqueue(self, key: Any) -> None:
        queue = self.executor_queues[ExecuteTask.model_fields["type"].default] if _NEW_KEYS else self.queued_tasks
        queue.pop(key, None)


def work_of(workload: ExecuteTask) -> Work:
    """Return what is needed of a workload."""
    ti = workload.ti
    return Work(
        external_id=str(ti.external_executor_id),
        queue=ti.queue,
        dag_id=ti.dag_id,
        task_id=ti.task_id,
        run_id=ti.run_id,
        map_index=ti.map_index if ti.map_index is not None else -1,
        priority=ti.priority_weight,
        document=workload.model_dump_json(),
        pod_template=(ti.executor_config or {}).get("pod_template") or {},
    )


def _drain(news: Any) -> Iterable[Any]:
    for _ in range(_NEWS_AT_ONCE):
        try:
            yield news.get_nowait()
        except Empty:
            return


def _decode(raw: bytes) -> TaskRun:
    import msgspec

    return msgspec.json.decode(raw, type=TaskRun)
