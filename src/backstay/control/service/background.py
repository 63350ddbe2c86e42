"""What happens by itself while the service runs: each task in a thread of its own, so that none delays another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backstay.core.clock import Clock
from backstay.errors import BackstayError


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Something to be done every so many seconds, counted from its end."""

    name: str
    every_s: float
    run: Callable[[], object]


class Background:
    """Runs tasks until it is stopped. A task that fails is told of once, and tried again at its next time."""

    def __init__(self, tasks: Sequence[Task], clock: Clock, warn: Callable[[str], None]) -> None:
        self._clock, self._warn = clock, warn
        self._ended = threading.Event()
        self._last: dict[str, str] = {}
        self._threads = [
            threading.Thread(target=self._repeat, args=(task,), name=f"backstay-{task.name}", daemon=True)
            for task in tasks
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Begin no task any more."""
        self._ended.set()

    def join(self, until: float) -> None:
        """Let each task come to the end of what it does; one that takes longer, by the monotonic clock, is left."""
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - self._clock.monotonic()))

    def _repeat(self, task: Task) -> None:
        while not self._ended.is_set():
            try:
                task.run()
            except Exception as error:  # noqa: BLE001 - the next time may go well, and nobody else would come
                self._failed(task, error)
            else:
                self._went_well(task)
            self._ended.wait(task.every_s)

    def _failed(self, task: Task, error: Exception) -> None:
        text = str(error) if isinstance(error, BackstayError) else f"{type(error).__name__}: {error}"
        if self._last.get(task.name) != text:
            self._last[task.name] = text
            self._warn(f"{task.name}: {text}")

    def _went_well(self, task: Task) -> None:
        if self._last.pop(task.name, None) is not None:
            self._warn(f"{task.name}: works again")
