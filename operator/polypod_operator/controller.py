"""From a key to the API: gather, reconcile, apply. The only place where decisions become calls."""

from __future__ import annotations

import asyncio
import logging
import secrets
from datetime import UTC, datetime
from typing import Any

from polypod_crds.taskrun import API_VERSION, KIND, TaskRunStatus

from polypod_operator import objects
from polypod_operator.api import ApiError, KubernetesApi
from polypod_operator.objects import LABELLED, PodObject, TaskRunObject
from polypod_operator.pod import Settings
from polypod_operator.reasons import Reason
from polypod_operator.reconcile import (
    Action,
    CreatePod,
    Decision,
    DeletePod,
    DeleteTaskRun,
    LookAtEvents,
    Refusal,
    Tell,
    VerifyPod,
    reconcile,
)
from polypod_operator.routing import RoutingState
from polypod_operator.store import Key, Store
from polypod_operator.workqueue import WorkQueue

log = logging.getLogger("polypod.operator")
_ROUNDS = 5
_BACKOFF_MAX = 60.0


class Controller:
    """Workers that keep every TaskRun on its way."""

    def __init__(self, api: KubernetesApi, settings: Settings, namespaces: list[str]) -> None:
        """Take over; `namespaces` is what is served, nothing for all."""
        self.api = api
        self.settings = settings
        self.namespaces = namespaces
        self.routing = RoutingState()
        self.store = Store()
        self.queue: WorkQueue[Key] = WorkQueue()
        self._failures: dict[Key, int] = {}

    # What is seen.

    def saw_run(self, raw: objects.Raw, *, deleted: bool) -> None:
        """Take a TaskRun over as the watch shows it."""
        run = objects.task_run(raw)
        if deleted:
            known = self.store.run(run.key)
            if known is not None and known.uid == run.uid:
                self._forget(run.key)
            return
        self.store.put_run(run)
        self.queue.add(run.key)

    def saw_pod(self, raw: objects.Raw, *, deleted: bool) -> None:
        """Take a pod over as the watch shows it."""
        key = self.store.put_pod(objects.pod(raw, gone=deleted))
        if key is not None:
            self.queue.add(key)

    async def saw_routing(self, raw: objects.Raw | None, where: str) -> None:
        """Take the routing ConfigMap over, and look at every TaskRun that may have waited for it."""
        good_before = self.routing.problem == ""
        if not self.routing.load(raw, where):
            return
        if self.routing.problem:
            use = "the last good one stays in use" if self.routing.current is not None else "nothing can be started"
            log.error("there is no valid routing; %s: %s", use, self.routing.problem)
            if raw is not None:
                await self._tell_about(_routing_reference(raw), True, Reason.ROUTING_INVALID, self.routing.problem)
            return
        log.info("routing loaded", extra={"config_map": where})
        if raw is not None and not good_before:
            await self._tell_about(
                _routing_reference(raw), False, Reason.ROUTING_LOADED, "the routing is valid and in use"
            )
        for key in self.store.task_runs():
            self.queue.add(key)

    async def start(self, routing: tuple[str, str]) -> None:
        """Read the routing and everything else before the watches begin.

        Raises:
            ApiError: something cannot be read; 404 if the CRD is not there.
        """
        namespace, name = routing
        raw: objects.Raw | None = None
        try:
            raw = await self.api.call("GET", f"/api/v1/namespaces/{namespace}/configmaps/{name}")
        except ApiError as error:
            if error.status != 404:
                raise
        await self.saw_routing(raw, f"{namespace}/{name}")
        await self.list_all()

    async def resync(self) -> None:
        """Read everything anew; what fails now is tried again at the next time."""
        try:
            await self.list_all()
        except ApiError as error:
            log.warning("the objects could not be read anew: %s", error)

    async def list_all(self) -> None:
        """Read everything anew: at the start, and now and then, as no watch is to be trusted for ever."""
        pods: set[str] = set()
        runs: set[Key] = set()
        for prefix in [f"/namespaces/{name}" for name in self.namespaces] or [""]:
            async for raw in self.api.listed(f"/apis/{API_VERSION}{prefix}/taskruns"):
                run = objects.task_run(raw)
                runs.add(run.key)
                self.store.put_run(run)
                self.queue.add(run.key)
            async for raw in self.api.listed(f"/api/v1{prefix}/pods", {"labelSelector": LABELLED}):
                pods.add(raw["metadata"]["uid"])
                self.saw_pod(raw, deleted=False)
        # what is not in the lists may be newer than they are: ask for each before it counts as gone
        for pod in self.store.pods():
            if pod.uid not in pods and not pod.gone:
                await self._missed(pod)
        for key in self.store.task_runs():
            if key not in runs:
                try:
                    self.store.put_run(objects.task_run(await self.api.get_task_run(*key)))
                except ApiError as error:
                    if error.status != 404:
                        raise
                    self._forget(key)

    async def _missed(self, pod: PodObject) -> None:
        """Take over that a pod is gone or has a successor of its name, if that is so."""
        try:
            found = objects.pod(await self.api.get_pod(pod.namespace, pod.name))
        except ApiError as error:
            if error.status != 404:
                raise
            found = objects.replace_gone(pod)
        key = self.store.put_pod(found)
        if key is not None:
            self.queue.add(key)

    def _forget(self, key: Key) -> None:
        self.store.forget(key)
        self.queue.forget(key)
        self._failures.pop(key, None)

    # What is done.

    async def work(self) -> None:
        """Work for ever: one of several workers."""
        while True:
            key = await self.queue.get()
            try:
                await self._look_at(key)
                self._failures.pop(key, None)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                wait = min(_BACKOFF_MAX, 0.5 * 2.0**failures)
                level = logging.WARNING if isinstance(error, ApiError) else logging.ERROR
                log.log(level, "TaskRun %s/%s: %s; trying again in %.0f s", *key, error, wait,
                        exc_info=not isinstance(error, ApiError))  # fmt: skip
                self.queue.add_after(key, wait)
            finally:
                self.queue.done(key)

    async def _look_at(self, key: Key) -> None:
        for _ in range(_ROUNDS):
            run = self.store.run(key)
            if run is None:
                return
            now = datetime.now(UTC)
            decision = reconcile(run, self.store.world(run), self.routing.current, self.settings, now)
            # first what tells us more; then the status; then what the status has announced
            if not await self._find_out(run, decision, now):
                await self._carry_out(run, decision, now)
                return
        self.queue.add(key)

    async def _find_out(self, run: TaskRunObject, decision: Decision, now: datetime) -> bool:
        """Carry out what changes what we know; return whether there was anything like that."""
        found = False
        for action in decision.actions:
            match action:
                case VerifyPod(namespace, name):
                    await self._verify(run, namespace, name)
                case LookAtEvents(namespace, _, uid):
                    self.store.put_look(uid, now, await self.api.last_warning(namespace, uid))
                case _:
                    continue
            found = True
        return found

    async def _create(self, run: TaskRunObject, manifest: dict[str, Any], now: datetime) -> None:
        name = manifest["metadata"]["name"]
        try:
            self.store.put_pod(objects.pod(await self.api.create_pod(manifest)))
        except ApiError as error:
            if error.reason == "AlreadyExists":
                # ours, and its answer was lost
                await self._verify(run, run.namespace, name)
            elif error.status in (400, 403, 404, 413, 422):
                for_good = error.status in (400, 413, 422)
                self.store.put_refusal(run, name, Refusal(error.message, for_good, now))
            else:
                raise

    async def _verify(self, run: TaskRunObject, namespace: str, name: str) -> None:
        try:
            pod = objects.pod(await self.api.get_pod(namespace, name))
        except ApiError as error:
            if error.status != 404:
                raise
            self.store.put_absent(run, name)
            return
        if pod.owner == run.uid:
            self.store.put_pod(pod)
        else:
            message = f"a pod {name!r} exists and belongs to somebody else; delete it"
            self.store.put_refusal(run, name, Refusal(message, False, datetime.now(UTC)))

    async def _carry_out(self, run: TaskRunObject, decision: Decision, now: datetime) -> None:
        status = _dump(decision.status)
        changed = status != _dump(run.status)
        if changed:
            try:
                raw = await self.api.patch_status(run.namespace, run.name, run.resource_version, status)
            except ApiError as error:
                await self._not_written(run, error)
                return
            run = objects.task_run(raw)
            self.store.put_run(run)
        for action in decision.actions:
            await self._do(run, action, changed, now)
        if decision.again is not None:
            self.queue.add_after(run.key, (decision.again - now).total_seconds())
        elif run.status.phase in ("Succeeded", "Failed") and not decision.actions:
            # nothing is left to do for it; should it change, the watch brings it again
            self._forget(run.key)
        if changed and run.status.phase in ("Succeeded", "Failed"):
            log.info("TaskRun finished", extra=_about(run))

    async def _not_written(self, run: TaskRunObject, error: ApiError) -> None:
        if error.status == 404:
            self._forget(run.key)
        elif error.status == 409:
            # somebody was faster: look at what is there now
            try:
                self.store.put_run(objects.task_run(await self.api.get_task_run(run.namespace, run.name)))
            except ApiError as gone:
                if gone.status != 404:
                    raise
                self._forget(run.key)
            else:
                self.queue.add(run.key)
        else:
            raise error

    async def _do(self, run: TaskRunObject, action: Action, changed: bool, now: datetime) -> None:
        match action:
            case CreatePod(manifest):
                await self._create(run, manifest, now)
                # look at once at what came of it
                self.queue.add(run.key)
            case DeletePod(namespace, name, uid):
                await self.api.delete_pod(namespace, name, uid)
            case DeleteTaskRun():
                await self.api.delete_task_run(run.namespace, run.name, run.uid)
            case Tell(warning, reason, message) if changed:
                reference = {"apiVersion": API_VERSION, "kind": KIND, "name": run.name, "namespace": run.namespace,
                             "uid": run.uid, "resourceVersion": run.resource_version}  # fmt: skip
                await self._tell_about(reference, warning, reason, message)

    async def _tell_about(self, reference: dict[str, str], warning: bool, reason: str, message: str) -> None:
        """Post an Event; one that cannot be posted is no reason to stop."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{reference['name']}.{secrets.token_hex(8)}", "namespace": reference["namespace"]},
            "involvedObject": reference,
            "reason": reason,
            "message": message[:1024],
            "type": "Warning" if warning else "Normal",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": "polypod-operator"},
            "reportingComponent": "polypod.dev/operator",
        }
        try:
            await self.api.post_event(event)
        except ApiError as error:
            log.warning("an Event could not be posted: %s", error)


def _dump(status: TaskRunStatus) -> dict[str, Any]:
    """Return a status as a merge patch: what is not set is null, which takes it away."""
    dumped = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {field.alias or name: dumped.get(field.alias or name) for name, field in TaskRunStatus.model_fields.items()}


def _routing_reference(raw: objects.Raw) -> dict[str, str]:
    metadata = raw["metadata"]
    return {"apiVersion": "v1", "kind": "ConfigMap", "name": metadata["name"], "namespace": metadata["namespace"],
            "uid": metadata["uid"]}  # fmt: skip


def _about(run: TaskRunObject) -> dict[str, Any]:
    spec, status = run.spec, run.status
    return {
        "taskrun": f"{run.namespace}/{run.name}",
        "dag_id": spec.dag_id if spec is not None else None,
        "task_id": spec.task_id if spec is not None else None,
        "run_id": spec.run_id if spec is not None else None,
        "state": status.state,
        "reason": status.reason,
        "try_number": status.tries,
    }
