"""Index segments taken apart, so that one can be lost without the other."""

from __future__ import annotations

from backstay.repository.format import RecordKind, index_name
from backstay.repository.index.index import read_segment, stored_packs
from backstay.repository.repository import Repository


def split_by_kind(repository: Repository) -> dict[RecordKind, str]:
    """Put all that is indexed into two segments, one for what is stored and one for what names it: their names."""
    old = repository.index.segments()
    records = [read_segment(repository.backend, repository.keyring, name) for name in old]
    packs = [pack for record in records for pack in stored_packs(record)]
    kinds = (RecordKind.DATA_PACK, RecordKind.META_PACK)
    made = {kind: repository.index.write([pack for pack in packs if pack.kind is kind]) for kind in kinds}
    for name in old:
        repository.backend.delete(index_name(name))
    return {kind: index_name(name) for kind, name in made.items()}
