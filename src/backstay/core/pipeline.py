"""Bounded work on threads: order is kept, the first error wins, nothing is left running."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


_YIELD: Final = 3  # steps of niceness; each gives a tenth to others


def _yield_to_others() -> None:
    """Lower the priority of this thread alone, which only Linux knows (sched(7), "The nice value")."""
    if sys.platform == "linux":
        me = threading.get_native_id()
        with suppress(OSError):  # where that is forbidden, all are equal
            os.setpriority(os.PRIO_PROCESS, me, os.getpriority(os.PRIO_PROCESS, me) + _YIELD)


@dataclass(slots=True)
class _Pending(Generic[Result]):
    result: Result | Future[Result]
    weight: int


class Workers:
    """A pool of threads whose results are taken in the order of their submission."""

    def __init__(self, threads: int, name: str, *, yielding: bool = False) -> None:
        """With `yielding` they leave processors to the threads that bring them their work, where the system can."""
        self.threads = threads
        begin = _yield_to_others if yielding else None
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=begin)

    def submit(self, work: Callable[[Item], Result], item: Item) -> Future[Result]:
        return self._pool.submit(work, item)

    def ordered(
        self,
        work: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        weigh: Callable[[Item], int],
        limit: int,
        inline: Callable[[Item], bool] | None = None,
    ) -> Iterator[Result]:
        """`work(item)` for each item, in order, while at most `limit` of weight (say bytes) is under way.

        `inline` picks items that are not worth a thread. `items` is consumed on the calling thread. When a work
        fails, its error is raised here and what was not begun is cancelled.
        """
        pending: deque[_Pending[Result]] = deque()
        total = 0
        try:
            for item in items:
                if inline is not None and inline(item):
                    pending.append(_Pending(work(item), 0))
                else:
                    weight = weigh(item)
                    total += weight
                    pending.append(_Pending(self._pool.submit(work, item), weight))
                while pending and (total > limit or _is_done(pending[0].result)):
                    total -= pending[0].weight
                    yield _value(pending.popleft().result)
            while pending:
                yield _value(pending.popleft().result)
        finally:
            for left in pending:
                if isinstance(left.result, Future):
                    left.result.cancel()

    def close(self) -> None:
        """Cancel what has not begun and wait for what has."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_done(result: Result | Future[Result]) -> bool:
    return not isinstance(result, Future) or result.done()


def _value(result: Result | Future[Result]) -> Result:
    try:
        return result.result() if isinstance(result, Future) else result
    finally:
        del result  # an error that comes out of it knows this frame, which must not know it in turn


_END: Final = object()


def read_ahead(items: Iterator[Item], *, depth: int) -> Iterator[Item]:
    """Run an iterator on a thread of its own, at most `depth` items ahead; its error is raised in turn.

    Closing the generator stops the thread at its next item.
    """
    # Room goes one way and items the other: these queues need no condition, which takes the interpreter several turns.
    room: queue.SimpleQueue[None] = queue.SimpleQueue()
    ready: queue.SimpleQueue[object] = queue.SimpleQueue()
    for _ in range(depth):
        room.put(None)
    stop = threading.Event()
    failure: list[BaseException] = []

    def produce() -> None:
        try:
            for item in items:
                room.get()
                if stop.is_set():
                    return
                ready.put(item)
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
            failure.append(error)
        ready.put(_END)

    thread = threading.Thread(target=produce, name="read-ahead", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not _END:
            room.put(None)
            yield item  # type: ignore[misc]
        if failure:
            raise failure.pop()  # which knows this frame, and is not known by it
    finally:
        stop.set()
        room.put(None)
        thread.join()
