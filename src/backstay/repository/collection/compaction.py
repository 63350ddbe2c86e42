"""Fewer and smaller index segments: what names deleted packs, or is one of many small ones, is replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from backstay.repository.collection.segments import packs_in, refuse_damage
from backstay.repository.format import index_name
from backstay.repository.index.index import stored_pack
from backstay.repository.packs.pack import StoredPack
from backstay.repository.repository import Repository

MANY_SEGMENTS: Final = 16  # index segments beyond which small ones are merged
SMALL_SEGMENT: Final = 1 << 20
SEGMENT_TARGET: Final = 16 << 20  # bytes of tables in one merged segment


def compact(repository: Repository, doomed: set[bytes], delete: Callable[[str], object]) -> None:
    """Replace segments that name deleted packs, and many small ones by few; step 6 of a collection.

    The new segments are durable before the first old one goes: a crash leaves packs that two segments name.
    """
    index = repository.index
    index.load(deleted=doomed, condemned=repository.collections.condemned())
    refuse_damage(repository)
    names = segments_to_replace(repository, doomed)
    if not names:
        return
    for batch in batched_by_size(surviving(repository, names, doomed), SEGMENT_TARGET):
        index.write(batch, supersedes=names)
    for name in names:
        delete(index_name(name))
    index.load(deleted=doomed, condemned=repository.collections.condemned())


def segments_to_replace(repository: Repository, doomed: set[bytes]) -> list[bytes]:
    """Those that name deleted packs, and small ones when there are many."""
    sizes = {bytes.fromhex(i.name.rpartition("/")[2]): i.size for i in repository.backend.list("index/")}
    index = repository.index
    small = [name for name, size in sizes.items() if size < SMALL_SEGMENT]
    merge = set(small) if len(small) > MANY_SEGMENTS else set()
    return [name for name in index.segments() if name in merge or not doomed.isdisjoint(index.packs_of(name))]


def surviving(repository: Repository, names: Iterable[bytes], doomed: set[bytes]) -> Iterator[StoredPack]:
    """The packs of some segments that are not deleted, each once."""
    seen: set[bytes] = set()
    for name in names:
        for pack in map(stored_pack, packs_in(repository, name)):
            if pack.digest not in doomed and pack.digest not in seen:
                seen.add(pack.digest)
                yield pack


def batched_by_size(packs: Iterable[StoredPack], target: int) -> Iterator[list[StoredPack]]:
    """Lists of packs whose tables together take about `target` bytes."""
    batch: list[StoredPack] = []
    size = 0
    for pack in packs:
        batch.append(pack)
        size += len(pack.table.member_ids) + len(pack.table.ids)
        if size >= target:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
