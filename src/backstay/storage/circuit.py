"""When an endpoint has failed so often that asking it again only costs time."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal, TypeAlias

from backstay.core.clock import Clock
from backstay.core.quantities import format_duration
from backstay.errors import StorageUnavailable

Turn: TypeAlias = Literal["normal", "probe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitPolicy:
    """After `failures` operations in a row that gave up, nothing is tried for `open_s` seconds."""

    failures: int = 3
    open_s: float = 30.0


class Circuit:
    """What is known of one endpoint; all operations on it share one of these, from any thread.

    Operations are counted, not tries: with many threads a pause of a second fails many tries, and an operation that
    still has time to wait must not be given up because others met the same pause.
    """

    def __init__(self, policy: CircuitPolicy, clock: Clock) -> None:
        self._policy, self._clock = policy, clock
        self._failed = 0  # operations in a row
        self._opened: float | None = None
        self._probing = False
        self._lock = threading.Lock()

    def admit(self, url: str) -> Turn:
        """Whether an operation may begin; after the pause one alone may, to see. Raises StorageUnavailable."""
        with self._lock:
            if self._opened is None:
                return "normal"
            rest = self._opened + self._policy.open_s - self._clock.monotonic()
            if rest <= 0 and not self._probing:
                self._probing = True
                return "probe"
            raise self._refusal(url, max(rest, 0.0))

    def succeeded(self) -> None:
        """The endpoint answered, were it with a refusal."""
        with self._lock:
            self._failed, self._opened, self._probing = 0, None, False

    def failed(self) -> None:
        """An operation gave up."""
        with self._lock:
            self._failed += 1
            if self._probing or (self._opened is None and self._failed >= self._policy.failures):
                self._opened, self._probing = self._clock.monotonic(), False

    def ended(self, turn: Turn) -> None:
        """An operation is over, whatever became of it: by Ctrl-C neither of the above may have been told."""
        if turn == "probe":
            with self._lock:
                self._probing = False

    def _refusal(self, url: str, rest: float) -> StorageUnavailable:
        when = f"in {format_duration(rest)}" if rest else "as soon as the one try under way has ended"
        return StorageUnavailable(
            f"{url} is not asked for the moment",
            cause=f"{self._failed} operations in a row failed there; it is tried again {when}",
            hint="check that it is reachable, then repeat the command",
            retry_after=rest,
        )
