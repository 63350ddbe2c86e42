"""The only place that asks the system for the time or sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol


class Clock(Protocol):
    """Where time comes from; tests pass a fake one."""

    def now(self) -> datetime:
        """Wall time, aware, UTC."""
        ...

    def now_ns(self) -> int:
        """Wall time in nanoseconds since 1970."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps; only differences mean anything."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


LOOK_S: Final = 0.2  # how soon it is noticed that something should stop


def rest(clock: Clock, seconds: float, stopped: Callable[[], bool]) -> None:
    """Wait, but no longer than until `stopped` says so."""
    until = clock.monotonic() + seconds
    while not stopped() and (left := until - clock.monotonic()) > 0:
        clock.sleep(min(LOOK_S, left))


def datetime_from_ns(ns: int) -> datetime:
    """Aware UTC time of nanoseconds since 1970, cut to microseconds."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


def ns_from_datetime(moment: datetime) -> int:
    """Nanoseconds since 1970 of an aware time, without passing through a float."""
    whole = moment.astimezone(UTC)
    return int(whole.replace(microsecond=0).timestamp()) * 1_000_000_000 + whole.microsecond * 1000
