"""Which of several operators leads: a Lease (coordination.k8s.io/v1), as the other controllers of Kubernetes do it.

The leader renews it. One that could not renew for a while pauses before anybody else may take over, and resumes if
nobody has when the API server answers again. Clocks of different nodes are never compared: a standby counts from when
it saw the last renewal.

A Lease that was deleted, or recreated by somebody else, says nothing of who leads: the leader writes it at once; any
other waits for as long as the last renewal is good.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from polypod_operator.kube.api import ApiError, KubernetesApi
from polypod_operator.kube.own_state import OwnState, State

log = logging.getLogger("polypod.operator")
DURATION = 10
"""Seconds after its last renewal in which a lease is another's."""
RENEW = 2.0
GIVE_UP = 7.0
"""Seconds without a renewal after which a leader pauses."""
RETRY = 1.0
UNKNOWN = "unknown"
"""Who leads if no Lease with a renewal was ever seen: there may be somebody."""

Raw = Mapping[str, Any]


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


def see(raw: Raw | None, before: Held | None, now: float) -> Held:
    """Take a Lease over.

    Args:
        raw: None if there is none.
        now: in seconds of a clock that never goes back.
    """
    spec = (raw or {}).get("spec") or {}
    holder, renewed = spec.get("holderIdentity") or "", spec.get("renewTime") or ""
    if not renewed and not holder:
        # there is none, or it was just made: who led before may not have noticed
        return before if before is not None and before.holder else Held(UNKNOWN, "", now, DURATION)
    if before is not None and (before.holder, before.renewed) == (holder, renewed):
        return before
    return Held(holder, renewed, now, float(spec.get("leaseDurationSeconds") or DURATION))


def is_free(held: Held, identity: str, now: float) -> bool:
    """Tell whether a lease may be taken."""
    return held.holder in ("", identity) or now - held.seen > held.duration


