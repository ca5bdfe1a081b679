"""kube/leader.py, kube/own_state.py and serve/health.py, against a Lease in memory: who leads when it is tampered with."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from polypod_operator.kube import leader as module
from polypod_operator.kube.api import ApiError, KubernetesApi
from polypod_operator.kube.leader import Leader
from polypod_operator.kube.own_state import OwnState, State
from polypod_operator.serve import health as health_module
from polypod_operator.serve.health import Health
from polypod_operator.serve.metrics import Metrics
from prometheus_client import generate_latest
from support.waiting import until

LEASE = ("ns", "polypod-operator")
Raw = dict[str, Any]


class Server:
    """One Lease, as the API server keeps it."""

    def __init__(self) -> None:
        self.lease: Raw | None = None
        self.version = 0
        self.refused: dict[str, int] = {}
        """Method → the status of its answer."""
        self.calls: list[str] = []

    def make(self) -> None:
        """Recreate it, empty, as a chart does."""
        self._put({"metadata": {"name": LEASE[1], "uid": f"uid-{self.version}"}})

    def _put(self, raw: Raw) -> Raw:
        self.version += 1
        raw["metadata"]["resourceVersion"] = str(self.version)
        self.lease = raw
        return copy.deepcopy(raw)

    def answer(self, method: str, body: Any) -> Raw:
        self.calls.append(method)
        if method in self.refused:
            raise ApiError(self.refused[method], "Refused", "not now")
        if method == "POST":
            if self.lease is not None:
                raise ApiError(409, "AlreadyExists", "it is there")
            return self._put({**copy.deepcopy(body), "metadata": {**body["metadata"], "uid": f"uid-{self.version}"}})
        if self.lease is None:
            raise ApiError(404, "NotFound", "no such lease")
        if method == "PUT":
            if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                raise ApiError(409, "Conflict", "it has changed")
            return self._put(copy.deepcopy(body))
        return copy.deepcopy(self.lease)


class Api:
    """A session of one operator."""

    def __init__(self, server: Server) -> None:
        self.server, self.paused, self.hangs = server, False, False

    async def once(self, method: str, path: str, body: Any = None) -> Raw:
        await asyncio.sleep(60 if self.hangs else 0)
        return self.server.answer(method, body)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


class Part:
    """One operator in the election."""

    def __init__(self, server: Server, name: str) -> None:
        self.api, self.state, self.lost = Api(server), OwnState(), False
        self.leader = Leader(cast(KubernetesApi, self.api), LEASE, name, self._lose, self.state)
        self.task = asyncio.create_task(self._live())

    async def _live(self) -> None:
        await self.leader.acquire()
        self.state.become(State.LEADING)
        await self.leader.keep()

    def _lose(self) -> None:
        self.lost = True

    @property
    def acts(self) -> bool:
        return self.leader.leading and not self.api.paused and not self.lost


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"DURATION": 0.5, "RENEW": 0.1, "GIVE_UP": 0.35, "RETRY": 0.05}.items():
        monkeypatch.setattr(module, name, seconds)


def play(scenario: Callable[[Server], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        await asyncio.wait_for(scenario(Server()), 60)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    asyncio.run(run())


async def watched(parts: list[Part], seconds: float) -> list[tuple[bool, ...]]:
    """Return who acted, moment by moment."""
    loop = asyncio.get_running_loop()
    end, seen = loop.time() + seconds, []
    while loop.time() < end:
        seen.append(tuple(part.acts for part in parts))
        await asyncio.sleep(0.01)
    return seen


def test_without_a_lease_one_operator_creates_it_and_leads() -> None:
    async def scenario(server: Server) -> None:
        parts = [Part(server, name) for name in ("a", "b")]
        assert not any(any(acting) for acting in await watched(parts, 0.3)), "somebody else may lead"
        assert parts[0].state.now is State.STARTING
        assert "does not exist" in parts[0].state.why
        await until(lambda: any(part.acts for part in parts))
        assert [sum(acting) for acting in await watched(parts, 1.0)].count(2) == 0
        assert {part.state.now for part in parts} == {State.LEADING, State.STANDBY}

    play(scenario)


@pytest.mark.parametrize("again", [False, True], ids=["deleted", "deleted and recreated, empty"])
def test_a_lease_that_is_tampered_with_stays_its_leaders(again: bool) -> None:
    async def scenario(server: Server) -> None:
        server.make()
        first = Part(server, "first")
        await until(lambda: first.acts)
        second = Part(server, "second")
        await until(lambda: second.state.now is State.STANDBY)
        for _ in range(5):
            server.lease = None
            if again:
                server.make()
            assert set(await watched([first, second], 0.3)) == {(True, False)}
        assert server.lease is not None
        assert server.lease["spec"]["holderIdentity"] == "first"
        assert first.state.now is State.LEADING

    play(scenario)


@pytest.mark.parametrize("again", [False, True], ids=["deleted", "deleted and recreated, empty"])
def test_a_fresh_operator_waits_while_a_leader_has_not_noticed_that_its_lease_is_gone(again: bool) -> None:
    async def scenario(server: Server) -> None:
        first = Part(server, "first")
        await until(lambda: first.acts)
        server.lease = None
        if again:
            server.make()
        first.api.hangs = True
        seen = await watched([first, Part(server, "second")], 1.5)
        assert (True, True) not in seen
        assert seen[-1] == (False, True), "the first one has paused, and nobody else is there"

    play(scenario)


EMPTY: dict[str, Any] = {"metadata": {}}
RELEASED = module.Held("", "then", 5.0, module.DURATION)
LED = module.Held("other", "then", 5.0, module.DURATION)


@pytest.mark.parametrize("raw", [None, EMPTY], ids=["gone", "empty"])
@pytest.mark.parametrize("before", [None, RELEASED, LED], ids=["unseen", "released", "led"])
def test_a_lease_without_a_renewal_is_free_once_the_last_renewal_is_not_good_any_more(
    raw: dict[str, Any] | None, before: module.Held | None
) -> None:
    held = module.see(raw, before, 7.0)
    assert held is before if before is LED else (held.holder, held.seen) == (module.UNKNOWN, 7.0)
    assert not module.is_free(held, "me", 7.0)
    again = module.see(raw, held, 9.0)
    assert again == held
    assert module.is_free(again, "me", held.seen + held.duration + 0.1)
    free = module.see({"spec": {"holderIdentity": "", "renewTime": "later"}}, again, 9.0)
    assert module.is_free(free, "me", 9.0), "a leader that ends has said so"


def test_a_leader_whose_lease_cannot_be_created_is_paused_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(server: Server) -> None:
        server.make()
        part = Part(server, "a")
        await until(lambda: part.acts)
        server.lease, server.refused = None, {"POST": 403}
        with caplog.at_level(logging.DEBUG, "polypod.operator"):
            await until(lambda: part.state.now is State.PAUSED)
            await asyncio.sleep(0.3)
        # another one may have led meanwhile: it ends, and does not go on
        await until(lambda: part.lost)
        assert not part.acts
        assert part.state.now is State.LOSING

    play(scenario)
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "paused" in line]) == 1, lines
    assert "403" in next(line for line in lines if "paused" in line)


def test_a_leader_that_is_refused_pauses_and_goes_on_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(server: Server) -> None:
        server.make()
        part = Part(server, "a")
        await until(lambda: part.acts)
        server.refused = {"PUT": 403}
        caplog.clear()
        with caplog.at_level(logging.DEBUG, "polypod.operator"):
            await until(lambda: part.state.now is State.PAUSED)
            await asyncio.sleep(1.0)
            assert part.state.refused
            server.refused = {}
            await until(lambda: part.acts)
            assert part.state.now is State.LEADING

    play(scenario)
    said = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert said == ["the operator is paused", "the operator is leading"]


def test_a_leader_is_paused_before_another_leads_also_if_calls_fail_at_first_and_then_hang() -> None:
    async def scenario(server: Server) -> None:
        first = Part(server, "first")
        await until(lambda: first.acts)
        second = Part(server, "second")
        await watched([first, second], 0.2)
        # answered at once, so that the next try begins just before the time is over
        own = first.api.once

        async def refused(method: str, path: str, body: Any = None) -> Raw:
            if first.api.hangs:
                return await own(method, path, body)
            raise ApiError(0, "", "connection refused")

        first.api.once = refused  # type: ignore[method-assign]
        asyncio.get_running_loop().call_later(module.GIVE_UP - module.RENEW / 2, setattr, first.api, "hangs", True)
        seen = await watched([first, second], 3 * module.DURATION)
        assert (True, True) not in seen
        assert seen[-1] == (False, True)

    play(scenario)


def test_an_operator_that_cannot_read_the_lease_is_not_ready_and_says_why_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(server: Server) -> None:
        server.make()
        server.refused = {"GET": 403}
        with caplog.at_level(logging.DEBUG, "polypod.operator"):
            part = Part(server, "a")
            await until(lambda: len(server.calls) > 10)
        assert not Health([], part.state).ready
        assert part.state.now is State.STARTING
        assert "403" in part.state.why

    play(scenario)
    assert len(caplog.records) <= 1, [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("state", State)
def test_each_state_is_what_the_probes_and_the_metrics_say(state: State) -> None:
    own, metrics = OwnState(), Metrics()
    own.changed = lambda now, why: metrics.is_now(now)
    own.become(State.STANDBY)
    if state is State.PAUSED:
        own.become(State.LEADING)
        own.pause("403", refused=True)
    else:
        own.become(state)
    assert Health([], own).ready is (state in (State.STANDBY, State.LEADING))
    text = generate_latest(metrics.registry).decode()
    assert f"polypod_leading {float(state is State.LEADING)}" in text
    for other in State:
        assert f'polypod_operator_state{{state="{other}"}} {float(other is state)}' in text


@pytest.mark.parametrize(("refused", "seconds", "alive"), [(True, 10, True), (True, 100, False), (False, 10_000, True)])
def test_a_pause_restarts_the_operator_only_if_the_api_server_answers(
    refused: bool, seconds: float, alive: bool
) -> None:
    now = [1000.0]
    own = OwnState(lambda: now[0])
    own.become(State.LEADING)
    own.pause("no", refused)
    now[0] += seconds

    async def problem() -> str:
        return Health([], own).problem

    assert health_module.LONG_PAUSE == 60
    assert (asyncio.run(problem()) == "") is alive


def test_what_happens_in_a_pause_shows_when_that_is_over() -> None:
    seen: list[State] = []
    own = OwnState()
    own.changed = lambda state, why: seen.append(state)
    own.pause("no answer", refused=False)
    own.pause("no answer yet", refused=False)
    own.become(State.LEADING)
    assert own.now is State.PAUSED
    own.resume()
    assert seen == [State.PAUSED, State.LEADING]
