"""Whether a value that the log knows can be had: a store may have lost what holds it."""

from __future__ import annotations

from backstay.codec.digest import ID_BYTES
from backstay.errors import CorruptedBackup, ObjectNotFound
from backstay.repository.blobs.contents import all_chunk_ids
from backstay.repository.format import pack_name
from backstay.repository.nodes import Content
from backstay.repository.repository import Repository
from backstay.repository.values.stored import StoredValue


class ValuePresence:
    """Looks for the packs of values, for each once; their bytes are not read."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._packs: dict[int, bool] = {}
        self._is_fresh = False

    def has(self, value: StoredValue) -> bool:
        """Whether the store has every pack that a value needs."""
        return value.data is not None or self.holds(value.content)

    def holds(self, content: Content) -> bool:
        """Whether the store has every pack that a content needs."""
        if self._finds(content):
            return True
        if self._is_fresh:
            return False
        self._repository.reload_index()  # another program may have put it elsewhere meanwhile
        self._is_fresh = True
        self._packs.clear()
        return self._finds(content)

    def _finds(self, content: Content) -> bool:
        if content.depth == 0 and len(content.ids) == ID_BYTES:  # as with most values, of which there may be very many
            return self._finds_chunk(content.ids)
        try:
            return all(map(self._finds_chunk, all_chunk_ids(content, self._repository.reader)))
        except (CorruptedBackup, ObjectNotFound):
            return False

    def _finds_chunk(self, chunk: bytes) -> bool:
        index = self._repository.index
        place = index.search(chunk)
        if place is not None and self._finds_pack(place.pack):
            return True
        return any(self._finds_pack(place.pack) for place in index.find_all(chunk))

    def _finds_pack(self, number: int) -> bool:
        found = self._packs.get(number)
        if found is None:
            pack = self._repository.index.pack(number)
            found = self._packs[number] = self._repository.backend.exists(pack_name(pack.kind, pack.digest))
        return found
