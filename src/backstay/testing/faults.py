"""A backend that fails on purpose: by script, by seeded chance, or by stopping the program."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, TypeAlias, TypeVar

from backstay.errors import BackstayError, StorageUnavailable
from backstay.storage.backend import Buffer, ObjectInfo, StorageBackend

FaultKind: TypeAlias = Literal[
    "error_before",  # the call fails and nothing has happened
    "error_after",  # the acknowledgement is lost: it has happened, the call fails
    "crash_before",  # the program ends, nothing has happened
    "crash_after",  # the program ends, it has happened
    "torn",  # half the object is visible under its name, the call fails (a store without atomic writes)
    "short_read",  # fewer bytes than asked for, without an error
    "bit_flip",  # one bit differs, without an error
    "incomplete_listing",  # some names, then an error
    "stale_listing",  # the newest names are missing, without an error (a store that forbids itself for us)
]
Operation: TypeAlias = Literal["store", "retrieve", "delete", "list", "stat"]
T = TypeVar("T")

_ANY: Final = frozenset[Operation]({"store", "retrieve", "delete", "list", "stat"})
_CHANGES: Final = frozenset[Operation]({"store", "delete"})
_APPLIES: Final[Mapping[FaultKind, frozenset[Operation]]] = {
    "error_before": _ANY,
    "error_after": _CHANGES,
    "crash_before": _ANY,
    "crash_after": _CHANGES,
    "torn": frozenset({"store"}),
    "short_read": frozenset({"retrieve"}),
    "bit_flip": frozenset({"retrieve"}),
    "incomplete_listing": frozenset({"list"}),
    "stale_listing": frozenset({"list"}),
}


class CrashPoint(BaseException):
    """The program ends here. No Exception, so that nothing but the test catches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One failure to come: `kind` at the `at`-th call (from 1, counted from when it was scripted) that fits.

    A call fits by its operation and by the beginning of its name; with `repeat` every later one fails too.
    """

    kind: FaultKind
    operation: Operation
    at: int = 1
    prefix: str = ""
    repeat: bool = False

    def __post_init__(self) -> None:
        if self.operation not in _APPLIES[self.kind]:
            raise ValueError(f"{self.kind} cannot happen to {self.operation}")


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it went: `fault` is what was done to it."""

    operation: Operation
    name: str
    fault: FaultKind | None


def _no_answer(name: str) -> BackstayError:
    return StorageUnavailable(f"the store did not answer for {name}", cause="injected by a test")


class FaultyBackend(StorageBackend):
    """Wraps a backend and fails some of its calls; without script and rates it changes nothing.

    `rates` gives each kind a probability per call it can happen to, drawn from a generator with `seed`; a kind
    without a rate never happens by chance. `hits` counts what has happened, `calls` records every call. After a
    crash every call raises CrashPoint, as a dead program makes no calls, until `revive`.
    """

    def __init__(
        self,
        inner: StorageBackend,
        *,
        seed: int = 0,
        rates: Mapping[FaultKind, float] | None = None,
        error: Callable[[str], BackstayError] = _no_answer,
        stale: int = 1,
    ) -> None:
        self.inner = inner
        self.capabilities = inner.capabilities
        self.seed = seed
        self.rates = dict(rates or {})
        self.hits: Counter[FaultKind] = Counter()
        self.calls: list[Call] = []
        self.crashed = False
        self._error = error
        self._stale = stale  # how many of the newest names a stale listing lacks
        self._rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._script: list[tuple[Fault, int]] = []  # with the number of fitting calls still to come
        self._stored: list[str] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return self.inner.url

    def script(self, *faults: Fault) -> None:
        """Let these failures happen, besides what was scripted before."""
        with self._lock:
            self._script.extend((fault, fault.at) for fault in faults)

    def heal(self) -> None:
        """No more failures, and alive again."""
        with self._lock:
            self._script.clear()
            self.rates.clear()
            self.crashed = False

    def revive(self) -> None:
        """Start the program anew after a crash; what was scripted stays."""
        self.crashed = False

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        fault = self._next("store", name)
        if fault == "torn":
            whole = bytes(data)
            self.inner.store(name, whole[: len(whole) // 2], overwrite=overwrite)
            raise self._error(name)
        self._change(fault, name, lambda: self.inner.store(name, data, overwrite=overwrite))
        with self._lock:
            self._stored.append(name)

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        fault = self._next("retrieve", name)
        self._before(fault, name)
        data = self.inner.retrieve(name, start=start, length=length)
        if fault == "short_read":
            return data[: self._rng.randrange(len(data))] if data else data
        return self._flip(data) if fault == "bit_flip" else data

    def delete(self, name: str) -> None:
        self._change(self._next("delete", name), name, lambda: self.inner.delete(name))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        fault = self._next("list", prefix)
        self._before(fault, prefix)
        infos = self.inner.list(prefix)
        if fault == "incomplete_listing":
            return self._break_off(prefix, infos)
        if fault == "stale_listing":
            hidden = frozenset(self._stored[-self._stale :])
            return (info for info in infos if info.name not in hidden)
        return infos

    def stat(self, name: str) -> ObjectInfo:
        self._before(self._next("stat", name), name)
        return self.inner.stat(name)

    def close(self) -> None:
        self.inner.close()

    def _next(self, operation: Operation, name: str) -> FaultKind | None:
        """What happens to this call; recorded and counted."""
        with self._lock:
            if self.crashed:
                raise CrashPoint
            fault = self._scripted(operation, name) or self._drawn(operation)
            self.calls.append(Call(operation, name, fault))
            if fault:
                self.hits[fault] += 1
            return fault

    def _scripted(self, operation: Operation, name: str) -> FaultKind | None:
        kind: FaultKind | None = None
        kept: list[tuple[Fault, int]] = []
        for fault, to_come in self._script:
            fits = fault.operation == operation and name.startswith(fault.prefix)
            rest = to_come - 1 if fits else to_come
            if fits and rest <= 0 and kind is None:
                kind = fault.kind
                if not fault.repeat:
                    continue
            kept.append((fault, rest))
        self._script = kept
        return kind

    def _drawn(self, operation: Operation) -> FaultKind | None:
        for kind, rate in self.rates.items():
            if operation in _APPLIES[kind] and self._rng.random() < rate:
                return kind
        return None

    def _before(self, fault: FaultKind | None, name: str) -> None:
        if fault == "error_before":
            raise self._error(name)
        if fault == "crash_before":
            self._crash()

    def _change(self, fault: FaultKind | None, name: str, effect: Callable[[], None]) -> None:
        self._before(fault, name)
        effect()
        if fault == "error_after":
            raise self._error(name)
        if fault == "crash_after":
            self._crash()

    def _crash(self) -> NoReturn:
        self.crashed = True
        raise CrashPoint

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return data
        flipped = bytearray(data)
        flipped[self._rng.randrange(len(data))] ^= 1 << self._rng.randrange(8)
        return bytes(flipped)

    def _break_off(self, prefix: str, infos: Iterator[ObjectInfo]) -> Iterator[ObjectInfo]:
        found = [*infos]
        yield from found[: len(found) // 2]
        raise self._error(prefix)
