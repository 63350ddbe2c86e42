"""The values of one listing, kept in a fifth of the memory that an object for each would take.

Nearly all values are one chunk and have no metadata: of these only numbers and digests are kept, in columns.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from backstay.repository.nodes import Content
from backstay.repository.values.stored import StoredValue

_START: Final = 8  # bytes of a digest, as a number, by which it is looked for
_ID: Final = 32  # bytes of a digest, and of the id of a chunk


class ValueShard(Mapping[bytes, StoredValue]):
    """Values by their SHA-256; they come in its order, as listings have them."""

    __slots__ = ("_chunks", "_digests", "_odd", "_sizes", "_starts", "_stored")

    def __init__(self, values: Iterable[StoredValue] = ()) -> None:
        digests, chunks = bytearray(), bytearray()
        self._starts, self._sizes, self._stored = array("Q"), array("Q"), array("q")
        self._odd: dict[bytes, StoredValue] = {}  # those that do not fit into columns
        for value in values:
            content = value.content
            if content.depth or len(content.ids) != _ID or value.flags or value.metadata is not None:
                self._odd[value.sha256] = value
                continue
            digests += value.sha256
            chunks += content.ids
            self._starts.append(int.from_bytes(value.sha256[:_START]))
            self._sizes.append(value.size)
            self._stored.append(value.stored_ns)
        self._digests, self._chunks = bytes(digests), bytes(chunks)

    def __getitem__(self, digest: bytes) -> StoredValue:
        row = self._row(digest)
        return self._value(row) if row is not None else self._odd[digest]

    def __contains__(self, digest: object) -> bool:
        return digest in self._odd or (isinstance(digest, bytes) and self._row(digest) is not None)

    def __len__(self) -> int:
        return len(self._sizes) + len(self._odd)

    def __iter__(self) -> Iterator[bytes]:
        yield from (self._digests[at : at + _ID] for at in range(0, len(self._digests), _ID))
        yield from self._odd

    def pairs(self) -> Iterator[tuple[bytes, StoredValue]]:
        """All of them, as `items` has them, without looking each up."""
        for row in range(len(self._sizes)):
            value = self._value(row)
            yield value.sha256, value
        yield from self._odd.items()

    @property
    def total_size(self) -> int:
        """Bytes of all values together."""
        return sum(self._sizes) + sum(value.size for value in self._odd.values())

    def content(self, digest: bytes) -> Content | None:
        """What names the bytes of a value."""
        row = self._row(digest)
        if row is not None:
            return Content(0, self._chunks[row * _ID : (row + 1) * _ID])
        odd = self._odd.get(digest)
        return odd.content if odd is not None else None

    def _row(self, digest: bytes) -> int | None:
        start, digests = int.from_bytes(digest[:_START]), self._digests
        for row in range(bisect_left(self._starts, start), len(self._starts)):
            if digests[row * _ID : (row + 1) * _ID] == digest:
                return row
            if self._starts[row] != start:
                return None
        return None

    def _value(self, row: int) -> StoredValue:
        at = slice(row * _ID, (row + 1) * _ID)
        content = Content(0, self._chunks[at])
        return StoredValue(self._digests[at], self._sizes[row], 0, None, self._stored[row], None, content)
