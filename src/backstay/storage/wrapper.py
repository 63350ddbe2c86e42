"""A backend around another one: passes everything on until a subclass says otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from backstay.storage.archive import Archive
from backstay.storage.backend import Buffer, Capabilities, Examine, ObjectInfo, Room, StorageBackend
from backstay.storage.retention import Retention

_Infos: TypeAlias = Iterator[ObjectInfo]  # inside the class `list` is the method


class Wrapper(StorageBackend):
    """Everything as the inner backend does it. Closing the wrapper closes the inner one."""

    def __init__(self, inner: StorageBackend) -> None:
        self.inner = inner

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override] # asked for when it is wanted: it may take a request
        return self.inner.capabilities

    @property
    def parallel(self) -> int:  # type: ignore[override] # never assigned
        return self.inner.parallel

    @property
    def url(self) -> str:
        return self.inner.url

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        self.inner.store(name, data, overwrite=overwrite)

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        return self.inner.retrieve(name, start=start, length=length)

    def delete(self, name: str) -> None:
        self.inner.delete(name)

    def list(self, prefix: str = "") -> _Infos:
        return self.inner.list(prefix)

    def stat(self, name: str) -> ObjectInfo:
        return self.inner.stat(name)

    def exists(self, name: str) -> bool:
        return self.inner.exists(name)

    def copies(self) -> Sequence[StorageBackend]:
        found = self.inner.copies()
        return found if len(found) > 1 else (self,)  # one that is alone is read through this wrapper

    def forget_reads(self) -> None:
        self.inner.forget_reads()

    def examine_copies(self, examine: Examine) -> None:
        self.inner.examine_copies(examine)

    def archive(self) -> Archive | None:
        return self.inner.archive()

    def refuses_damage(self, name: str) -> bool:
        return self.inner.refuses_damage(name)

    def retention(self) -> Retention | None:
        return self.inner.retention()

    def room(self) -> Room | None:
        return self.inner.room()

    def clock_ns(self) -> int | None:
        return self.inner.clock_ns()

    def sweep_temporaries(self, older_than_s: float) -> int:
        return self.inner.sweep_temporaries(older_than_s)

    def close(self) -> None:
        self.inner.close()
