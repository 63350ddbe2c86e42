"""What must be known of the copies of a mirrored store, written down where every writer sees it: in the first copy.

    mirror/<copy>/deleted/<name>  an object to be deleted from this copy too
    mirror/first                  this store is the one that decides

These are objects of the store and not of a local cache, because the next writer may be another host, and a cache may
go. What a copy lacks is not written down: whoever writes without naming the copy leaves no note of it, so that the
listings alone tell.
"""

from __future__ import annotations

import hashlib
from typing import Final

from backstay.errors import ObjectExists
from backstay.storage.backend import StorageBackend

PREFIX: Final = "mirror/"
_FIRST: Final = f"{PREFIX}first"


class MirrorLog:
    """The notes about one copy, kept in the first one."""

    def __init__(self, authority: StorageBackend, url: str) -> None:
        self._authority = authority
        self._place = f"{PREFIX}{copy_id(url)}/deleted/"

    def deleted(self) -> list[str]:
        """The objects that are still to be deleted from the copy."""
        return [info.name.removeprefix(self._place) for info in self._authority.list(self._place)]

    def note_deleted(self, name: str) -> None:
        """Remember to delete an object from the copy."""
        _mark(self._authority, self._place + name)

    def forget_deleted(self, name: str) -> None:
        self._authority.delete(self._place + name)


def mark_as_first(store: StorageBackend) -> None:
    """Say, for good, that this store decides for its copies."""
    _mark(store, _FIRST)


def is_marked_as_first(store: StorageBackend) -> bool:
    """Whether some mirror has this store as the one that decides."""
    return store.exists(_FIRST)


def unmark_as_first(store: StorageBackend) -> None:
    """Let a store become one copy among others."""
    store.delete(_FIRST)


def copy_id(url: str) -> str:
    """The short name of a copy: of its address, so that every writer finds the same."""
    return hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _mark(store: StorageBackend, name: str) -> None:
    try:
        store.store(name, b"")
    except ObjectExists:
        return
