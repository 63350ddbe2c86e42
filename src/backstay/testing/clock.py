"""A clock that stands still until it is told to move."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Final

from backstay.core.clock import datetime_from_ns, ns_from_datetime

_START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock:
    """A `Clock` for tests: `sleep` and `advance` move both clocks at once, `jump` only the wall clock."""

    def __init__(self, start: datetime = _START) -> None:
        self._wall_ns = ns_from_datetime(start)
        self._monotonic_ns = 0
        self._lock = threading.Lock()
        self.slept: list[float] = []  # every wait that was asked for, in order

    def now(self) -> datetime:
        return datetime_from_ns(self._wall_ns)

    def now_ns(self) -> int:
        return self._wall_ns

    def monotonic(self) -> float:
        return self._monotonic_ns / 1e9

    def sleep(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("cannot sleep for a negative time")
        self.slept.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._wall_ns += round(seconds * 1e9)
            self._monotonic_ns += round(seconds * 1e9)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or a broken NTP server does."""
        with self._lock:
            self._wall_ns += round(seconds * 1e9)