class Leader:
    """One operator's part in the election."""

    def __init__(
        self,
        api: KubernetesApi,
        lease: tuple[str, str],
        identity: str,
        lost: Callable[[], None],
        state: OwnState | None = None,
    ) -> None:
        """Prepare.

        Args:
            api: paused while it is not known whether we still lead.
            lease: its namespace and name; it is created if it is not there.
            identity: who we are: no other process has the same at the same time.
            lost: called when another one leads; it must end what we do at once.
            state: shows whether we stand by, are paused, or end.
        """
        self._api, self._namespace, self._name = api, *lease
        self.identity = identity
        self._lost = lost
        self._state = state or OwnState()
        self._raw: Raw | None = None
        self._held: Held | None = None
        self._problem, self._refused = "", False
        self.leading = False

    @property
    def _where(self) -> str:
        return f"Lease {self._namespace}/{self._name}"

    @property
    def reference(self) -> dict[str, str]:
        """What an Event about the lease names."""
        found = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "name": self._name,
            "namespace": self._namespace,
        }
        uid = (self._raw or {}).get("metadata", {}).get("uid")
        return {**found, "uid": uid} if uid else found

    @property
    def _path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases"

    async def acquire(self) -> None:
        """Wait until we lead."""
        loop = asyncio.get_running_loop()
        read = loop.time()
        while True:
            now = loop.time()
            try:
                raw = await self._read()
            except ApiError as error:
                self._note("cannot be read", error)
            else:
                read, self._held, self._problem = now, see(raw, self._held, now), ""
                if is_free(self._held, self.identity, now) and await self._write(raw, self.identity):
                    break
            self._stand_by(loop.time() - read)
            await asyncio.sleep(RETRY)
        self.leading = True
        self._state.become(State.STARTING)
        log.info("lease acquired", extra={"lease": f"{self._namespace}/{self._name}", "identity": self.identity})

    def _stand_by(self, unread: float) -> None:
        """Show what we wait for.

        Args:
            unread: for how many seconds the lease could not be read.
        """
        if self._problem:
            # a standby that misses one answer is as good as before
            if self._state.now is not State.STANDBY or unread > GIVE_UP:
                self._state.become(State.STARTING, self._problem)
        elif self._held is not None and self._held.holder == UNKNOWN:
            why = f"{self._where} does not exist or is new; taken in {DURATION} s, if no other operator does so"
            self._state.become(State.STARTING, why)
        elif self._held is not None and self._held.holder:
            self._state.become(State.STANDBY, f"{self._held.holder} leads")

    async def _read(self) -> Raw | None:
        """Return the lease; None if there is none.

        Raises:
            ApiError: it cannot be read.
        """
        try:
            return await self._api.once("GET", f"{self._path}/{self._name}")
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    async def _write(self, raw: Raw | None, holder: str) -> bool:
        """Write the lease, if nobody else has since it was read; None: create it, if nobody else has."""
        when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = (raw or {}).get("spec") or {}
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": DURATION,
            "renewTime": when,
            "acquireTime": before.get("acquireTime", when) if before.get("holderIdentity") == holder else when,
            "leaseTransitions": before.get("leaseTransitions", 0) + (before.get("holderIdentity") != holder),
        }
        metadata = raw["metadata"] if raw is not None else {"namespace": self._namespace, "name": self._name}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        call = ("POST", self._path) if raw is None else ("PUT", f"{self._path}/{self._name}")
        try:
            self._raw = await self._api.once(*call, body)
        except ApiError as error:
            if error.status != 409:
                what = "does not exist and cannot be created" if raw is None else "cannot be written"
                self._note(what, error)
            return False
        if raw is None:
            log.warning("%s did not exist; created it", self._where)
        self._held, self._problem = see(self._raw, self._held, asyncio.get_running_loop().time()), ""
        return True

    def _note(self, what: str, error: ApiError) -> None:
        self._problem, self._refused = (
            f"{self._where} {what}: {error}",
            400 <= error.status < 500 and error.status != 429,
        )

    async def keep(self) -> None:
        """Renew for ever; pause what we do while that is not possible, and call `lost` when another one leads."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            left = math.inf if self._api.paused else renewed + GIVE_UP - loop.time()
            await asyncio.sleep(min(RENEW, max(left, 0.0)))
            began, left = loop.time(), renewed + GIVE_UP - loop.time()
            # first pause: a call could outlast the lease
            is_late = left <= 0 and not self._api.paused
            result = "failed" if is_late else await self._renewed_within(left)
            if result == "lost":
                break
            if result == "renewed":
                renewed = began
                if self._api.paused:
                    self._api.resume()
                    self._state.resume()
            elif loop.time() - renewed >= GIVE_UP:
                if not self._api.paused:
                    self._api.pause()
                why = f"the lease could not be renewed for {GIVE_UP:.0f} s, and another operator may take over"
                self._state.pause(f"{why}; {self._problem}" if self._problem else why, self._refused)
        self.leading = False
        self._state.become(State.LOSING, self._problem)
        self._lost()

    async def _renewed_within(self, seconds: float) -> Literal["renewed", "failed", "lost"]:
        """Try to renew; when we have paused already, there is no hurry."""
        try:
            async with asyncio.timeout(seconds if seconds > 0 else None):
                return await self._renew()
        except TimeoutError:
            self._problem, self._refused = "the API server does not answer", False
            return "failed"

    async def _renew(self) -> Literal["renewed", "failed", "lost"]:
        """Renew, also after somebody has written to the lease or deleted it, or our own write's answer was lost."""
        # after a pause another one may have led, and the API server creates a Lease by PUT as well
        if not self._api.paused and self._raw is not None and await self._write(self._raw, self.identity):
            return "renewed"
        try:
            raw = await self._read()
        except ApiError as error:
            self._note("cannot be read", error)
            return "failed"
        spec = (raw or {}).get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if not spec.get("renewTime") and not holder:
            # deleted, or recreated: our last renewal is still good, unless we have paused
            if self._api.paused:
                self._problem = f"{self._where} was deleted during the pause; another operator may have led"
                return "lost"
        elif holder != self.identity:
            self._problem = f"{holder or 'another operator'} leads"
            return "lost"
        return "renewed" if await self._write(raw, self.identity) else "failed"

    async def release(self) -> None:
        """Let the next one lead at once."""
        if not self.leading:
            return
        self.leading = False
        self._state.become(State.LOSING)
        if self._raw is not None and await self._write(self._raw, ""):
            return
        # the answer to our last renewal was not waited for
        try:
            raw = await self._read()
        except ApiError as error:
            log.warning("the lease cannot be handed over: %s", error)
            return
        if raw is not None and (raw.get("spec") or {}).get("holderIdentity") == self.identity:
            await self._write(raw, "")
