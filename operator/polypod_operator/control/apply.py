"""From a decision to calls: what tells us more, the status, and then what the status has announced."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from polypod_core.states import FINISHED_PHASES

from polypod_operator.control.cache import Cache
from polypod_operator.control.corrections import Corrections
from polypod_operator.control.creation import PodCreation
from polypod_operator.control.history import History, HistoryUnavailable
from polypod_operator.control.log_fields import about
from polypod_operator.control.statuses import Statuses
from polypod_operator.control.telemetry import Telemetry
from polypod_operator.decide.decision import (
    Action,
    AskForEnded,
    CreatePod,
    Decision,
    DeletePod,
    DeleteTaskRun,
    Earlier,
    LookAtEvents,
    RecordEvent,
    VerifyPod,
)
from polypod_operator.decide.policy import POLICY
from polypod_operator.kube.api import KubernetesApi
from polypod_operator.model import objects
from polypod_operator.model.objects import TaskRunObject

log = logging.getLogger("polypod.operator")


LONGEST_WAIT = 3600.0
"""Seconds without a look at a TaskRun that something is due for: the clock may be set forward meanwhile."""


class Apply:
    """Carries decisions out."""

    def __init__(
        self,
        api: KubernetesApi,
        cache: Cache,
        creation: PodCreation,
        statuses: Statuses,
        history: History,
        telemetry: Telemetry,
        authority: Callable[[], str],
        corrections: Corrections,
    ) -> None:
        """Take over; `authority` returns the certificates to trust in the Execution API, PEM."""
        self._api, self._cache, self._creation, self._statuses = api, cache, creation, statuses
        self._history, self._telemetry, self._authority = history, telemetry, authority
        self._corrections = corrections

    async def find_out(self, run: TaskRunObject, decision: Decision, now: datetime) -> bool:
        """Carry out what changes what we know; return whether there was anything like that."""
        found = False
        for action in decision.actions:
            match action:
                case VerifyPod(namespace, name):
                    await self._creation.verify(run, namespace, name)
                case LookAtEvents(namespace, _, uid):
                    self._cache.store.put_look(uid, now, objects.telling(await self._api.events(namespace, uid)))
                case AskForEnded(task_ids):
                    await self._ask_for_ended(run, task_ids, now)
                case _:
                    continue
            found = True
        return found

    async def _ask_for_ended(self, run: TaskRunObject, task_ids: tuple[str, ...], now: datetime) -> None:
        spec = run.spec
        assert spec is not None
        try:
            found = await self._history.ended(run.namespace, spec.dag_id, spec.run_id, task_ids, self._authority())
            earlier = Earlier({task_id: found.get(task_id, "") for task_id in task_ids})
        except HistoryUnavailable as error:
            log.warning("the Execution API cannot be asked how tasks have ended: %s", error, extra=about(run))
            earlier = Earlier(problem=str(error), when=now)
        self._cache.store.put_earlier((run.namespace, spec.dag_id, spec.run_id), earlier)

    async def carry_out(self, run: TaskRunObject, decision: Decision, now: datetime) -> None:
        """Write the status, if it is to be written, and do the rest."""
        changed = decision.to_be_written(run.status, now)
        pause = self._corrections.pause(run.uid) if run.altered and not changed else 0.0
        if changed or (run.altered and not pause):
            written = await self._statuses.write(run, decision.status)
            if written is None:
                return
            self._telemetry.status_written(run, decision.status, now)
            run = written
            self._cache.store.note_closed(run, now)
        for action in decision.actions:
            await self._do(run, action, changed)
        finished = run.status.phase in FINISHED_PHASES
        if decision.requeue_at is not None:
            wait = (decision.requeue_at - now).total_seconds()
            self._cache.queue.add_after(run.key, min(wait, pause or LONGEST_WAIT, LONGEST_WAIT))
        elif pause:
            self._cache.queue.add_after(run.key, pause)
        elif finished:
            # nothing is left to do for it; should it change, the watch brings it again
            self._cache.forget(run.key)
        if changed and finished:
            ended = {"state": run.status.state, "reason": run.status.reason}
            log.info("TaskRun finished", extra={**about(run), **ended})

    async def _do(self, run: TaskRunObject, action: Action, changed: bool) -> None:
        match action:
            case CreatePod():
                if await self._creation.create(run, action):
                    # the watch tells the rest; should it have nothing to tell, we do
                    self._cache.queue.add_after(run.key, POLICY.look_after.total_seconds())
                else:
                    self._cache.queue.add(run.key)
            case DeletePod(namespace, name, uid, force):
                await self._api.delete_pod(namespace, name, uid, force)
                log.info("pod deleted", extra=about(run, pod=name))
            case DeleteTaskRun():
                await self._api.delete(run.path, run.uid)
            case RecordEvent(warning, reason, message) if changed:
                await self._statuses.record(run, warning, reason, message)
