"""The executor: each workload of Airflow's becomes a TaskRun, and Polypod's operator runs it as a pod.

Airflow's scheduler gives every queueing of a task instance a UUID (`external_executor_id`); the TaskRun is named after
it. So a scheduler that restarts finds what an earlier one has made, and nothing is made twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from queue import Empty
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf
from airflow.executors.base_executor import BaseExecutor
from airflow.executors.workloads import ExecuteCallback, ExecuteTask

from polypod_airflow.attempt_log import note
from polypod_airflow.callbacks import Callbacks, load_models
from polypod_airflow.cluster import Cluster, ClusterError
from polypod_airflow.connection import Connection, ConnectionProblem, connection
from polypod_airflow.creator import Absent, Creator, Made, Refused, unsendable, without_text
from polypod_airflow.informer import Gone, Informer, Listed, Seen
from polypod_airflow.leftovers import sweep
from polypod_airflow.obsolete import Watchman
from polypod_airflow.settings import settings
from polypod_airflow.task_log import running_log
from polypod_airflow.taskruns import PREFIX, Work
from polypod_airflow.template import TemplateProblem, pod_template
from polypod_airflow.verdicts import Event, TaskRun, Verdict, lost, problem, storable, verdict

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

_NEW_KEYS = hasattr(BaseExecutor, "get_task_key")
"""Airflow 3.4: a task's key is the task instance's UUID."""
_FIRST_LIST = 5.0
"""Seconds that an adoption waits for the first list of TaskRuns."""
_END_WITHIN = 20.0
_LOOK_FOR_OBSOLETE = 3.0
"""Seconds between two looks at what Airflow still wants of what waits."""
_NEWS_AT_ONCE = 2_000
"""News that a scheduler's loop takes at most: the rest comes with the next one."""


@dataclass(slots=True)
class _Held:
    """A TaskRun that this scheduler waits for.

    Attributes:
        key: Airflow's, of the task instance.
        log_path: where its log is; empty until it was seen, if another scheduler has made it.
        made: it was there at least once.
        started: it has a pod that runs, so the bridge hears what Airflow wants.
        told: the last problem that was written into the audit log.
        unwanted: Airflow did not want it any more when it was asked last.
    """

    key: Any
    log_path: str = ""
    made: bool = False
    started: bool = False
    told: str = ""
    unwanted: bool = False


