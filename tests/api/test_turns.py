"""turns.py: who is served next, whatever others send."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from polypod_execution_api.turns import Turns


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_who_comes_after_a_flood_of_another_is_served_next() -> None:
    async def scenario() -> None:
        turns, served = Turns(2, Clock()), []

        async def request(who: str) -> None:
            await turns.enter(who)
            served.append(who)
            await asyncio.sleep(0)
            turns.leave(who)

        flood = [asyncio.create_task(request("hog")) for _ in range(100)]
        await asyncio.sleep(0)
        await asyncio.gather(request("honest"), *flood)
        # those that were served before it came, and one for each place
        assert served.index("honest") < 10
        assert len(served) == 101

    asyncio.run(scenario())


def test_one_namespace_alone_has_every_place_and_beside_another_half_of_them() -> None:
    async def scenario() -> None:
        clock = Clock()
        turns = Turns(4, clock)
        for _ in range(4):
            await asyncio.wait_for(turns.enter("a"), 5)
        fifth = asyncio.create_task(turns.enter("a"))
        other = asyncio.create_task(turns.enter("b"))
        await asyncio.sleep(0)
        turns.leave("a")
        await asyncio.wait_for(other, 5)
        assert not fifth.done(), "b is there now, and a has more than half"
        turns.leave("a")
        await asyncio.sleep(0)
        assert not fifth.done()
        turns.leave("a")
        await asyncio.wait_for(fifth, 5)
        turns.leave("b")
        waiting = asyncio.create_task(turns.enter("a"))
        await asyncio.sleep(0)
        assert not waiting.done(), "b was there a moment ago"
        clock.now += 2
        turns.leave("a")
        await asyncio.wait_for(waiting, 5)
        await asyncio.wait_for(turns.enter("a"), 5)
        await asyncio.wait_for(turns.enter("a"), 5)

    asyncio.run(scenario())


Step = tuple[str, str, float]
STEPS = st.lists(
    st.tuples(st.sampled_from(["enter", "leave", "cancel"]), st.sampled_from("abc"), st.sampled_from([0.0, 2.0]))
)


@given(places=st.integers(1, 4), steps=STEPS)
def test_nobody_waits_for_ever_and_never_more_run_than_there_are_places(places: int, steps: list[Step]) -> None:
    async def scenario() -> None:
        clock = Clock()
        turns = Turns(places, clock)
        tasks: list[tuple[str, asyncio.Task[None]]] = []

        def inside() -> Counter[str]:
            return Counter(who for who, task in tasks if task.done() and not task.cancelled())

        for action, who, passed in steps:
            clock.now += passed
            mine = [item for item in tasks if item[0] == who]
            if action == "enter":
                tasks.append((who, asyncio.create_task(turns.enter(who))))
            elif action == "leave" and inside()[who]:
                tasks.remove(next(item for item in mine if item[1].done()))
                turns.leave(who)
            elif action == "cancel" and (waiting := [item for item in mine if not item[1].done()]):
                waiting[0][1].cancel()
                await asyncio.gather(waiting[0][1], return_exceptions=True)
                tasks.remove(waiting[0])
            await asyncio.sleep(0)
            assert sum(inside().values()) <= places
        while tasks:
            done = [item for item in tasks if item[1].done()]
            assert done, "all wait and nobody runs"
            tasks.remove(done[0])
            turns.leave(done[0][0])
            await asyncio.sleep(0)

    asyncio.run(scenario())
