"""The ledger of a size limit that many writers share, kept in the store itself as small objects.

    quota/writers/<ulid>.<bytes>.<done>   a running writer may store so much, all told; so much of it is stored
    quota/closed/<ulid>.<bytes>           a writer that has ended stored so much
    quota/totals/<ns>.<ulid>.<bytes>      the store was measured, beginning at that time by its own clock; inside: how
                                          much of each writer is contained

What is used is what was measured, and what writers may store or have stored beyond that. It is never too little, only
too much for a while, although no step is atomic and a listing may show what happened in between in part:

- A writer creates its claim *before* it reads the others', so of two that claim at once at least one sees the other.
- A claim that was granted stays until its writer has ended and was measured, so that nobody misses the writer while
  it makes a larger one or ends.
- A measurement reads the ledger, then takes the time and lists the store, records the total, and only then removes
  what that contains. Readers look at writers first and at totals last: one who misses a removed writer finds that
  total, or one that began later and contains the same. The total that began last is the one that counts.
- A writer that died keeps its claims until it was silent for `LEASE_S` by the store's clock. If it was only asleep,
  it may then store the rest of its claim, which nobody counts: at most one block (1 % of the limit) per such writer.
  That is all the overshoot there is.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from backstay.core.clock import Clock
from backstay.core.ids import Random, new_ulid
from backstay.errors import ObjectExists, ObjectNotFound
from backstay.storage.backend import ObjectInfo, StorageBackend

PREFIX: Final = "quota/"
LEASE_S: Final = 24 * 3600
_WRITER: Final = re.compile(r"quota/writers/([0-9a-z]{26})\.(\d{1,19})\.(\d{1,19})")
_CLOSED: Final = re.compile(r"quota/closed/([0-9a-z]{26})\.(\d{1,19})")
_TOTAL: Final = re.compile(r"quota/totals/(\d{20})\.[0-9a-z]{26}\.(\d{1,19})")
_MAX_TOTAL: Final = 16 << 20  # bytes of one total's contents
_KEPT_TOTALS: Final = 2  # a reader that is slower than a measurement still finds one of them


@dataclass(slots=True)
class _Writer:
    """What one writer recorded: bytes it may store or stored, bytes surely stored, and the objects that say so."""

    claimed: int = 0
    done: int = 0
    closed: int | None = None
    last_seen_ns: int = 0
    names: list[str] = field(default_factory=list)

    @property
    def counted(self) -> int:
        return self.claimed if self.closed is None else self.closed


@dataclass(slots=True)
class _Total:
    name: str
    begun_ns: int
    bytes: int
    contained: Mapping[str, int]

    def used(self, counted: Mapping[str, int]) -> int:
        """With what writers may have stored beyond what this total contains."""
        return self.bytes + sum(max(0, size - self.contained.get(owner, 0)) for owner, size in counted.items())


@dataclass(slots=True)
class Balance:
    """The ledger as it was read; sizes in bytes."""

    writers: dict[str, _Writer] = field(default_factory=dict)
    totals: list[_Total] = field(default_factory=list)

    @property
    def measured_ns(self) -> int:
        """When the store was measured last, by its own clock; 0 if it never was."""
        return max((total.begun_ns for total in self.totals), default=0)

    def used(self, writer: str, claim: int) -> int:
        """What is used or claimed, if this writer may store `claim` bytes. There must be a total."""
        counted = {owner: found.counted for owner, found in self.writers.items()} | {writer: claim}
        return max(total.used(counted) for total in self.totals if total.begun_ns == self.measured_ns)


class QuotaLedger:
    """One writer's hand in the ledger."""

    def __init__(self, store: StorageBackend, *, clock: Clock, random: Random = os.urandom) -> None:
        self._store, self._clock, self._random = store, clock, random
        self.writer = new_ulid(clock.now_ns(), random)

    def read(self) -> Balance:
        """Everything that is recorded; names of other forms mean nothing."""
        balance = Balance()
        for info in self._store.list(f"{PREFIX}writers/"):
            if match := _WRITER.fullmatch(info.name):
                writer = _seen(balance, match[1], info)
                writer.claimed = max(writer.claimed, int(match[2]))
                writer.done = max(writer.done, int(match[3]))
        for info in self._store.list(f"{PREFIX}closed/"):
            if match := _CLOSED.fullmatch(info.name):
                _seen(balance, match[1], info).closed = int(match[2])
        for info in self._store.list(f"{PREFIX}totals/"):
            if (match := _TOTAL.fullmatch(info.name)) and info.size <= _MAX_TOTAL:
                try:
                    contained = _contained(self._store, info.name)
                    balance.totals.append(_Total(info.name, int(match[1]), int(match[2]), contained))
                except ObjectNotFound:
                    continue  # a later one is there
        return balance

    def claim(self, size: int, *, done: int) -> str:
        """Say that this writer may store `size` bytes, all told, of which `done` surely are; the claim's name."""
        name = f"{PREFIX}writers/{self.writer}.{size}.{done}"
        self._create(name)
        return name

    def withdraw(self, claim: str) -> None:
        """Take back a claim that was not granted; those before it stay."""
        self._store.delete(claim)

    def end(self, stored: int) -> None:
        """Say how much it came to. The claims go when the store is measured."""
        self._create(f"{PREFIX}closed/{self.writer}.{stored}")

    def measure(self) -> None:
        """Measure the store anew, record it, and remove what the new total contains."""
        before = self.read()
        now = self._store_time()
        size = sum(info.size for info in self._store.list() if not info.name.startswith(PREFIX))
        contained = {
            owner: writer.done if writer.closed is None else writer.closed for owner, writer in before.writers.items()
        }
        ulid = new_ulid(self._clock.now_ns(), self._random)
        self._create(f"{PREFIX}totals/{now:020}.{ulid}.{size}", json.dumps({"contained": contained}).encode())
        self._delete(sorted(total.name for total in before.totals)[: 1 - _KEPT_TOTALS or None])
        for owner, writer in before.writers.items():
            is_silent = owner != self.writer and now - writer.last_seen_ns > LEASE_S * 10**9
            if writer.closed is not None or is_silent:
                self._delete(sorted(writer.names, reverse=True))  # claims go before the record that limits them

    def _delete(self, names: Iterable[str]) -> None:
        for name in names:
            self._store.delete(name)

    def _store_time(self) -> int:
        """Now by the clock of the store, which stamped the claims."""
        name = f"probe/{self._random(16).hex()}"  # which collections remove, should this process die here
        self._store.store(name, b"")
        try:
            return self._store.stat(name).modified_ns
        finally:
            self._store.delete(name)

    def _create(self, name: str, data: bytes = b"") -> None:
        try:
            self._store.store(name, data)
        except ObjectExists:  # an earlier try of this very call got through
            return


def _seen(balance: Balance, owner: str, info: ObjectInfo) -> _Writer:
    writer = balance.writers.setdefault(owner, _Writer())
    writer.names.append(info.name)
    writer.last_seen_ns = max(writer.last_seen_ns, info.modified_ns)
    return writer


def _contained(store: StorageBackend, name: str) -> Mapping[str, int]:
    """How much of each writer a total contains; nothing if that cannot be read, so that too much is counted."""
    try:
        found = json.loads(store.retrieve(name))["contained"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {owner: size for owner, size in found.items() if isinstance(size, int)}
