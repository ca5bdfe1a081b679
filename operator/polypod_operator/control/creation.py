"""Creates the pods of attempts. One that the API server is slow to create keeps no worker, and few others, waiting."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from functools import partial

from polypod_core.kinds import Key
from polypod_core.reasons import Reason

from polypod_operator.control.cache import Cache
from polypod_operator.control.create_limit import FEW, LATE, CreateLimit
from polypod_operator.control.refresh import Refresh
from polypod_operator.control.statuses import Statuses
from polypod_operator.control.telemetry import Telemetry
from polypod_operator.decide.decision import CreatePod, Refusal
from polypod_operator.decide.draft import copied
from polypod_operator.kube.api import MANAGER, ApiError, KubernetesApi
from polypod_operator.kube.raw import Raw
from polypod_operator.kube.writes import Flight
from polypod_operator.model import objects
from polypod_operator.model.objects import TaskRunObject
from polypod_operator.pods.changed import by_whom, changes

log = logging.getLogger("polypod.operator")
_BURST, _BURST_SECONDS = 100, 10.0
"""So many pods created within so many seconds are a burst."""
LATE_MESSAGE = (
    f"the API server did not create the pod within {LATE:.0f} s; an admission webhook for pods may be hanging "
    "(kubectl get mutatingwebhookconfigurations,validatingwebhookconfigurations)"
)


class PodCreation:
    """The pods that are being created.

    Attributes:
        late: TaskRuns whose pod the API server has not answered for in time.
    """

    def __init__(
        self,
        api: KubernetesApi,
        cache: Cache,
        refresh: Refresh,
        statuses: Statuses,
        telemetry: Telemetry,
        clock: Callable[[], datetime],
        untried: Callable[[], str],
    ) -> None:
        """Take over; `untried` returns why it is not known whether the routing's pods are valid, empty if it is."""
        self._untried = untried
        self._api, self._cache, self._refresh, self._statuses = api, cache, refresh, statuses
        self._telemetry, self._clock = telemetry, clock
        self._limit = CreateLimit()
        self._created: deque[float] = deque(maxlen=_BURST)
        self.late: dict[Key, asyncio.Future[bool]] = {}

    @property
    def in_burst(self) -> bool:
        """True if very many pods were created just now: that one of them is still starting is not worth a write."""
        return len(self._created) == _BURST and time.monotonic() - self._created[0] < _BURST_SECONDS

    async def create(self, run: TaskRunObject, wanted: CreatePod) -> bool:
        """Create a pod; return False if it was there already, was refused, or is late."""
        if not self._limit.may_begin(run.namespace):
            message = f"at most {FEW} pods are created at once in namespace {run.namespace!r}: {LATE_MESSAGE}"
            refusal = Refusal(message, False, self._clock(), Reason.CREATING_POD)
            self._cache.store.put_refusal(run, wanted.manifest["metadata"]["name"], refusal)
            return False
        flight = Flight()
        posting = asyncio.ensure_future(self._post(run, wanted, flight))
        while not await self._hangs(posting, flight, run):
            if posting.done():
                return posting.result()
        self._limit.late(run.namespace)
        self.late[run.key] = posting
        posting.add_done_callback(partial(self._is_no_longer_late, run.key))
        await self._report_late(run)
        return False

    async def _hangs(self, posting: asyncio.Future[bool], flight: Flight, run: TaskRunObject) -> bool:
        """Wait a while for a creation; tell whether it hangs, although the API server answers others.

        If it answers nobody, or says that it is busy, that is no webhook of this namespace.
        """
        await asyncio.wait({posting}, timeout=LATE)
        since = flight.since
        if posting.done() or since is None or time.monotonic() - since < LATE:
            return False
        return await self._api.answers_others(since, run.path)

    def _is_no_longer_late(self, key: Key, posting: asyncio.Future[bool]) -> None:
        del self.late[key]
        error = None if posting.cancelled() else posting.exception()
        if error is not None:
            log.warning("TaskRun %s/%s: its pod could not be created: %s", *key, error)
        self._cache.queue.add_after(key, LATE if error is not None else 0.0)

    async def _report_late(self, run: TaskRunObject) -> None:
        """Say what a TaskRun waits for while its pod is late; no attempt is written down before it is known."""
        if run.status.reason in (Reason.CREATING_POD, Reason.POD_REFUSED):
            # it was tried before, and says why that failed
            return
        status = copied(run.status)
        status.phase, status.observed_generation = "Pending", run.generation
        status.reason, status.message = Reason.CREATING_POD, LATE_MESSAGE
        if await self._statuses.write(run, status) is not None:
            await self._statuses.warn(run, Reason.CREATING_POD, LATE_MESSAGE)

    async def _post(self, run: TaskRunObject, wanted: CreatePod, flight: Flight) -> bool:
        """Have the API server create a pod; return False if it was there already, or was refused."""
        manifest = wanted.manifest
        name = manifest["metadata"]["name"]
        clock = asyncio.get_running_loop().time
        began, untried = clock(), self._untried()
        self._limit.begin(run.namespace)
        self._cache.store.put_asked(run, name)
        try:
            raw = await self._api.create_pod(manifest, flight=flight)
            if await self._is_changed(run, wanted, raw):
                return False
            self._refresh.wrote_pod(run.namespace, raw)
            self._cache.store.put_pod(objects.pod(raw))
        except ApiError as error:
            if error.reason == "AlreadyExists" and not error.by_admission:
                # ours, and its answer was lost
                await self.verify(run, run.namespace, name, wanted)
            elif error.by_admission or error.too_large or error.status in (400, 403, 404, 422):
                refusal = self._refusal(error, untried)
                self._cache.store.put_refusal(run, name, refusal)
            else:
                raise
            return False
        finally:
            self._limit.end(run.namespace, clock() - began)
        self._created.append(time.monotonic())
        self._telemetry.pod_created(run, name, self._clock())
        return True

    def _refusal(self, error: ApiError, untried: str) -> Refusal:
        """Return why there is no pod; that it is not valid may be the routing's fault, which then is not used for long.

        Args:
            untried: why the routing could not be tried when the pod was asked for.
        """
        if not (error.invalid and untried):
            return Refusal(error.message, error.invalid, self._clock())
        message = f"{error.message}; retried, as the routing could not be tried yet ({untried})"
        return Refusal(message, False, self._clock())

    async def _is_changed(self, run: TaskRunObject, asked: CreatePod, made: Raw, *, whole: bool = True) -> bool:
        """Delete a pod that was made otherwise than was asked, and say so.

        Args:
            whole: compare all that matters, or only which attempt it is and whether it is less secure.
        """
        found = changes(asked.manifest, made, allow=asked.allow, whole=whole)
        if not found:
            return False
        store, metadata = self._cache.store, made["metadata"]
        who = by_whom(made, MANAGER)
        message = (
            f"the API server made the pod otherwise than asked, so it was deleted: {'; '.join(found)}. "
            f"{f'{who} has written to it. ' if who else ''}Look for an admission policy or webhook "
            "(kubectl get mutatingwebhookconfigurations,mutatingadmissionpolicies)"
        )
        store.put_rejected(run, metadata["uid"], message)
        store.put_refusal(run, metadata["name"], Refusal(message, False, self._clock(), Reason.POD_CHANGED))
        await self._api.delete_pod(run.namespace, metadata["name"], metadata["uid"])
        return True

    async def verify(self, run: TaskRunObject, namespace: str, name: str, asked: CreatePod | None = None) -> None:
        """Find out whether a pod of that name is there, and whose it is.

        Args:
            asked: the pod that was asked for, if the API server has said that it is there already.
        """
        store = self._cache.store
        try:
            raw = await self._api.get_pod(namespace, name)
        except ApiError as error:
            if error.status != 404:
                raise
            store.put_absent(run, name)
            if asked is not None:
                message = f"pod {name!r} existed when it was to be created, and a moment later it did not"
                store.put_refusal(run, name, Refusal(message, False, self._clock()))
            return
        pod = objects.pod(raw)
        rejected = store.rejected(run, pod.uid)
        if rejected:
            if not pod.deleting:
                await self._api.delete_pod(namespace, name, pod.uid)
            store.put_refusal(run, name, Refusal(rejected, False, self._clock(), Reason.POD_CHANGED))
        elif pod.owner == run.uid:
            # one that was made by another version of us, or of the routing, need not be as we ask today
            if asked is None or not await self._is_changed(run, asked, raw, whole=False):
                store.put_pod(pod)
        else:
            message = f"a pod {name!r} exists and is not controlled by this TaskRun; delete it"
            refusal = Refusal(message, False, self._clock(), Reason.POD_NAME_TAKEN)
            self._cache.store.put_refusal(run, name, refusal)
