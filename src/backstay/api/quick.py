"""Threads for answers from the catalog alone.

There are few: more of them than processors only get into each other's way. They never wait for those that read a
repository, which have threads of their own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

from backstay.core.clock import SystemClock

QUICK_THREADS: Final = 2
ENDING_S: Final = 5.0  # for all of them together

ResultT = TypeVar("ResultT")
Arguments = TypeVarTuple("Arguments")


@dataclass(frozen=True, slots=True)
class _Task:
    loop: asyncio.AbstractEventLoop
    told: asyncio.Future[Any]
    work: Callable[[], Any]


class QuickThreads:
    """A few threads that do what they are asked to in order. They begin with the first task, and end with `close`."""

    def __init__(self, count: int = QUICK_THREADS) -> None:
        self._count, self._clock = count, SystemClock()
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._beginning = threading.Lock()

    async def run(self, work: Callable[[Unpack[Arguments]], ResultT], *arguments: *Arguments) -> ResultT:
        """What work returns, or raises; who does not wait for it any more is not told."""
        if not self._threads:
            self._begin()
        loop = asyncio.get_running_loop()
        told: asyncio.Future[ResultT] = loop.create_future()
        self._tasks.put(_Task(loop, told, lambda: work(*arguments)))
        return await told

    def close(self, *, within_s: float = ENDING_S) -> None:
        """Let the threads end, after what they were asked to do; one that takes longer is left alone."""
        for _ in self._threads:
            self._tasks.put(None)
        until = self._clock.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, until - self._clock.monotonic()))
        self._threads.clear()

    def _begin(self) -> None:
        with self._beginning:
            for number in range(len(self._threads), self._count):
                thread = threading.Thread(target=self._serve, name=f"backstay-quick-{number}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                found, error = task.work(), None
            except BaseException as raised:  # noqa: BLE001 - whoever waits for it is told
                found, error = None, raised
            try:
                task.loop.call_soon_threadsafe(_tell, task.told, found, error)
            except RuntimeError:  # the loop has ended, and with it who waited
                continue


def _tell(told: asyncio.Future[Any], found: Any, error: BaseException | None) -> None:  # noqa: ANN401 - any result
    if told.done():
        return
    if error is None:
        told.set_result(found)
    elif isinstance(error, StopIteration):  # which nobody can be told by a future
        told.set_exception(RuntimeError("an endpoint raised StopIteration"))
    else:
        told.set_exception(error)
