"""Who of those that tell again and again that they live has fallen silent.

No two clocks are compared: whoever watches looks only at whether what was written changes, and counts the time by its
own clock that never jumps. A watcher that was itself asleep, or could not read, begins to count anew: it must not take
its own absence for that of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from backstay.core.clock import Clock


class Silences:
    """Remembers between looks since when each has said nothing new."""

    def __init__(self, clock: Clock, lease_s: float) -> None:
        self._clock, self._lease_s = clock, lease_s
        self._seen: dict[str, tuple[datetime, float]] = {}
        self._looked: float | None = None

    def of(self, told: Mapping[str, datetime]) -> tuple[str, ...]:
        """Those who were silent for the whole of a lease in which we looked all the time, by what each told last."""
        now = self._clock.monotonic()
        if self._looked is None or now - self._looked > self._lease_s / 2:
            self._seen = {}
        self._looked = now
        before = self._seen
        self._seen = {name: _since(before.get(name), last, now) for name, last in told.items()}
        return tuple(name for name, (_, since) in self._seen.items() if now - since > self._lease_s)


def _since(before: tuple[datetime, float] | None, told: datetime, now: float) -> tuple[datetime, float]:
    """Since when we have seen the same word."""
    return before if before is not None and before[0] == told else (told, now)
