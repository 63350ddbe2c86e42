"""Outputs that were made again, until the repository has them: many go in one commit, others may use them before."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import IO, Final

from backstay.core.clock import Clock
from backstay.errors import OutputMismatch
from backstay.graph.produced import PIECE, Produced
from backstay.graph.values import Batch, Values

_MOST: Final = 1000  # outputs that wait
_LARGEST: Final = 64 << 20  # bytes that wait
IN_MEMORY: Final = 16 << 20  # bytes that wait in memory
_OLDEST_S: Final = 5.0  # a crash loses no more work than this


class ResultShelf:
    """Put and stored by one thread, read by any."""

    def __init__(self, values: Values, clock: Clock) -> None:
        self._values, self._clock = values, clock
        self._lock = threading.Lock()
        self._waiting: dict[int, Produced] = {}
        self._since = 0.0
        self._size = self._held = 0

    def put(self, number: int, produced: Produced) -> None:
        """Keep the output of a node."""
        if not self._waiting:
            self._since = self._clock.monotonic()
        with self._lock:
            self._waiting[number] = produced
        self._size += produced.size
        self._held += len(produced.data)

    def due_s(self) -> float | None:
        """Seconds until the repository should get what is here; None if nothing is."""
        if not self._waiting:
            return None
        if len(self._waiting) >= _MOST or self._size >= _LARGEST or self._held >= IN_MEMORY:
            return 0.0
        return max(0.0, self._since + _OLDEST_S - self._clock.monotonic())

    def open(self, number: int) -> Iterator[bytes] | None:
        """The output of a node, if it still lies here."""
        with self._lock:
            produced = self._waiting.get(number)
            if produced is None:
                return None
            if produced.path is None:
                return iter((produced.data,))
            file = produced.path.open("rb")  # from now on it can be read, even if it is removed
        return _read(file)

    def store(self) -> None:
        """Let the repository have everything, durably; then it is gone from here. Raises what the repository raises."""
        if not self._waiting:
            return
        if len(self._waiting) == 1:
            self._give(self._values, next(iter(self._waiting.values())))
        else:
            with self._values.batch() as batch:
                for produced in self._waiting.values():
                    self._give(batch, produced)
        with self._lock:
            stored, self._waiting = self._waiting, {}
        for produced in stored.values():
            produced.forget()
        self._size = self._held = 0

    def _give(self, values: Batch, produced: Produced) -> None:
        key = values.store(produced.data if produced.path is None else produced.path)
        if key != produced.key:
            raise OutputMismatch(
                "an output changed while it was stored", cause=f"it was {produced.key}, now it is {key}"
            )


def _read(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE):
            yield piece
