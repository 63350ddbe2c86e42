"""Objects in the memory of this process: for tests and for trying things out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Final

from backstay.core.clock import Clock, SystemClock
from backstay.errors import InvalidRequest, ObjectExists, ObjectNotFound, StorageUnavailable
from backstay.storage.backend import Buffer, Capabilities, ObjectInfo, StorageBackend
from backstay.storage.names import check_name, check_prefix, check_range

_SYSTEM_CLOCK: Final = SystemClock()


@dataclass(slots=True)
class _Shelf:
    """What instances of one name share: per object its bytes and when they were stored."""

    objects: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class MemoryStorage(StorageBackend):
    """A dictionary. Instances of the same name share it; one without a name has its own."""

    capabilities = Capabilities(proven=True)
    _shelves: ClassVar[dict[str, _Shelf]] = {}

    def __init__(self, name: str = "", *, clock: Clock = _SYSTEM_CLOCK) -> None:
        self._name = name
        self._clock = clock
        # setdefault is one step: two threads that open a name get the same shelf.
        self._shelf = self._shelves.setdefault(name, _Shelf()) if name else _Shelf()

    @classmethod
    def forget(cls, name: str) -> None:
        """Let the next instance of this name begin empty."""
        cls._shelves.pop(name, None)

    @property
    def url(self) -> str:
        return f"memory:{self._name}"

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        check_name(name)
        copy = bytes(data)  # the caller may reuse its buffer
        with self._shelf.lock:
            if not overwrite and name in self._shelf.objects:
                raise ObjectExists(name)
            self._shelf.objects[name] = (copy, self._clock.now_ns())

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        check_name(name)
        check_range(start, length)
        data, _ = self._find(name)
        end = len(data) if length is None else start + length
        if start > len(data) or end > len(data):
            raise StorageUnavailable(
                f"{name} is too short", cause=f"asked for bytes {start} to {end}, but it has only {len(data)}"
            )
        return data[start:end]

    def delete(self, name: str) -> None:
        check_name(name)
        with self._shelf.lock:
            self._shelf.objects.pop(name, None)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        with self._shelf.lock:
            found = [(name, *kept) for name, kept in self._shelf.objects.items() if name.startswith(prefix)]
        return (ObjectInfo(name=name, size=len(data), modified_ns=at) for name, data, at in found)

    def stat(self, name: str) -> ObjectInfo:
        check_name(name)
        data, at = self._find(name)
        return ObjectInfo(name=name, size=len(data), modified_ns=at)

    def _find(self, name: str) -> tuple[bytes, int]:
        with self._shelf.lock:
            kept = self._shelf.objects.get(name)
        if kept is None:
            raise ObjectNotFound(name)
        return kept


def open_memory(url: str) -> MemoryStorage:
    """The store that `memory:NAME` means in this process."""
    name = url.removeprefix("memory:")
    if not name:
        raise InvalidRequest("memory: needs a name", hint="write memory:NAME; the same name is the same store")
    return MemoryStorage(name)
