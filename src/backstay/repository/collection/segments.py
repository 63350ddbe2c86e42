"""The index as a collection reads it: segment by segment, from the store, while others may replace them."""

from __future__ import annotations

from collections.abc import Iterator

from backstay.errors import CorruptedBackup, ObjectNotFound, ObjectUnreadable
from backstay.repository.index.index import IndexedPack, read_segment
from backstay.repository.repository import Repository


def indexed_packs(repository: Repository) -> Iterator[IndexedPack]:
    """Each pack that any segment names, once."""
    seen: set[bytes] = set()
    for name in repository.index.segments():
        for pack in packs_in(repository, name):
            if pack.digest not in seen:
                seen.add(pack.digest)
                yield pack


def packs_in(repository: Repository, name: bytes) -> tuple[IndexedPack, ...]:
    """The packs of a segment; none when it was superseded: whoever removed it has stored another before."""
    try:
        return read_segment(repository.backend, repository.keyring, name).packs
    except ObjectNotFound:
        return ()


def refuse_damage(repository: Repository) -> None:
    """Raises CorruptedBackup, ObjectUnreadable where records of collections or of the index cannot be relied on."""
    if repository.collections.foreign:
        raise CorruptedBackup(
            "nothing is collected while something foreign lies among the records of collections",
            cause=repository.collections.foreign[0],
            hint="find out what put it there, and remove it",
        )
    repository.collections.refuse_damage()
    if repository.index.damaged:
        name, error = repository.index.damaged[0]
        if isinstance(error, ObjectUnreadable):  # nothing to repair: the disk may give it again
            raise error
        raise CorruptedBackup(
            "nothing is collected while the index is damaged",
            cause=f"{name}: {error}",
            hint="run `backstay repair index` first",
        )
