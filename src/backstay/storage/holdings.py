"""What a store holds of a repository; a place that is not there yet holds nothing."""

from __future__ import annotations

from backstay.errors import ObjectNotFound, StorageMissing
from backstay.storage.backend import StorageBackend
from backstay.storage.crash_order import is_transient


def held_sizes(store: StorageBackend) -> dict[str, int]:
    """Every object that belongs to the repository, with its size."""
    try:
        return {info.name: info.size for info in store.list() if not is_transient(info.name)}
    except StorageMissing:
        return {}


def held(store: StorageBackend, name: str) -> bytes | None:
    """An object, if it is there."""
    try:
        return store.retrieve(name)
    except (ObjectNotFound, StorageMissing):
        return None
