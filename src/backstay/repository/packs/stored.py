"""The packs that a store lists."""

from __future__ import annotations

from collections.abc import Iterator

from backstay.core.ids import is_digest
from backstay.repository.format import RecordKind
from backstay.storage.backend import StorageBackend


def stored_packs(backend: StorageBackend) -> Iterator[tuple[bytes, tuple[RecordKind, int]]]:
    """Digest, kind and size of every pack that a store lists."""
    for prefix, kind in (("packs/", RecordKind.DATA_PACK), ("meta/", RecordKind.META_PACK)):
        for info in backend.list(prefix):
            leaf = info.name.rpartition("/")[2]
            if is_digest(leaf):  # anything else is not ours to delete
                yield bytes.fromhex(leaf), (kind, info.size)
