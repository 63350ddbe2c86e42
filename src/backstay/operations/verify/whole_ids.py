"""Ids compared as a whole: an index may know chunks by the beginnings of their ids, and a pack knows all of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from backstay.codec.digest import ID_BYTES
from backstay.errors import (
    CorruptedBackup,
    ObjectFrozen,
    ObjectNotFound,
    ObjectUnreadable,
    TierNotAttached,
    UnsupportedFormat,
)
from backstay.repository.checking.packs import read_table
from backstay.repository.format import BlobKind, pack_name
from backstay.repository.index.index import Place
from backstay.repository.repository import Repository

TABLES: Final = 4  # packs whose ids are kept in memory
AHEAD: Final = 50_000  # chunks that wait to be looked up, pack by pack


class WholeIds:
    """Chunks in bundles are looked up in the tables of their packs, many together."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self._waiting: dict[int, list[tuple[str, bytes]]] = {}  # pack -> (subject, chunk)
        self._count = 0
        self._ids = lru_cache(TABLES)(self._read_ids)

    def need(self, chunk: bytes, place: Place, subject: str) -> None:
        """A chunk, and where the index says that it is."""
        table = self.repository.index.pack(place.pack).table
        at = place.ordinal * ID_BYTES
        if table.kinds[place.ordinal] != BlobKind.CHUNK or table.ids[at : at + ID_BYTES] != chunk:
            self._waiting.setdefault(place.pack, []).append((subject, chunk))
            self._count += 1

    @property
    def is_full(self) -> bool:
        return self._count >= AHEAD

    def wrong(self) -> Iterator[tuple[str, bytes]]:
        """Those of the chunks until now that are in no pack, with their subjects."""
        for pack, waiting in self._waiting.items():
            ids = self._ids(pack)
            yield from ((subject, chunk) for subject, chunk in waiting if chunk not in ids and not self._is_any(chunk))
        self._waiting.clear()
        self._count = 0

    def _is_any(self, chunk: bytes) -> bool:
        """Whether another pack has it, or one whose table cannot be read, which is told."""
        places = self.repository.index.find_all(chunk)
        return any(not (ids := self._ids(place.pack)) or chunk in ids for place in places)

    def _read_ids(self, pack: int) -> frozenset[bytes]:
        """All ids in a pack by its own table; none when that cannot be read, or is not where it should be."""
        info, backend = self.repository.index.pack(pack), self.repository.backend
        try:
            if backend.stat(pack_name(info.kind, info.digest)).size != info.size:
                return frozenset()
            stored = read_table(backend, self.repository.keyring, info.kind, info.digest, info.size)
        except (CorruptedBackup, ObjectNotFound, UnsupportedFormat, ObjectUnreadable, TierNotAttached, ObjectFrozen):
            return frozenset()
        return frozenset(chunk for chunk, *_ in stored.table.chunks())
