"""When an endpoint has failed so often that asking it again only costs time."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class _Endpoint:
    """What was seen of a server, by all who talk to it."""

    failed: int = 0  # operations in a row
    at: float = 0.0  # when the latest of them gave up
    probing: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class Circuit:
    """What is known of one endpoint; all operations on it share that, from any thread.

    Operations are counted, not tries: with many threads a pause of a second fails many tries, and an operation that
    still has time to wait must not be given up because others met the same pause.
    """

    def __init__(self, policy: CircuitPolicy, clock: Clock, *, endpoint: _Endpoint | None = None) -> None:
        self._policy, self._clock = policy, clock
        self._endpoint = endpoint or _Endpoint()

    def under(self, policy: CircuitPolicy) -> Circuit:
        """The same knowledge, with another policy to act by."""
        return Circuit(policy, self._clock, endpoint=self._endpoint)

    def admit(self, url: str) -> Turn:
        """Whether an operation may begin; after the pause one alone may, to see. Raises StorageUnavailable."""
        endpoint = self._endpoint
        with endpoint.lock:
            if endpoint.failed < self._policy.failures:
                return "normal"
            rest = endpoint.at + self._policy.open_s - self._clock.monotonic()
            if rest <= 0 and not endpoint.probing:
                endpoint.probing = True
                return "probe"
            raise self._refusal(url, max(rest, 0.0))

    def succeeded(self) -> None:
        """The endpoint answered, were it with a refusal."""
        with self._endpoint.lock:
            self._endpoint.failed, self._endpoint.probing = 0, False

    def failed(self) -> None:
        """An operation gave up."""
        with self._endpoint.lock:
            self._endpoint.failed += 1
            self._endpoint.at = self._clock.monotonic()

    def ended(self, turn: Turn) -> None:
        """An operation is over, whatever became of it: by Ctrl-C neither of the above may have been told."""
        if turn == "probe":
            with self._endpoint.lock:
                self._endpoint.probing = False

    def _refusal(self, url: str, rest: float) -> StorageUnavailable:
        when = f"in {format_duration(rest)}" if rest else "as soon as the one try under way has ended"
        return StorageUnavailable(
            f"{url} is not asked for the moment",
            cause=f"{self._endpoint.failed} operations in a row failed there; it is tried again {when}",
            hint="check that it is reachable, then repeat the command",
            retry_after=rest,
        )
