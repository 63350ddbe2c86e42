"""How often something may be done: a moving window for each who does it, in this process."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from backstay.control.policies.access import RateLimits as Settings
from backstay.control.policies.access import parse_rate
from backstay.core.clock import Clock
from backstay.errors import InvalidRequest, RateLimited

LimitKind: TypeAlias = Literal["login", "login_address", "unrecognised", "api", "restore"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """So many times within any so many seconds."""

    times: int
    seconds: float

    def __post_init__(self) -> None:
        if self.times < 1 or not 0 < self.seconds <= 86400:
            raise InvalidRequest(
                f"{self.times} times in {self.seconds} seconds cannot be a limit",
                hint="allow something at least once, in a day or less",
            )


DEFAULT_RATES: Final[Mapping[LimitKind, Rate]] = MappingProxyType(
    {
        "login": Rate(times=5, seconds=60),  # of one name from one address
        "login_address": Rate(times=30, seconds=60),  # of all names from one address
        "unrecognised": Rate(times=60, seconds=60),  # credentials that are not valid, from one address
        "api": Rate(times=600, seconds=60),
        "restore": Rate(times=10, seconds=3600),
    }
)


def rates_of(settings: Settings | None) -> Mapping[LimitKind, Rate]:
    """The limits of a policy file, with the usual ones where it says nothing."""
    found = dict(DEFAULT_RATES)
    for kind in DEFAULT_RATES:
        if settings is not None and (text := getattr(settings, kind)) is not None:
            times, seconds = parse_rate(text)
            found[kind] = Rate(times=times, seconds=seconds)
    return found


_MOST_KEYS: Final = 100_000  # of all kinds; who was seen least lately is forgotten first


class RateLimits:
    """Counts by a clock that never jumps. What was refused does not count, so that who waits is let in."""

    def __init__(self, clock: Clock, rates: Mapping[LimitKind, Rate] = DEFAULT_RATES) -> None:
        self._clock = clock
        self._rates = {**DEFAULT_RATES, **rates}
        self._seen: OrderedDict[tuple[LimitKind, str], deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def hit(self, kind: LimitKind, key: str) -> None:
        """Count one more. Raises RateLimited, which says after how many seconds it would be allowed."""
        self._allow(kind, key, count=True)

    def look(self, kind: LimitKind, key: str) -> None:
        """Raise RateLimited if one more would be too many, without counting it."""
        self._allow(kind, key, count=False)

    def _allow(self, kind: LimitKind, key: str, *, count: bool) -> None:
        rate, now = self._rates[kind], self._clock.monotonic()
        with self._lock:
            times = self._seen.get((kind, key), deque())
            while times and times[0] <= now - rate.seconds:
                times.popleft()
            if len(times) >= rate.times:
                wait = max(1, math.ceil(times[0] + rate.seconds - now))
                raise RateLimited("too many requests", cause=_told(kind, rate), retry_after=wait)
            if count:
                times.append(now)
                self._keep((kind, key), times)

    def _keep(self, key: tuple[LimitKind, str], times: deque[float]) -> None:
        self._seen[key] = times
        self._seen.move_to_end(key)
        if len(self._seen) > _MOST_KEYS:
            self._seen.popitem(last=False)


def _told(kind: LimitKind, rate: Rate) -> str:
    return f"the limit for {kind.replace('_', ' ')} is {rate.times} in {rate.seconds:g} seconds"
