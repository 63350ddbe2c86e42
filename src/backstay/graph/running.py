"""Recomputations under way: how many, how much memory they may take together, and until when each must have ended."""

from __future__ import annotations

import os
import queue
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from backstay.core.clock import Clock
from backstay.core.quantities import format_duration
from backstay.errors import BackstayError, RecomputeTimeout
from backstay.graph.executors import Executor, Task
from backstay.graph.policy import RegenerationPolicy
from backstay.graph.produced import Produced

_SHARE: Final = 0.8  # of the machine's memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Attempt:
    """One try at one node. It may take `allowed` seconds, besides those in which its process started."""

    number: int
    task: Task
    begun: float
    allowed: float

    @property
    def until(self) -> float:
        """When it must have ended, by the monotonic clock."""
        return self.begun + self.allowed + self.task.job.stopper.preparing_s


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What came out of an attempt: an output, or why there is none."""

    attempt: Attempt
    seconds: float
    produced: Produced | None = None
    error: BackstayError | None = None


class Running:
    """For one thread, which never waits for a task that it could not give up."""

    def __init__(self, executor: Executor, policy: RegenerationPolicy, clock: Clock) -> None:
        self._executor, self._policy, self._clock = executor, policy, clock
        self._most = policy.parallel or executor.parallel
        self._memory = policy.memory_limit or _machine_memory()
        self._attempts: set[Attempt] = set()
        self._used = 0
        self._ended: queue.SimpleQueue[tuple[Attempt, Future[Produced]] | None] = queue.SimpleQueue()

    def __len__(self) -> int:
        return len(self._attempts)

    def has_room_for(self, memory: int) -> bool:
        """Whether one more may begin. The first always may, whatever it takes, so that it never waits for nothing."""
        if not self._attempts:
            return True
        return len(self._attempts) < min(self._most, self._executor.parallel) and self._used + memory <= self._memory

    def begin(self, number: int, task: Task) -> None:
        """Begin; there must be room."""
        metadata, now = task.job.node.metadata, self._clock.monotonic()
        allowed = self._policy.deadline_of(metadata.computation_time)
        attempt = Attempt(number=number, task=task, begun=now, allowed=allowed)
        self._attempts.add(attempt)
        self._used += metadata.memory_usage
        future = self._executor.submit(task)
        future.add_done_callback(lambda done: self._ended.put((attempt, done)))

    def ring(self) -> None:
        """Let `wait` return; from any thread."""
        self._ended.put(None)

    def wait(self, seconds: float | None) -> list[Ended]:
        """What ended, by itself or because its time was over: at least one, unless so many seconds pass or it rings."""
        now = self._clock.monotonic()
        times = [attempt.until - now for attempt in self._attempts]
        if seconds is not None:
            times.append(seconds)
        ended: list[Ended] = []
        try:
            item = self._ended.get(timeout=max(0.0, min(times))) if times else self._ended.get()
            while True:
                if item is not None and item[0] in self._attempts:
                    ended.append(self._end(*item))
                item = self._ended.get_nowait()
        except queue.Empty:
            pass
        now = self._clock.monotonic()
        overdue = [attempt for attempt in self._attempts if attempt.until <= now]
        return ended + [self._overdue(attempt) for attempt in overdue]

    def give_up(self) -> None:
        """End all that runs, as far as it can be ended, and forget it."""
        for attempt in list(self._attempts):
            self._remove(attempt)
            self._executor.give_up(attempt.task)

    def _end(self, attempt: Attempt, future: Future[Produced]) -> Ended:
        seconds = self._remove(attempt)
        error = future.exception()
        if error is None:
            return Ended(attempt=attempt, seconds=seconds, produced=future.result())
        assert isinstance(error, BackstayError)
        return Ended(attempt=attempt, seconds=seconds, error=error)

    def _overdue(self, attempt: Attempt) -> Ended:
        seconds = self._remove(attempt)
        fate = self._executor.give_up(attempt.task)
        allowed = format_duration(attempt.allowed)
        error = RecomputeTimeout(
            f"{attempt.task.job.node.id}: its recomputation took longer than {allowed}", cause=fate
        )
        return Ended(attempt=attempt, seconds=seconds, error=error)

    def _remove(self, attempt: Attempt) -> float:
        self._attempts.discard(attempt)
        self._used -= attempt.task.job.node.metadata.memory_usage
        return self._clock.monotonic() - attempt.begun


def _machine_memory() -> int:
    return int(_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