class PolypodExecutor(BaseExecutor):
    """Runs the stub tasks of mapped queues as TaskRuns."""

    pre_assigns_external_executor_id = True
    supports_task_instance_uuid = True
    supports_ad_hoc_ti_run = False

    # Every process that shows a log makes an executor: nothing is connected before `start`.
    _cluster: Cluster | None = None

    def start(self) -> None:
        """Connect to the API server, and begin to watch."""
        load_models()
        cluster = self._connected()
        self._settings = settings(cluster)
        self._held: dict[str, _Held] = {}
        self._names: dict[Any, str] = {}
        self._again: list[TaskRun] = []
        self._audited: list[Any] = []
        """Entries for the audit log. Airflow 3.3.2 saves them with empty fields if nobody else refers to them: it hands
        SQLAlchemy a generator that drops each one before it is written."""
        self._looked = 0.0
        self._informer = Informer(cluster.another(), self._settings)
        self._creator = Creator(cluster, self._settings)
        self._watchman = Watchman()
        self._callbacks = Callbacks()
        self._callbacks.start()
        self._creator.start()
        self._informer.start()
        self._watchman.start()
        self._creator.carry_out(lambda: sweep(cluster, self._settings))

    def _connected(self) -> Cluster:
        if self._cluster is None:
            try:
                found = connection(conf.get("polypod", "kubeconfig", fallback=""))
            except ConnectionProblem as error:
                # the scheduler has other executors' tasks to run; ours wait, and say why
                log.error("PolypodExecutor cannot create TaskRuns: %s", error)
                found = Connection("", missing=str(error))
            self._cluster = Cluster(found)
        return self._cluster

    # What Airflow asks for.

    def queue_workload(self, workload: Any, session: Session) -> None:
        """Take a task; fail a callback, which is Python, in place of stopping the scheduler."""
        if isinstance(workload, ExecuteCallback):
            from airflow.utils.state import CallbackState

            key = self.get_workload_key(workload) if _NEW_KEYS else workload.key
            text = "PolypodExecutor runs no Python callbacks: name another executor first in [core] executor"
            log.error("callback %s: %s", key, text)
            self.event_buffer[key] = (CallbackState.FAILED, text)
            return
        super().queue_workload(workload, session)

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        works = []
        for workload in workload_items:
            key = self._key(workload.ti)
            self._unqueue(key)
            # of a task that was resumed, the end of the TaskRun before is of no interest any more
            self._forget(key)
            try:
                work = work_of(workload)
            except TemplateProblem as wrong:
                self._unsent(workload, f"InvalidPodTemplate: {wrong}")
                continue
            except Exception as error:
                # whatever a Dag or a plugin has put into it: the others go on
                log.error("the workload of %s cannot be sent: %s", key, without_text(error))
                self._unsent(workload, f"InvalidWorkload: {unsendable(error)}")
                continue
            self._hold(work.name, _Held(key, work.log_path))
            works.append(work)
        self._creator.create(works)

    def _unsent(self, workload: Any, why: str) -> None:
        """Fail a task whose TaskRun cannot even be asked for."""
        self.fail(self._key(workload.ti), storable(why))
        self._note(workload.log_path or "", f"{PREFIX}{workload.ti.external_executor_id}", why)

    def sync(self) -> None:
        """Tell the scheduler what it cannot know; never waits for the API server."""
        # the scheduler saves them after each loop
        self._audited.clear()
        for run in self._again:
            self._saw(run)
        self._again.clear()
        for result in _drain(self._creator.results):
            match result:
                case Made(name) if name in self._held:
                    self._held[name].made = True
                case Refused(name, why, for_good):
                    self._tell(name, why)
                    if for_good:
                        self._ended(name, Verdict(Event.FAILED, why, unlogged=True))
                case Absent(name):
                    self._ended(name, lost(name))
        for news in _drain(self._informer.news):
            match news:
                case Seen(run):
                    self._callbacks.saw(run)
                    self._saw(run)
                case Gone(run):
                    self._callbacks.gone(run)
                    self._know(run)
                    self._ended(run.name, verdict(run) or lost(run.name))
                case Listed(names):
                    self._callbacks.listed(names)
                    # one that was made meanwhile is in no list yet, so each is asked for
                    for name in [name for name, held in self._held.items() if held.made and name not in names]:
                        self._creator.look_for(name)
        self._give_up_obsolete()

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
            if name not in self._held:
                self._hold(name, _Held(self._key(ti), made=True))
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
        name = self._forget(key)
        if name is not None:
            self._creator.delete(name)

    def get_task_log(self, ti: TaskInstance, try_number: int) -> tuple[list[str], list[str]]:
        """Return what a task has logged so far: from its pod."""
        name = f"{PREFIX}{ti.external_executor_id}"
        try:
            cluster = self._connected()
            return running_log(cluster, settings(cluster).namespace, name)
        except ClusterError as error:
            return [f"TaskRun {name} cannot be read: {error}"], []

    def end(self) -> None:
        """Finish what was asked for. What runs goes on, and the next scheduler takes it over."""
        self._informer.close()
        self._watchman.close()
        self._callbacks.close()
        self._creator.close(_END_WITHIN)
        self._connected().close()

    def terminate(self) -> None:
        """End as `end` does."""
        self.end()

    # What is seen.

    def _know(self, run: TaskRun) -> _Held | None:
        held = self._held.get(run.name)
        if held is not None:
            held.made = True
            held.log_path = held.log_path or run.log_path
        return held

    def _saw(self, run: TaskRun) -> None:
        held = self._know(run)
        if held is None:
            return
        held.started = run.status.phase == "Running"
        found = verdict(run)
        if found is not None:
            self._ended(run.name, found)
        elif (trouble := problem(run)) != "":
            self._tell(run.name, trouble)

    def _tell(self, name: str, trouble: str) -> None:
        """Write into Airflow's audit log what keeps a task waiting, once."""
        held = self._held.get(name)
        if held is not None and held.told != trouble:
            held.told = trouble
            self.log_task_event(event="polypod", extra=storable(trouble), ti_key=held.key)
            self._audited.append(self._task_event_logs[-1])

    def _give_up_obsolete(self) -> None:
        """Delete what waits for its pod and is not wanted any more: cleared, marked or deleted in Airflow.

        Only if two looks in a row say so: a quick task reports its end to Airflow before its TaskRun shows that it ran.
        """
        for external_id in _drain(self._watchman.obsolete):
            name = f"{PREFIX}{external_id}"
            held = self._held.get(name)
            if held is None or held.started:
                continue
            if held.unwanted:
                self._forget(held.key)
                self._creator.delete(name)
            held.unwanted = True
        now = time.monotonic()
        if now - self._looked >= _LOOK_FOR_OBSOLETE:
            self._looked = now
            self._watchman.ask([name.removeprefix(PREFIX) for name, held in self._held.items() if not held.started])

    def _ended(self, name: str, found: Verdict) -> None:
        held = self._held.get(name)
        if held is None:
            return
        if found.unaudited:
            self._tell(name, found.info)
        self._forget(held.key)
        if found.event is Event.FAILED:
            self.fail(held.key, storable(found.info))
        elif found.event is Event.SUCCESS:
            self.success(held.key, storable(found.info))
        if found.unlogged:
            self._note(held.log_path, name, found.info)

    def _note(self, log_path: str, name: str, info: str) -> None:
        """Write why an attempt failed into its log, which nobody else does."""
        if log_path:
            self._creator.carry_out(lambda: note(log_path, name, storable(info)))

    # Who is held.

    def _hold(self, name: str, held: _Held) -> None:
        # a task instance has one TaskRun that counts: that of its last queueing
        self._forget(held.key)
        self._held[name] = held
        self._names[held.key] = name
        self.running.add(held.key)

    def _forget(self, key: Any) -> str | None:
        name = self._names.pop(key, None)
        self.running.discard(key)
        if name is not None:
            del self._held[name]
        return name

    def _key(self, ti: Any) -> Any:
        return self.get_task_key(ti) if _NEW_KEYS else ti.key

    def _unqueue(self, key: Any) -> None:
        queue = self.executor_queues[ExecuteTask.model_fields["type"].default] if _NEW_KEYS else self.queued_tasks
        queue.pop(key, None)


def work_of(workload: ExecuteTask) -> Work:
    """Return what is needed of a workload.

    Raises:
        TemplateProblem: its executor_config cannot be used.
    """
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
        pod_template=pod_template(ti.executor_config),
        log_path=workload.log_path or "",
    )


def _drain(news: Any) -> Iterable[Any]:
    for _ in range(_NEWS_AT_ONCE):
        try:
            yield news.get_nowait()
        except Empty:
            return
