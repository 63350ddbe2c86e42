"""A way to end work that runs on another thread, as far as it can be ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from backstay.errors import RecomputeTimeout


class Stopper:
    """Told once to stop; what can be killed is killed then. For several threads."""

    def __init__(self) -> None:
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
