"""Writes statuses of TaskRuns, and the Events that go with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from polypod_core.states import FINISHED_PHASES
from polypod_crds.dependencies import ended
from polypod_crds.taskrun import TaskRunStatus

from polypod_operator.control.cache import Cache
from polypod_operator.control.recorder import Recorder
from polypod_operator.control.refresh import Refresh
from polypod_operator.kube.api import ApiError, KubernetesApi
from polypod_operator.kube.raw import Raw
from polypod_operator.model import events, objects
from polypod_operator.model.objects import TaskRunObject

_BRIEF = 100
"""Letters of the message in a status for which there is little room."""


class Statuses:
    """Writes a status only over the version that we have seen."""

    def __init__(self, api: KubernetesApi, cache: Cache, refresh: Refresh, recorder: Recorder) -> None:
        self._api, self._cache, self._refresh, self._recorder = api, cache, refresh, recorder

    async def write(self, run: TaskRunObject, status: TaskRunStatus) -> TaskRunObject | None:
        """Write a status; return the TaskRun as it is then.

        None if the TaskRun is gone, or somebody else has written first: then it is looked at again.

        Raises:
            ApiError: any other answer.
        """
        try:
            raw = await self._patch(run, status)
        except ApiError as error:
            if error.too_large:
                # no room for a single word: what is to be said is said in an Event, and asked for no more
                await self.warn(
                    run, status.reason, f"the status cannot be written, as the spec is too large: {status.message}"
                )
                written = replace(run, status=status, altered=False)
                self._cache.store.put_run(written)
                return written
            if error.status == 404:
                self._cache.lost(run)
            elif error.status == 409:
                await self._refresh.run(run)
            else:
                raise
            return None
        self._refresh.wrote_run(run.namespace, raw)
        written = objects.written(run, status, raw)
        self._cache.store.put_run(written)
        if status.phase in FINISHED_PHASES:
            self._cache.put_node(objects.node(raw, run.spec, ended(status.phase, status.state)))
        return written

    async def _patch(self, run: TaskRunObject, status: TaskRunStatus) -> Raw:
        """Write a status, or what matters most in it if the object has no room for all."""
        try:
            return await self._send(run, status)
        except ApiError as error:
            if not error.too_large:
                raise
        # what the next decision needs is kept, or a failed try would not be counted
        last = [item.model_copy(update={"message": item.message[:_BRIEF]}) for item in status.attempts[-1:]]
        short = {"message": status.message[:_BRIEF], "attempts": last, "conditions": [], "x_coms": []}
        return await self._send(run, status.model_copy(update=short))

    async def _send(self, run: TaskRunObject, status: TaskRunStatus) -> Raw:
        store = self._cache.store
        # should the answer be lost, it is ours all the same
        store.put_sent(run, status)
        answer = await self._api.patch_status(run.path, run.resource_version, dump(status))
        store.put_sent(run, None)
        return answer

    async def warn(self, run: TaskRunObject, reason: str, message: str) -> None:
        """Record a warning Event on a TaskRun."""
        await self.record(run, True, reason, message)

    async def record(self, run: TaskRunObject, warning: bool, reason: str, message: str) -> None:
        """Record an Event on a TaskRun."""
        await self._recorder.record(events.about_run(run), warning, reason, message)


def dump(status: TaskRunStatus) -> dict[str, Any]:
    """Return a status as a merge patch: what is not set is null, which takes it away."""
    dumped = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {field.alias or name: dumped.get(field.alias or name) for name, field in TaskRunStatus.model_fields.items()}
