"""Which stored objects snapshots need, to be restored in full by whoever has a key."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet

from backstay.errors import ObjectNotFound
from backstay.repository.collection.marking import mark
from backstay.repository.format import snapshot_name
from backstay.repository.index.chunk_filter import ChunkFilter
from backstay.repository.index.index import IndexedPack, read_segment
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.storage.retention import SHARED

PACKS = ("packs/", "meta/")


def needed_objects(repository: Repository, snapshots: Sequence[Manifest], among: Collection[str]) -> set[str]:
    """Those of `among`, names of objects, that the snapshots need."""
    manifests = {snapshot_name(snapshot.id) for snapshot in snapshots}
    needed = {name for name in among if name.startswith(SHARED) or name in manifests}
    packs = {bytes.fromhex(name.rpartition("/")[2]): name for name in among if name.startswith(PACKS)}
    return needed | {packs[digest] for digest in needed_packs(repository, snapshots, packs.keys())}


def needed_packs(repository: Repository, snapshots: Sequence[Manifest], among: AbstractSet[bytes]) -> set[bytes]:
    """Those of `among` that the snapshots need; in doubt more.

    A manifest names the packs that its writer saw, and all that the snapshot before it named, until a collection
    deletes those that are in no use. Once one has moved chunks to other packs, only a walk through the listings tells
    where they are; it is made only if it can tell something.
    """
    deleted = repository.collections.deleted()
    named = {pack for snapshot in snapshots for pack in snapshot.packs} - deleted
    others = among - named - deleted
    if deleted and others and snapshots:
        named |= _packs_holding(repository, snapshots, others)
    return set(among) & named


def _packs_holding(
    repository: Repository, snapshots: Sequence[Manifest], packs: AbstractSet[bytes]
) -> AbstractSet[bytes]:
    """Those of the packs that hold a chunk in use, or that no segment names at the moment."""
    indexed = [pack for pack in _indexed(repository) if pack.digest in packs]
    live = ChunkFilter(max(1, sum(len(pack.table.kinds) for pack in indexed) + sum(s.stats.files for s in snapshots)))
    mark(snapshots, repository.reader, live)
    free = {pack.digest for pack in indexed if not any(chunk in live for chunk, *_ in pack.table.chunks())}
    return packs - free


def _indexed(repository: Repository) -> Iterator[IndexedPack]:
    for name in repository.index.segments():
        try:
            yield from read_segment(repository.backend, repository.keyring, name).packs
        except ObjectNotFound:  # superseded since: then its packs count as needed
            continue
