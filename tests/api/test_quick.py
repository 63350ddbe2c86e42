"""Threads for quick answers: each is told what came of its own work, whatever happens to others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from backstay.api.quick import QUICK_THREADS, QuickThreads


@pytest.fixture
def threads() -> Iterator[QuickThreads]:
    found = QuickThreads()
    yield found
    found.close()


def test_each_is_told_its_own_result(threads: QuickThreads) -> None:
    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(threads.run(pow, number, 2) for number in range(200)))

    assert asyncio.run(all_of_them()) == [number**2 for number in range(200)]


def test_a_failure_is_told_to_who_asked_and_to_nobody_else(threads: QuickThreads) -> None:
    def fail(kind: type[Exception]) -> None:
        raise kind("no")

    async def together() -> list[object]:
        asked = (threads.run(fail, KeyError), threads.run(int, "7"), threads.run(fail, StopIteration))
        return list(await asyncio.gather(*asked, return_exceptions=True))

    found = asyncio.run(together())
    assert [type(one) for one in found] == [KeyError, int, RuntimeError]


def test_who_does_not_wait_any_more_keeps_nobody_from_being_answered(threads: QuickThreads) -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()

    def wait() -> bool:
        begun.release()
        return go_on.wait(60)

    async def impatient() -> int:
        waiting = [asyncio.ensure_future(threads.run(wait)) for _ in range(QUICK_THREADS)]
        for _ in waiting:
            await asyncio.to_thread(begun.acquire)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        go_on.set()
        return await threads.run(int, "7")

    assert asyncio.run(impatient()) == 7


def test_a_loop_that_has_ended_ends_no_thread(threads: QuickThreads) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> bool:
        begun.set()
        return go_on.wait(60)

    async def leave() -> None:
        waiting = asyncio.ensure_future(threads.run(wait))
        await asyncio.to_thread(begun.wait, 60)
        waiting.cancel()

    asyncio.run(leave())
    go_on.set()
    for _ in range(2 * QUICK_THREADS):  # so that each of the threads has its turn
        assert asyncio.run(threads.run(int, "7")) == 7


def test_they_begin_when_they_are_needed_and_end_with_what_they_were_asked() -> None:
    before = quick()
    threads = QuickThreads()
    threads.close()
    assert quick() == before
    asyncio.run(threads.run(int, "7"))
    own = quick() - before
    assert len(own) == QUICK_THREADS
    threads.close()
    assert not own & quick()


def quick() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("backstay-quick-")}


def test_a_thread_that_hangs_does_not_hold_up_the_end(threads: QuickThreads) -> None:
    begun, let = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        let.wait(10)

    async def leave() -> None:
        asked = asyncio.create_task(threads.run(hang))
        await asyncio.to_thread(begun.wait, 10)
        asked.cancel()

    asyncio.run(leave())
    threads.close(within_s=0.01)
    assert not let.is_set()
    let.set()
