"""Go easy on the line and on the store: bytes per second, requests per second, calls at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from backstay.core.clock import Clock
from backstay.errors import InvalidRequest
from backstay.storage.archive import Archive, ThawState
from backstay.storage.backend import Buffer, Capabilities, ObjectInfo, StorageBackend
from backstay.storage.retention import LockState, Retention
from backstay.storage.wrapper import Wrapper

_Infos: TypeAlias = Iterator[ObjectInfo]
_Turn: TypeAlias = Callable[[], AbstractContextManager[None]]

LISTED: Final = 1000  # names that stores give in one answer


class TokenBucket:
    """Lets `rate` units pass per second on average, and after a pause what `burst_s` seconds would have let pass.

    What is larger than the bucket is let pass as well, and the debt is waited for: objects are sent whole, so that an
    average is all that can be promised. Waiting callers are served in the order in which they came.
    """

    def __init__(self, rate: float, *, clock: Clock, sleep: Callable[[float], None], burst_s: float = 1.0) -> None:
        if rate <= 0:
            raise InvalidRequest("a limit must be greater than zero", hint="leave it out for no limit")
        self._rate, self._clock, self._sleep, self._burst_s = rate, clock, sleep, burst_s
        self._paid_until = clock.monotonic() - burst_s  # when all that was taken has been let pass
        self._lock = threading.Lock()

    def take(self, amount: float) -> None:
        """Wait until what was taken before has been paid for, then take this."""
        with self._lock:
            now = self._clock.monotonic()
            begin = max(self._paid_until, now - self._burst_s)
            self._paid_until = begin + amount / self._rate
            wait = begin - now
        if wait > 0:
            self._sleep(wait)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitPolicy:
    """Limits of one process; None is no limit. Bytes are those of objects, without what protocols add.

    A request is a call, or a thousand names of a listing. What a protocol makes of one call is not counted, and neither
    are tries after a failure, which have pauses of their own.
    """

    upload: int | None = None  # bytes per second
    download: int | None = None  # bytes per second
    requests: float | None = None  # per second
    concurrency: int | None = None  # calls at the same time


class Limits(Wrapper):
    """Makes callers wait, on their own threads. Nothing is refused."""

    def __init__(
        self,
        inner: StorageBackend,
        policy: LimitPolicy,
        *,
        clock: Clock,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        super().__init__(inner)

        def bucket(rate: float | None) -> TokenBucket | None:
            return None if rate is None else TokenBucket(rate, clock=clock, sleep=sleep or clock.sleep)

        if policy.concurrency is not None and policy.concurrency < 1:
            raise InvalidRequest("a limit must be greater than zero", hint="leave it out for no limit")
        self._upload, self._download = bucket(policy.upload), bucket(policy.download)
        self._requests = bucket(policy.requests)
        self._slots = None if policy.concurrency is None else threading.BoundedSemaphore(policy.concurrency)

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override] # never assigned
        with self._turn():
            return self.inner.capabilities

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        with self._turn():
            _take(self._upload, memoryview(data).nbytes)
            self.inner.store(name, data, overwrite=overwrite)

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        with self._turn():
            _take(self._download, length or 0)
            data = self.inner.retrieve(name, start=start, length=length)
            if length is None:  # only now it is known how much that was; the next one waits for it
                _take(self._download, len(data))
            return data

    def delete(self, name: str) -> None:
        with self._turn():
            self.inner.delete(name)

    def list(self, prefix: str = "") -> _Infos:
        with self._turn():  # whole: one who stores or deletes while he reads a listing must not wait for himself
            found = [*self.inner.list(prefix)]
            _take(self._requests, len(found) // LISTED)  # only now it is known; the next one waits for it
            return iter(found)

    def stat(self, name: str) -> ObjectInfo:
        with self._turn():
            return self.inner.stat(name)

    def exists(self, name: str) -> bool:
        with self._turn():
            return self.inner.exists(name)

    def refuses_damage(self, name: str) -> bool:
        with self._turn():
            return self.inner.refuses_damage(name)

    def archive(self) -> Archive | None:
        found = self.inner.archive()
        return found if found is None or not self._counts_calls else _PacedArchive(found, self._turn)

    def retention(self) -> Retention | None:
        found = self.inner.retention()
        return found if found is None or not self._counts_calls else _PacedRetention(found, self._turn)

    @property
    def _counts_calls(self) -> bool:
        return self._requests is not None or self._slots is not None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._slots is None:
            _take(self._requests, 1)
            yield
            return
        with self._slots:
            _take(self._requests, 1)
            yield


class _PacedArchive(Archive):
    """One request for each object that is asked for."""

    def __init__(self, inner: Archive, turn: _Turn) -> None:
        self._inner, self._turn = inner, turn

    @property
    def usual_s(self) -> float:
        return self._inner.usual_s

    def thaw(self, names: Iterable[str], days: int) -> None:
        for name in names:  # one by one: the archive itself would ask for several at a time
            with self._turn():
                self._inner.thaw((name,), days)

    def thaw_state(self, name: str) -> ThawState:
        with self._turn():
            return self._inner.thaw_state(name)

    def holds(self, name: str, data: bytes) -> bool:
        with self._turn():
            return self._inner.holds(name, data)


class _PacedRetention(Retention):
    """One request for each object whose lock or hold is changed or asked for."""

    def __init__(self, inner: Retention, turn: _Turn) -> None:
        self._inner, self._turn = inner, turn

    @property
    def days(self) -> int:
        return self._inner.days

    def extend(self, name: str, until: datetime) -> None:
        with self._turn():
            self._inner.extend(name, until)

    def hold(self, name: str, *, on: bool) -> None:
        with self._turn():
            self._inner.hold(name, on=on)

    def state(self, name: str) -> LockState:
        with self._turn():
            return self._inner.state(name)


def _take(bucket: TokenBucket | None, amount: float) -> None:
    if bucket is not None and amount:
        bucket.take(amount)
