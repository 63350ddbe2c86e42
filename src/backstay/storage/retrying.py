"""Try again what failed for the moment; the one place where storage calls are repeated.

A create that is repeated is the hard case: its first try may have taken effect although the answer was lost. Then
the second try says ObjectExists, and only the stored bytes can tell whether that is our own object:

- Bytes under a name that says what they are (packs, index segments, slots) are ours if they are what we wanted to
  store. If they are not, a store that is not atomic kept a torn first try: it is replaced, for nothing else can
  belong there.
- Under every other name equal bytes are success, and different ones ObjectExists. Where a writer and a collector
  race for `snapshots/<id>`, commit and fence are sealed with fresh randomness, so that neither takes the other's
  object, nor another program's of the same kind, for its own.

ObjectExists at the first try is passed on without a look, as the contract wants it: of two callers with the same
bytes one loses. Engines therefore must not repeat creates themselves.
"""

from __future__ import annotations

import random as random_numbers
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias, TypeVar

from backstay.core.clock import Clock
from backstay.core.quantities import format_duration
from backstay.errors import BackstayError, ObjectExists, ObjectNotFound, StorageUnavailable
from backstay.storage.addressing import contradicts_name, is_addressed
from backstay.storage.archive import Archive, ThawState
from backstay.storage.backend import Buffer, Capabilities, ObjectInfo, StorageBackend
from backstay.storage.circuit import Circuit, CircuitPolicy
from backstay.storage.retention import LockState, Retention
from backstay.storage.wrapper import Wrapper

Chance: TypeAlias = Callable[[], float]  # a number from 0 to 1
_Infos: TypeAlias = Iterator[ObjectInfo]
T = TypeVar("T")

