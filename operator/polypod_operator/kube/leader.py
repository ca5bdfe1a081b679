"""Which of several operators leads: a Lease (coordination.k8s.io/v1), as the other controllers of Kubernetes do it.

The leader renews it. One that could not renew for a while pauses before anybody else may take over, and resumes if
nobody has when the API server answers again. Clocks of different nodes are never compared: a standby counts from when
it saw the last renewal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from polypod_operator.kube.api import ApiError, KubernetesApi

log = logging.getLogger("polypod.operator")
DURATION = 10
"""Seconds after its last renewal in which a lease is another's."""
RENEW = 2.0
GIVE_UP = 7.0
"""Seconds without a renewal after which a leader pauses."""
RETRY = 1.0


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as it was seen.

    Attributes:
        holder: who leads; empty if nobody does.
        renewed: the time of the last renewal, by the holder's clock: only whether it changes matters.
        seen: when we saw that for the first time, by our own clock.
        duration: for how many seconds it is good.
    """

    holder: str
    renewed: str
    seen: float
    duration: float


def see(raw: Mapping[str, Any], before: Held | None, now: float) -> Held:
    """Take a Lease over; `now` in seconds of a clock that never goes back."""
    spec = raw.get("spec") or {}
    holder, renewed = spec.get("holderIdentity") or "", spec.get("renewTime") or ""
    same = before is not None and (before.holder, before.renewed) == (holder, renewed)
    seen = before.seen if same and before is not None else now
    return Held(holder, renewed, seen, float(spec.get("leaseDurationSeconds") or DURATION))


def is_free(held: Held, identity: str, now: float) -> bool:
    """Tell whether a lease may be taken."""
    return held.holder in ("", identity) or now - held.seen > held.duration


class Leader:
    """One operator's part in the election."""

    def __init__(self, api: KubernetesApi, lease: tuple[str, str], identity: str, lost: Callable[[], None]) -> None:
        """Prepare.

        Args:
            api: paused while it is not known whether we still lead.
            lease: its namespace and name; it is there already.
            identity: who we are: no other process has the same at the same time.
            lost: called when another one leads; it must end what we do at once.
        """
        self._api, self._namespace, self._name = api, *lease
        self.identity = identity
        self._lost = lost
        self._raw: dict[str, Any] = {}
        self._held: Held | None = None
        self.leading = False

    @property
    def _path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases"

    async def acquire(self) -> None:
        """Wait until we lead."""
        waiting = ""
        while not await self._try():
            holder = self._held.holder if self._held is not None else ""
            if holder != waiting:
                log.info("another operator leads; waiting", extra={"leader": holder})
                waiting = holder
            await asyncio.sleep(RETRY)
        self.leading = True
        log.info("leading", extra={"lease": f"{self._namespace}/{self._name}", "identity": self.identity})

    async def _try(self) -> bool:
        now = asyncio.get_running_loop().time()
        try:
            raw = await self._api.once("GET", f"{self._path}/{self._name}")
        except ApiError as error:
            log.warning("Lease %s/%s, created by the chart, cannot be read: %s", self._namespace, self._name, error)
            return False
        self._held = see(raw, self._held, now)
        return is_free(self._held, self.identity, now) and await self._write(raw, self.identity)

    async def _write(self, raw: Mapping[str, Any], holder: str) -> bool:
        """Write the lease, if nobody else has since it was read."""
        when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = raw.get("spec") or {}
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": DURATION,
            "renewTime": when,
            "acquireTime": before.get("acquireTime", when) if before.get("holderIdentity") == holder else when,
            "leaseTransitions": before.get("leaseTransitions", 0) + (before.get("holderIdentity") != holder),
        }
        kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        body = {**kind, "metadata": raw["metadata"], "spec": spec}
        try:
            self._raw = await self._api.once("PUT", f"{self._path}/{self._name}", body)
        except ApiError as error:
            if error.status != 409:
                log.warning("the lease cannot be written: %s", error)
            return False
        self._held = see(self._raw, self._held, asyncio.get_running_loop().time())
        return True

    async def keep(self) -> None:
        """Renew for ever; pause what we do while that is not possible, and call `lost` when another one leads."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            await asyncio.sleep(RENEW)
            began = loop.time()
            if await self._renewed_within(GIVE_UP - (began - renewed)):
                renewed = began
                if self._api.paused:
                    log.warning("the lease is renewed and no other operator has led in between; resuming")
                    self._api.resume()
            elif self._held is not None and self._held.holder != self.identity:
                break
            elif loop.time() - renewed >= GIVE_UP and not self._api.paused:
                log.error(
                    "the lease could not be renewed for %.0f s; pausing, as another operator may take over", GIVE_UP
                )
                self._api.pause()
        self.leading = False
        log.error("another operator leads: ending", extra={"leader": self._held.holder})
        self._lost()

    async def _renewed_within(self, seconds: float) -> bool:
        """Try to renew; when we have paused already, or have to, there is no hurry."""
        try:
            async with asyncio.timeout(seconds if seconds > 0 else None):
                return await self._write(self._raw, self.identity) or await self._still_ours()
        except TimeoutError:
            return False

    async def _still_ours(self) -> bool:
        """Renew after somebody has written to the lease, or our own write's answer was lost."""
        try:
            raw = await self._api.once("GET", f"{self._path}/{self._name}")
        except ApiError:
            return False
        self._held = see(raw, self._held, asyncio.get_running_loop().time())
        return self._held.holder == self.identity and await self._write(raw, self.identity)

    async def release(self) -> None:
        """Let the next one lead at once."""
        if not self.leading:
            return
        self.leading = False
        if await self._write(self._raw, ""):
            return
        # the answer to our last renewal was not waited for
        try:
            raw = await self._api.once("GET", f"{self._path}/{self._name}")
        except ApiError as error:
            log.warning("the lease cannot be handed over: %s", error)
            return
        if (raw.get("spec") or {}).get("holderIdentity") == self.identity:
            await self._write(raw, "")
