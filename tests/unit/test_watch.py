"""kube/watch.py: when a watch counts as stalled, and how soon one that was closed is opened again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import aiohttp
import kopf
import pytest
from polypod_operator.kube.api import KubernetesApi
from polypod_operator.kube.watch import OVERDUE, SILENCE, Sink, Watch


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time is moved by hand; who sleeps, sleeps for no time."""

    now = 1000.0

    def time(self) -> float:
        return self.now


def watch(namespace: str = "") -> tuple[Watch, list[str]]:
    async def listed(uids: set[str], namespace: str) -> None:
        pass

    told: list[str] = []
    sink = Sink(lambda meta: True, lambda raw, deleted: None, listed)
    api = cast(KubernetesApi, None)
    return Watch(api, "/api/v1", "pods", sink, namespace, None, lambda plural, why: told.append(why)), told


def shown(number: int, kind: str = "MODIFIED") -> bytes:
    return f'{{"type":"{kind}","object":{{"metadata":{{"name":"a","resourceVersion":"{number}"}}}}}}'.encode()


def wrote(number: int) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": str(number)}}


def play(work: Callable[[Clock], Coroutine[Any, Any, None]]) -> None:
    loop = Clock()
    try:
        loop.run_until_complete(work(loop))
    finally:
        loop.close()


def test_a_watch_that_does_not_show_our_own_write_is_opened_again_within_seconds() -> None:
    async def work(loop: Clock) -> None:
        one, told = watch()
        closed: list[bool] = []
        one.opened(lambda: closed.append(True))
        one.news(shown(5))
        one.wrote("ns", wrote(7))
        loop.now += OVERDUE
        one.check()
        assert not closed, "it has time"
        loop.now += 0.1
        one.check()
        one.check()
        assert closed == [True], "and it is closed once"
        one.ended("closed")
        assert told == ["silent"]
        # where it has got to is known: there is nothing to list
        one._listed_at = loop.now
        assert (await one.params())["resourceVersion"] == "5"
        # the same write does not have the next one closed
        one.opened(lambda: closed.append(True))
        loop.now += SILENCE - 1
        one.check()
        assert closed == [True]

    play(work)


@pytest.mark.parametrize("kind", ["MODIFIED", "BOOKMARK"])
def test_one_that_has_shown_our_write_or_shows_others_has_not_stalled(kind: str) -> None:
    async def work(loop: Clock) -> None:
        one, _ = watch()
        one.opened(lambda: pytest.fail("closed"))
        one.wrote("ns", wrote(7))
        for number in (5, 6, 7):
            loop.now += OVERDUE - 0.1
            one.news(shown(number, kind))
            one.check()
        loop.now += SILENCE - 0.1
        one.check()

    play(work)


def test_one_of_another_namespace_is_not_expected_to_show_it() -> None:
    async def work(loop: Clock) -> None:
        one, _ = watch("other")
        one.opened(lambda: pytest.fail("closed"))
        one.news(shown(5))
        one.wrote("ns", wrote(7))
        loop.now += SILENCE - 0.1
        one.check()

    play(work)


def test_one_that_shows_nothing_at_all_not_even_a_bookmark_has_stalled() -> None:
    async def work(loop: Clock) -> None:
        one, _ = watch()
        closed: list[bool] = []
        one.opened(lambda: closed.append(True))
        one.news(shown(5, "BOOKMARK"))
        loop.now += SILENCE + 0.1
        one.check()
        assert closed

    play(work)


def test_what_ends_in_its_time_is_opened_again_at_once_and_what_is_closed_again_and_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def work(loop: Clock) -> None:
        one, told = watch()
        one.opened(lambda: None)
        loop.now += 25
        one.ended("closed")
        await one.pause()
        assert not pauses
        assert not told, "we have asked for no more"
        for _ in range(20):
            one.opened(lambda: None)
            one.ended("closed")
            await one.pause()
        assert told == ["closed"] * 20
        assert 0.05 < pauses[0] < 0.25
        assert 0.9 < pauses[-1] <= 2.0, "and never for long: it may be the API server that is full"
        one.opened(lambda: None)
        loop.now += 25
        one.ended("closed")
        pauses.clear()
        await one.pause()
        assert not pauses

    monkeypatch.setattr(asyncio, "sleep", sleep)
    play(work)


def test_an_api_server_that_takes_the_call_and_does_not_answer_is_given_up() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def work() -> None:
        server = await asyncio.start_server(mute, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        api = KubernetesApi(kopf.ConnectionInfo(server=f"http://127.0.0.1:{port}"))
        await api.open()
        try:
            # aiohttp's own error, and not that of the limit around it
            with pytest.raises(aiohttp.ServerTimeoutError):
                async with asyncio.timeout(60), api.stream("/api/v1/pods", {"watch": "1"}, 0.2):
                    pytest.fail("it was opened")
        finally:
            await api.close()
            server.close()

    asyncio.run(work())
