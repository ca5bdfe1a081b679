"""kube/workqueue.py: creation before writes, and no key twice at once."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from polypod_operator.kube.pace import Pace
from polypod_operator.kube.workqueue import WorkQueue
from support.waiting import until


class Hand:
    """A clock that is moved by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def taken(queue: WorkQueue[str]) -> list[str]:
    """Take what there is to take."""

    async def take() -> list[str]:
        return [await queue.get() for _ in range(queue.ready)]

    return asyncio.run(take())


def of(limit: int, clock: Callable[[], float] = time.monotonic) -> WorkQueue[str]:
    pace = Pace(clock)
    pace.limit = limit
    return WorkQueue(pace, clock)


def test_what_is_to_begin_holds_back_what_is_to_be_written_down() -> None:
    clock = Hand()
    queue = of(32, clock)
    queue.add("new", priority=True)
    for key in "abcdef":
        queue.add(key)
    # few at a time, but some: a stream of new ones must not stop them
    assert taken(queue) == ["new", "a", "b"]
    queue.add("newer", priority=True)
    queue.done("a")
    assert taken(queue) == ["newer", "c"]
    assert len(queue) == 3
    clock.now += 1.1
    queue.done("b")
    assert taken(queue) == ["d", "e", "f"], "nothing is to begin any more"
    assert len(queue) == 0


def test_the_longer_writes_wait_the_more_of_them_go_at_once_but_never_more_than_half() -> None:
    clock = Hand()
    queue = of(8, clock)
    queue.add("new", priority=True)
    for key in "abcdefghijk":
        queue.add(key)
    assert taken(queue) == ["new", "a"]
    clock.now += 11
    queue.add("newer", priority=True)
    queue.done("a")
    assert taken(queue) == ["b", "c", "newer", "d"]
    clock.now += 1000
    for number in range(9):
        queue.add(f"newest-{number}", priority=True)
    for key in ("new", "newer", "b", "c", "d"):
        queue.done(key)
    found = taken(queue)
    assert len([key for key in found if not key.startswith("newest")]) == 4
    assert len(found) == 8


def test_the_oldest_goes_first_also_if_it_comes_again() -> None:
    queue = of(1)
    queue.age = lambda key: float(key)
    for key in "53142":
        queue.add(key, priority=True)
    order = []
    while queue.ready:
        [key] = taken(queue)
        order.append(key)
        if order == ["5"]:
            queue.add("5", priority=True)
        queue.done(key)
    # the first was let in at once, and comes again in its turn
    assert order == ["5", "1", "2", "3", "4", "5"]


def test_no_more_are_let_in_than_the_pace_allows() -> None:
    clock = Hand()
    queue = of(3, clock)
    for key in "abcde":
        queue.add(key, priority=True)
    assert taken(queue) == ["a", "b", "c"]
    assert queue.begins
    queue.done("b")
    assert taken(queue) == ["d"]
    assert len(queue) == 1


def test_a_key_that_is_held_back_may_become_urgent() -> None:
    queue = of(32)
    queue.add("new", priority=True)
    for key in "abcd":
        queue.add(key)
    queue.add("d", priority=True)
    queue.add("a", priority=True)
    queue.add("d")
    assert taken(queue) == ["new", "a", "b", "d"]
    queue.done("a")
    queue.done("b")
    assert taken(queue) == ["c"]
    assert len(queue) == 0


def test_what_is_to_begin_goes_first_whatever_has_brought_it() -> None:
    async def play() -> None:
        queue = of(32)
        queue.urgent = lambda key: key == "refused"
        queue.add("new", priority=True)
        for number in range(100):
            queue.add(f"written-{number}")
        assert [await queue.get() for _ in range(queue.ready)] == ["new", "written-0", "written-1"]
        # its pod was refused, and is tried again by a timer
        queue.add_after("refused", 0)
        assert await asyncio.wait_for(queue.get(), 30) == "refused"

    asyncio.run(play())


def test_no_key_is_worked_on_twice_at_once_and_none_is_lost() -> None:
    async def play() -> None:
        queue: WorkQueue[int] = WorkQueue(Pace())
        working: set[int] = set()
        seen = [0] * 10
        added = [0] * 10

        async def work() -> None:
            while True:
                key = await queue.get()
                assert key not in working
                working.add(key)
                seen[key] = added[key]
                await asyncio.sleep(random.uniform(0, 0.002))
                working.discard(key)
                queue.done(key)

        workers = [asyncio.create_task(work()) for _ in range(5)]
        for _ in range(500):
            key = random.randrange(10)
            added[key] += 1
            if random.random() < 0.5:
                queue.add(key)
            else:
                queue.add_after(key, random.uniform(0, 0.003))
            await asyncio.sleep(0)
        await until(
            lambda: seen == added or any(worker.done() for worker in workers), limit=30, seen=lambda: (seen, added)
        )
        assert not any(worker.done() for worker in workers)
        for worker in workers:
            worker.cancel()

    asyncio.run(play())


def test_of_two_timers_the_earlier_one_counts() -> None:
    async def play() -> None:
        queue: WorkQueue[str] = WorkQueue(Pace())
        queue.add_after("k", 0.01)
        queue.add_after("k", 60)
        assert await asyncio.wait_for(queue.get(), 30) == "k"
        queue.done("k")
        queue.add_after("k", 60)
        queue.forget("k")
        assert len(queue) == 0

    asyncio.run(play())
