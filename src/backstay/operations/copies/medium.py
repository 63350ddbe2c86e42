"""What tells a medium with exported snapshots from a whole copy of a repository."""

from __future__ import annotations

from contextlib import suppress

from backstay.errors import InvalidRequest, ObjectExists, StorageMissing
from backstay.repository.format import MEDIUM
from backstay.storage.backend import StorageBackend


def is_medium(store: StorageBackend) -> bool:
    """Whether snapshots were exported to this store."""
    try:
        return store.exists(MEDIUM)
    except StorageMissing:
        return False


def make_medium(store: StorageBackend) -> None:
    """From now on it is one. What it lacks is then known to be left out on purpose."""
    with suppress(ObjectExists):
        store.store(MEDIUM, b"")


def refuse_medium(store: StorageBackend) -> None:
    """Raises InvalidRequest for a medium: it holds records that snapshots are left out, which a copy must not have."""
    if is_medium(store):
        raise InvalidRequest(
            f"{store.url} holds exported snapshots",
            cause="a whole copy of a repository needs a place of its own",
            hint="name an empty store, or add snapshots to this one with `backstay export --to`",
        )
