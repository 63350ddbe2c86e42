"""Fewer and smaller index segments: what names deleted packs, or is one of many small ones, is replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Final

from backstay.errors import ObjectNotFound
from backstay.repository.collection.segments import packs_in, refuse_damage
from backstay.repository.format import index_name
from backstay.repository.index.index import read_segment, stored_pack
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
    spent = spent_segments(repository, doomed)
    names = segments_to_replace(repository, doomed, spent)
    if not names and not spent:
        return
    for batch in batched_by_size(surviving(repository, names, doomed), SEGMENT_TARGET):
        index.write(batch, supersedes=names)
    for name in (*names, *sorted(spent)):
        delete(index_name(name))
    index.load(deleted=doomed, condemned=repository.collections.condemned())


def spent_segments(repository: Repository, doomed: set[bytes]) -> set[bytes]:
    """Those that need no successor: nothing is left of what they name, or an earlier collection replaced them already.

    It could not delete them. Only what supersedes a segment replaced it: that is younger, so that two collectors never
    rely on a segment each and delete the other.
    """
    index = repository.index
    packs = {name: set(index.packs_of(name)) - doomed for name in index.segments()}
    times = Counter(pack for found in packs.values() for pack in found)
    asked = [name for name, found in packs.items() if not found or any(times[pack] > 1 for pack in found)]
    successors: dict[bytes, set[bytes]] = {}  # segment -> packs that those which supersede it name
    held: dict[bytes, set[bytes]] = {}
    for name in asked:
        try:
            record = read_segment(repository.backend, repository.keyring, name)
        except ObjectNotFound:
            continue  # another collector replaced it since the listing
        held[name] = {pack.digest for pack in record.packs} - doomed
        for old in record.supersedes:
            successors.setdefault(old, set()).update(held[name])
    return {name for name, found in held.items() if found <= successors.get(name, set())}


def segments_to_replace(
    repository: Repository, doomed: set[bytes], spent: AbstractSet[bytes] = frozenset()
) -> list[bytes]:
    """Those that name deleted packs, and small ones when there are many, but for those that need no successor."""
    sizes = {bytes.fromhex(i.name.rpartition("/")[2]): i.size for i in repository.backend.list("index/")}
    index = repository.index
    small = [name for name, size in sizes.items() if size < SMALL_SEGMENT and name not in spent]
    merge = set(small) if len(small) > MANY_SEGMENTS else set()
    return [
        name
        for name in index.segments()
        if name not in spent and (name in merge or not doomed.isdisjoint(index.packs_of(name)))
    ]


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
