"""A way to end work that runs on another thread, as far as it can be ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from backstay.core.clock import Clock, SystemClock
from backstay.errors import RecomputeTimeout


class Stopper:
    """Told once to stop; what can be killed is killed then. For several threads."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._preparing_since: float | None = None
        self._prepared_s = 0.0
        self._lock = threading.Lock()
        self._kills: list[Callable[[], None]] = []
        self._stopped = False

    @property
    def stopped(self) -> bool:
        return self._stopped

    def stop(self) -> None:
        """Kill what is registered now, and whatever registers later."""
        with self._lock:
            self._stopped = True
            kills, self._kills = self._kills, []
        for kill in kills:
            kill()

    @property
    def preparing_s(self) -> float:
        """Seconds that went into getting ready, which are not the work's own."""
        since = self._preparing_since
        return self._prepared_s + (0.0 if since is None else self._clock.monotonic() - since)

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Within, the work only gets ready: a process starts."""
        since = self._preparing_since = self._clock.monotonic()
        try:
            yield
        finally:
            self._prepared_s, self._preparing_since = self._clock.monotonic() - since, None

    @contextmanager
    def killing(self, kill: Callable[[], None]) -> Iterator[None]:
        """Within, `kill` is what stopping does; raises RecomputeTimeout if it was told to stop already."""
        with self._lock:
            if self._stopped:
                raise RecomputeTimeout("the recomputation was given up before it began")
            self._kills.append(kill)
        try:
            yield
        finally:
            with self._lock:
                if kill in self._kills:
                    self._kills.remove(kill)
