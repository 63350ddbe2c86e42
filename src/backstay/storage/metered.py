"""Count and time what is asked of a store."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from backstay.core.clock import Clock
from backstay.errors import BackstayError
from backstay.storage.backend import Buffer, ObjectInfo, StorageBackend
from backstay.storage.wrapper import Wrapper

Operation: TypeAlias = Literal["store", "retrieve", "delete", "list", "stat"]
OPERATIONS: Final[tuple[Operation, ...]] = ("store", "retrieve", "delete", "list", "stat")
_Infos: TypeAlias = Iterator[ObjectInfo]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One kind of call so far. `items` are names of listings; `errors` count by the code of the error.

    `seconds` add up over all threads; `longest` is the longest single call.
    """

    calls: int = 0
    bytes: int = 0
    items: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    errors: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(slots=True)
class _Call:
    """What one call has moved."""

    bytes: int = 0
    items: int = 0


class Metered(Wrapper):
    """Passes everything on, and knows afterwards how much it was. Any thread may call it.

    As the innermost wrapper it sees every single try. A call that the store answers with "not found" or "exists" is
    counted among the errors by that name, as others are.
    """

    def __init__(self, inner: StorageBackend, *, clock: Clock) -> None:
        super().__init__(inner)
        self._clock = clock
        self._figures: dict[Operation, Figures] = {each: Figures() for each in OPERATIONS}
        self._lock = threading.Lock()

    def snapshot(self) -> dict[Operation, Figures]:
        """The figures up to now, which later calls do not change."""
        with self._lock:
            return dict(self._figures)

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        with self._measured("store") as call:
            self.inner.store(name, data, overwrite=overwrite)
            call.bytes = memoryview(data).nbytes

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        with self._measured("retrieve") as call:
            data = self.inner.retrieve(name, start=start, length=length)
            call.bytes = len(data)
        return data

    def delete(self, name: str) -> None:
        with self._measured("delete"):
            self.inner.delete(name)

    def list(self, prefix: str = "") -> _Infos:
        with self._measured("list") as call:  # to its end: much of a listing happens while it is read
            found = [*self.inner.list(prefix)]
            call.items = len(found)
        return iter(found)

    def stat(self, name: str) -> ObjectInfo:
        with self._measured("stat"):
            return self.inner.stat(name)

    def exists(self, name: str) -> bool:
        with self._measured("stat"):
            return self.inner.exists(name)

    def refuses_damage(self, name: str) -> bool:
        with self._measured("store"):
            return self.inner.refuses_damage(name)

    @contextmanager
    def _measured(self, operation: Operation) -> Iterator[_Call]:
        begun = self._clock.monotonic()
        call = _Call()
        code = ""
        try:
            yield call
        except BackstayError as error:
            code = error.code
            raise
        except BaseException as error:
            code = type(error).__name__
            raise
        finally:
            self._add(operation, call, self._clock.monotonic() - begun, code)

    def _add(self, operation: Operation, call: _Call, seconds: float, code: str) -> None:
        with self._lock:
            old = self._figures[operation]
            self._figures[operation] = replace(
                old,
                calls=old.calls + 1,
                bytes=old.bytes + call.bytes,
                items=old.items + call.items,
                seconds=old.seconds + seconds,
                longest=max(old.longest, seconds),
                errors=MappingProxyType(dict(Counter(old.errors) + Counter([code]))) if code else old.errors,
            )