_CHANCE: Final[Chance] = random_numbers.SystemRandom().random


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long to go on; times in seconds.

    Before try n (from 2) there is a pause of chance * min(longest_s, first_s * 2 ** (n - 2)), at least what the
    store asked for. No try begins later than `deadline_s` after the first, plus the time that the object's bytes
    take at `slowest` bytes per second.
    """

    first_s: float = 0.5
    longest_s: float = 20.0
    deadline_s: float = 180.0
    slowest: int = 256 << 10
    circuit: CircuitPolicy = field(default_factory=CircuitPolicy)


class Retrying(Wrapper):
    """Repeats what fails with a `transient` error, with growing pauses, until a deadline. Any thread may call it.

    Give the same `circuit` to all backends of one endpoint. A call that was given up may have taken effect or may
    still do so, as with every store.
    """

    def __init__(
        self,
        inner: StorageBackend,
        *,
        policy: RetryPolicy | None = None,
        clock: Clock,
        sleep: Callable[[float], None] | None = None,
        random: Chance = _CHANCE,
        circuit: Circuit | None = None,
    ) -> None:
        super().__init__(inner)
        self._policy = policy or RetryPolicy()
        self._clock, self._sleep, self._random = clock, sleep or clock.sleep, random
        self._circuit = circuit or Circuit(self._policy.circuit, clock)

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override] # never assigned
        return self._repeat(lambda: self.inner.capabilities)

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        storing = _Storing(self.inner, name, data, overwrite=overwrite)
        self._repeat(storing.once, size=memoryview(data).nbytes)

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        return self._repeat(
            lambda: self.inner.retrieve(name, start=start, length=length),
            size=length or 0,
            is_final=lambda: self._is_past_end(name, start, length),
        )

    def delete(self, name: str) -> None:
        self._repeat(lambda: self.inner.delete(name))

    def list(self, prefix: str = "") -> _Infos:
        # All names are gathered before the first is given: a listing that breaks off begins anew, and a caller who
        # had seen a part of the first attempt would see names twice.
        return iter(self._repeat(lambda: [*self.inner.list(prefix)]))

    def stat(self, name: str) -> ObjectInfo:
        return self._repeat(lambda: self.inner.stat(name))

    def exists(self, name: str) -> bool:
        return self._repeat(lambda: self.inner.exists(name))

    def refuses_damage(self, name: str) -> bool:
        return self._repeat(lambda: self.inner.refuses_damage(name))

    def sweep_temporaries(self, older_than_s: float) -> int:
        return self._repeat(lambda: self.inner.sweep_temporaries(older_than_s))

    def retention(self) -> Retention | None:
        locks = self.inner.retention()
        return None if locks is None else _PatientRetention(locks, self)

    def archive(self) -> Archive | None:
        found = self.inner.archive()
        return None if found is None else _PatientArchive(found, self)

    def _is_past_end(self, name: str, start: int, length: int | None) -> bool:
        """Whether a range failed because the object is too short, which no second try will change."""
        if not start and length is None:
            return False
        try:
            return self.inner.stat(name).size < start + (length or 0)
        except StorageUnavailable:
            return False

    def repeat(self, work: Callable[[], T]) -> T:
        """The result of some other call to the same store, which may be made any number of times."""
        return self._repeat(work)

    def _repeat(self, work: Callable[[], T], *, size: int = 0, is_final: Callable[[], bool] = lambda: False) -> T:
        """The result of the first try that gives one. Errors that are not transient, or final, are raised at once."""
        turn = self._circuit.admit(self.url)
        begun = self._clock.monotonic()
        deadline = begun + (0.0 if turn == "probe" else self._policy.deadline_s + size / self._policy.slowest)
        tries = 0
        try:
            while True:
                tries += 1
                try:
                    result = work()
                except BackstayError as error:
                    if not error.transient or is_final():
                        self._circuit.succeeded()
                        raise
                    pause = self._pause(tries, error)
                    if self._clock.monotonic() + pause > deadline:
                        self._circuit.failed()
                        raise _given_up(error, tries, self._clock.monotonic() - begun) from error
                else:
                    self._circuit.succeeded()
                    return result
                self._sleep(pause)
        finally:
            self._circuit.ended(turn)

    def _pause(self, tries: int, error: BackstayError) -> float:
        """Seconds before the next try: full jitter, so that many who failed together do not come back together."""
        longest = min(self._policy.longest_s, self._policy.first_s * 2.0 ** min(tries - 1, 60))
        asked = error.retry_after if isinstance(error, StorageUnavailable) else None
        return max(self._random() * longest, asked or 0.0)


class _PatientRetention(Retention):
    """Each of its calls says what shall be, so that doing it twice is as good as once."""

    def __init__(self, inner: Retention, retrying: Retrying) -> None:
        self._inner, self._retrying = inner, retrying

    @property
    def days(self) -> int:
        return self._inner.days

    def extend(self, name: str, until: datetime) -> None:
        self._retrying.repeat(lambda: self._inner.extend(name, until))

    def hold(self, name: str, *, on: bool) -> None:
        self._retrying.repeat(lambda: self._inner.hold(name, on=on))

    def state(self, name: str) -> LockState:
        return self._retrying.repeat(lambda: self._inner.state(name))


class _PatientArchive(Archive):
    """What was asked for is not asked for twice by being asked again, so that these may be repeated too."""

    def __init__(self, inner: Archive, retrying: Retrying) -> None:
        self._inner, self._retrying = inner, retrying

    @property
    def usual_s(self) -> float:
        return self._inner.usual_s

    def thaw(self, names: Iterable[str], days: int) -> None:
        batch = [*names]
        self._retrying.repeat(lambda: self._inner.thaw(batch, days))

    def thaw_state(self, name: str) -> ThawState:
        return self._retrying.repeat(lambda: self._inner.thaw_state(name))

    def holds(self, name: str, data: bytes) -> bool:
        return self._retrying.repeat(lambda: self._inner.holds(name, data))


class _Storing:
    """One `store` over all of its tries; remembers whether an earlier one may have taken effect."""

    def __init__(self, inner: StorageBackend, name: str, data: Buffer, *, overwrite: bool) -> None:
        self._inner, self._name, self._data, self._overwrite = inner, name, data, overwrite
        self._in_doubt = False

    def once(self) -> None:
        try:
            self._inner.store(self._name, self._data, overwrite=self._overwrite)
        except ObjectExists:
            if not self._in_doubt:
                raise
            self._settle()
        except StorageUnavailable:
            self._in_doubt = True
            raise

    def _settle(self) -> None:
        """The name is taken after a try without an answer: by that try, or by somebody else?"""
        try:
            found = self._inner.retrieve(self._name)
        except ObjectNotFound:  # deleted since: whoever took the name is gone, and so may be our own object
            raise StorageUnavailable(
                f"cannot tell whether {self._name} was stored", cause="it was there, and was deleted meanwhile"
            ) from None
        if found == bytes(self._data):
            return
        if not is_addressed(self._name) or contradicts_name(self._name, self._data):
            raise ObjectExists(self._name)
        self._inner.store(self._name, self._data, overwrite=True)


def _given_up(error: BackstayError, tries: int, seconds: float) -> StorageUnavailable:
    told = f"tried {tries} times in {format_duration(seconds)}" if tries > 1 else "tried once"
    return StorageUnavailable(
        error.title,
        cause=f"{error.cause}; {told}" if error.cause else told,
        hint=error.hint,
        retry_after=getattr(error, "retry_after", None),
    )
