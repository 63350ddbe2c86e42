"""What a copy of a mirrored store may lack, written down where every writer sees it: as objects of the first copy.

    mirror/<copy>/writer/<id>     a writer that may store what this copy does not get; goes when it closes in order
    mirror/<copy>/behind/<id>     a writer that ended and whose objects this copy lacks; goes when it has caught up
    mirror/<copy>/deleted/<name>  an object to be deleted from this copy too
    mirror/first                  this store is the one that decides

They lie in the store and not in a local cache, because the next writer may be another host, and a cache may go.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Final

from backstay.core.ids import Random
from backstay.errors import ObjectExists
from backstay.storage.backend import ObjectInfo, StorageBackend

PREFIX: Final = "mirror/"
_FIRST: Final = f"{PREFIX}first"
_OLD_NS: Final = 24 * 3600 * 10**9  # a writer's mark that is older than this is that of a dead one


@dataclass(slots=True)
class Backlog:
    """What is known of one copy: marks of other writers, and names to be deleted."""

    writers: list[ObjectInfo] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.writers or self.behind or self.deleted)


class MirrorLog:
    """The marks about one copy, kept in the first one."""

    def __init__(self, authority: StorageBackend, url: str, *, random: Random = os.urandom) -> None:
        self._authority = authority
        self._place = f"{PREFIX}{copy_id(url)}/"
        self._writer = random(16).hex()

    @property
    def probe(self) -> str:
        """The name of an object of this writer to try something with."""
        return f"probe/{self._writer}"

    def read(self) -> Backlog:
        """Everything that others left."""
        backlog = Backlog()
        for info in self._authority.list(self._place):
            kind, _, rest = info.name.removeprefix(self._place).partition("/")
            if kind == "writer" and rest != self._writer:
                backlog.writers.append(info)
            elif kind == "behind":
                backlog.behind.append(info.name)
            elif kind == "deleted":
                backlog.deleted.append(rest)
        return backlog

    def open_writer(self) -> None:
        """Say that this process will write: before its first object."""
        self._authority.store(self._own("writer"), b"")

    def close_writer(self, *, behind: bool) -> None:
        """Say that it will not any more, and whether the copy lacks something; a crash between leaves both marks."""
        if behind:
            self._mark(self._own("behind"))
        self._authority.delete(self._own("writer"))

    def note_deleted(self, name: str) -> None:
        """Remember to delete an object from the copy."""
        self._mark(f"{self._place}deleted/{name}")

    def forget_deleted(self, name: str) -> None:
        self._authority.delete(f"{self._place}deleted/{name}")

    def settle(self, backlog: Backlog) -> None:
        """Remove the marks that were read before the copy caught up; those of writers that may still run stay."""
        for name in backlog.behind:
            self._authority.delete(name)
        if backlog.writers:
            now = self._store_time()
            for info in backlog.writers:
                if now - info.modified_ns > _OLD_NS:
                    self._authority.delete(info.name)

    def _store_time(self) -> int:
        """Now by the clock of the store, which stamped the marks."""
        self._authority.store(self.probe, b"", overwrite=True)  # collections remove it, should this process die here
        try:
            return self._authority.stat(self.probe).modified_ns
        finally:
            self._authority.delete(self.probe)

    def _own(self, kind: str) -> str:
        return f"{self._place}{kind}/{self._writer}"

    def _mark(self, name: str) -> None:
        try:
            self._authority.store(name, b"")
        except ObjectExists:
            return


def mark_as_first(store: StorageBackend) -> None:
    """Say, for good, that this store decides for its copies."""
    try:
        store.store(_FIRST, b"")
    except ObjectExists:
        return


def is_marked_as_first(store: StorageBackend) -> bool:
    """Whether some mirror has this store as the one that decides."""
    return store.exists(_FIRST)


def unmark_as_first(store: StorageBackend) -> None:
    """Let a store become one copy among others."""
    store.delete(_FIRST)


def copy_id(url: str) -> str:
    """The short name of a copy: of its address, so that every writer finds the same."""
    return hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:16]
