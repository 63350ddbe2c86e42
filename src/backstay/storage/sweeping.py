"""Which files of interrupted stores are so old that nobody writes them any more, by the clock that stamped them."""

from __future__ import annotations

import os
from collections.abc import Iterable

from backstay.core.ids import Random
from backstay.errors import InsufficientSpace
from backstay.storage.backend import StorageBackend


def store_time(backend: StorageBackend, random: Random = os.urandom) -> int:
    """Now, in nanoseconds since 1970, by the clock that stamps objects: the store's own."""
    name = f"probe/{random(16).hex()}"
    backend.store(name, b"", overwrite=True)
    try:
        return backend.stat(name).modified_ns
    finally:
        backend.delete(name)


def outlived(store: StorageBackend, found: Iterable[tuple[str, int]], older_than_s: float) -> list[str]:
    """The names that are older, of names and times. What has no time stays."""
    stamped = [(name, modified_ns) for name, modified_ns in found if modified_ns > 0]
    if not stamped:
        return []
    try:
        now_ns = store.clock_ns() or store_time(store)
    except InsufficientSpace:  # it is at least as late as this, and what is older may be what fills the store
        now_ns = max(modified_ns for _, modified_ns in stamped)
    newest_ns = now_ns - int(older_than_s * 1e9)
    return [name for name, modified_ns in stamped if modified_ns <= newest_ns]
