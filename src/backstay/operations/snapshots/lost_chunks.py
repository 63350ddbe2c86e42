"""What is lost with packs that are missing or damaged: the chunks that no pack gives any more."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from backstay.errors import CorruptedBackup, ObjectFrozen, ObjectNotFound, StorageUnavailable, TierNotAttached
from backstay.repository.format import pack_name
from backstay.repository.index.index import IndexedPack, read_segment
from backstay.repository.repository import Repository


def lost_chunks(repository: Repository, packs: AbstractSet[bytes]) -> set[bytes]:
    """Those of the chunks in bad packs, given by their digests, that cannot be read; all other packs count as good."""
    index = repository.index
    gone, away = _absent(repository, packs)
    bad = packs - away
    lost: set[bytes] = set()
    for pack in _indexed(repository, bad):
        for chunk, *_ in pack.table.chunks():
            holders = {index.pack(place.pack).digest for place in index.find_all(chunk)}
            if holders <= gone or (holders <= bad and not _is_readable(repository, chunk)):
                lost.add(chunk)
    return lost


def _absent(repository: Repository, packs: AbstractSet[bytes]) -> tuple[set[bytes], set[bytes]]:
    """Packs of which even the name is gone, so that no chunk need be tried; those that a copy out of reach may have."""
    gone, away = set[bytes](), set[bytes]()
    for _, info in repository.index.packs():
        if info.digest in packs:
            try:
                repository.backend.stat(pack_name(info.kind, info.digest))
            except ObjectNotFound:
                gone.add(info.digest)
            except StorageUnavailable:
                away.add(info.digest)
    return gone, away


def _indexed(repository: Repository, digests: AbstractSet[bytes]) -> Iterator[IndexedPack]:
    seen: set[bytes] = set()
    for segment in repository.index.segments():
        try:
            packs = read_segment(repository.backend, repository.keyring, segment).packs
        except (CorruptedBackup, ObjectNotFound):
            continue  # a cache knows it still
        for pack in packs:
            if pack.digest in digests and pack.digest not in seen:
                seen.add(pack.digest)
                yield pack


def _is_readable(repository: Repository, chunk: bytes) -> bool:
    """Blobs that are damaged in one pack, or in one copy of it, may be whole in another."""
    try:
        repository.reader.chunk(chunk)
    except CorruptedBackup:
        return False
    except (TierNotAttached, ObjectFrozen):
        return True  # another pack may have it
    return True
