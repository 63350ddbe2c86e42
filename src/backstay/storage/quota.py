"""A limit to the size of a repository, checked before anything is sent."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

from backstay.core.clock import Clock
from backstay.core.ids import Random
from backstay.core.quantities import format_size
from backstay.errors import BackstayError, InvalidRequest, ObjectExists, QuotaExceeded
from backstay.storage.backend import Buffer, StorageBackend
from backstay.storage.quota_ledger import QuotaLedger
from backstay.storage.wrapper import Wrapper

Warn: TypeAlias = Callable[[str], None]
THRESHOLDS: Final = (80, 90, 95)  # percent
_BLOCKS: Final = 100  # so many claims make up the limit: one of these parts is claimed at once
_CHARGED: Final = ("packs/", "meta/", "index/")  # all else is small, and needed to free space or to end in order
MEASURE_EVERY_S: Final = 24 * 3600
_TRIES: Final = 6  # when several writers claim the last bytes at once
_PAUSE_S: Final = 0.2


class Quota(Wrapper):
    """Refuses packs and index segments that would make the repository larger than `max_size` bytes.

    Writers on any host share the ledger that lies in the store. Records and deletions are never refused, so that
    running backups can end in order and prune and gc can free space; gc itself works without this wrapper, because it
    writes before it deletes. `warn` is told when 80, 90 and 95 % are reached, once each per process.
    """

    def __init__(
        self,
        inner: StorageBackend,
        *,
        max_size: int,
        clock: Clock,
        sleep: Callable[[float], None] | None = None,
        random: Random = os.urandom,
        warn: Warn = lambda text: None,  # noqa: ARG005
    ) -> None:
        super().__init__(inner)
        if max_size <= 0:
            raise InvalidRequest("a size limit must be greater than zero", hint="leave it out for no limit")
        self._max = max_size
        self._block = max(max_size // _BLOCKS, 1)
        self._clock = clock
        self._ledger = QuotaLedger(inner, clock=clock, random=random)
        self._sleep, self._random, self._warn = sleep or clock.sleep, random, warn
        self._claimed = 0  # bytes that this writer may store, all told
        self._stored = 0  # of which so many are, or are about to be
        self._done = 0  # of which so many surely are
        self._warned = 0
        self._lock = threading.Lock()

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        if not name.startswith(_CHARGED):
            self.inner.store(name, data, overwrite=overwrite)
            return
        size = memoryview(data).nbytes
        self._charge(size)
        try:
            self.inner.store(name, data, overwrite=overwrite)
        except ObjectExists:
            with self._lock:  # nothing new was stored; after any other error something may have been
                self._stored -= size
            raise
        with self._lock:
            self._done += size

    def close(self) -> None:
        """Tell the ledger what was really stored, then close the store."""
        with self._lock:
            if self._claimed:
                try:
                    self._ledger.end(self._stored)
                except BackstayError as error:  # the claim stays: too much is counted until its lease has passed
                    self._warn(f"the size of {self.url} could not be recorded: {error}")
                self._claimed = 0
        super().close()

    def _charge(self, size: int) -> None:
        with self._lock:
            if self._stored + size > self._claimed:
                self._claim(size)
            self._stored += size

    def _claim(self, size: int) -> None:
        """Claim room for `size` bytes more, a block if there is so much. Raises QuotaExceeded."""
        measured = not self._claimed and self._is_due()
        if measured:
            self._measure()
        need, block = self._stored + size, self._stored + max(size, self._block)
        for attempt in range(_TRIES):
            if any(self._try(wanted) for wanted in sorted({block, need}, reverse=True)):
                return
            if not measured:  # snapshots may have been pruned since, and writers may have ended
                self._measure()
                measured = True
            elif self._used(need) > self._max:
                break
            else:  # it would fit but for claims that came and went at the same time
                self._sleep(_PAUSE_S * 2**attempt * (1 + self._random(1)[0] / 255))
        raise self._exceeded(size)

    def _try(self, wanted: int) -> bool:
        """Claim first and look then: of two writers that do so at once, at least one sees the other."""
        claim = self._ledger.claim(wanted, done=self._done)
        used = self._used(wanted)
        if used > self._max:
            self._ledger.withdraw(claim)
            return False
        self._claimed = wanted
        self._tell(used)
        return True

    def _used(self, claim: int) -> int:
        """What is used, by the ledger as it is now, if this writer claims so much."""
        balance = self._ledger.read()
        if not balance.totals:  # all that there were went while they were read
            self._measure()
            balance = self._ledger.read()
        return balance.used(self._ledger.writer, claim)

    def _is_due(self) -> bool:
        """Whether the store was not measured for long: somebody may write without a limit, or put objects there."""
        return self._clock.now_ns() - self._ledger.read().measured_ns > MEASURE_EVERY_S * 10**9

    def _measure(self) -> None:
        """Count the store anew; what this writer has stored up to now is then known to be contained."""
        if self._claimed:
            self._ledger.claim(self._claimed, done=self._done)
        self._ledger.measure()

    def _tell(self, used: int) -> None:
        percent = used * 100 // self._max
        reached = max((level for level in THRESHOLDS if percent >= level), default=0)
        if reached > self._warned:
            self._warned = reached
            self._warn(f"{self.url} has reached {reached} % of its limit of {format_size(self._max)}")

    def _exceeded(self, size: int) -> QuotaExceeded:
        used = format_size(self._used(self._stored))
        return QuotaExceeded(
            f"{self.url} would grow beyond its limit of {format_size(self._max)}",
            cause=f"{used} are used or claimed by running backups, and {format_size(size)} are to be added",
            hint="raise the limit, or free space with `backstay prune` and `backstay gc`",
        )
