"""Where recomputations run: on threads of this process, which is the default, or wherever an executor takes them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from backstay.graph.produced import Produced
from backstay.graph.ways import Job, Way, as_failure


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A job, the way to do it, and what is to be done with its result on the same thread: checks, and putting it away.

    When `finish` raises, the task has failed.
    """

    job: Job
    way: Way
    finish: Callable[[Produced], None]


class Executor(Protocol):
    """Does tasks, so many at once as `parallel` says; whoever submits does not go beyond."""

    @property
    def parallel(self) -> int:
        """How many tasks it does at once."""
        ...

    def submit(self, task: Task) -> Future[Produced]:
        """Begin a task at once. The future's error is a BackstayError that names the node."""
        ...

    def give_up(self, task: Task) -> str:
        """End a task as far as that is possible, without waiting for it; what became of it, in words."""
        ...

    def close(self) -> None:
        """End whatever still runs. Never waits for what cannot be ended."""
        ...


class ThreadExecutor:
    """One thread for each task. A function that hangs cannot be killed: its thread goes on, but keeps nobody.

    The threads are daemons, so that even one that never ends does not keep the program from ending.
    """

    def __init__(self, parallel: int | None = None) -> None:
        self._parallel = parallel or os.cpu_count() or 1
        self._running: set[Task] = set()
        self._lock = threading.Lock()

    @property
    def parallel(self) -> int:
        return self._parallel

    def submit(self, task: Task) -> Future[Produced]:
        future: Future[Produced] = Future()
        with self._lock:
            self._running.add(task)
        name = f"recompute {task.job.node.id}"
        threading.Thread(target=self._do, args=(task, future), name=name, daemon=True).start()
        return future

    def give_up(self, task: Task) -> str:
        task.job.stopper.stop()
        with self._lock:
            self._running.discard(task)
        return self.fate(task.way)

    def close(self) -> None:
        with self._lock:
            running, self._running = self._running, set()
        for task in running:
            task.job.stopper.stop()

    def adapt(self, way: Way) -> Way:
        """How this executor goes that way; for those that take functions elsewhere."""
        return way

    def fate(self, way: Way) -> str:
        """What becomes of a job that is given up."""
        if way.killable:
            return "its process was killed"
        return "it runs on a thread, which cannot be stopped: it goes on, and what it gives is thrown away"

    def _do(self, task: Task, future: Future[Produced]) -> None:
        try:
            produced = self.adapt(task.way).make(task.job)
            if not task.job.stopper.stopped:
                task.finish(produced)
        except BaseException as error:  # noqa: BLE001 - whatever a function raises, also SystemExit, is its node's failure
            future.set_exception(as_failure(task.job.node.id, error))
        else:
            future.set_result(produced)
        finally:
            with self._lock:
                self._running.discard(task)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
