"""A journal of files that an unfinished backup has stored, so that the next run does not read them again."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

from backstay.repository.blobs.contents import split_ids
from backstay.repository.nodes import MAX_NODE, Node
from backstay.sources.source import NEVER_SAME, Stat

_LENGTH: Final = 4
_DIGEST: Final = 16
_HEAD: Final = struct.Struct(f"<Q{_DIGEST}s")  # of a batch: its length and digest
_BATCH: Final = 4096  # entries
_64_BITS: Final = (1 << 64) - 1
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(tuple[bytes, Stat, Node])


class ResumeJournal:
    """Finished files of one source in a local file; disposable. Entries count only while their chunks exist.

    Each batch of them carries a keyed digest: what a snapshot says of a file may come from here, and others may change
    the journal.
    """

    def __init__(self, path: Path, key: bytes, has_chunk: Callable[[bytes], bool]) -> None:
        self._path = path
        self._key = key
        self._has_chunk = has_chunk
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = path.open("ab+")
        # What an interrupted run left, by a hash of the path: where its entry is, and behind 64 bits a hash of that.
        self._known: dict[int, int] = {}
        self._file.truncate(self._load())  # a torn or damaged batch would hide what is written after it

    def _load(self) -> int:
        """Take what is there; the end of it."""
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        end = 0
        while len(head := self._file.read(_HEAD.size)) == _HEAD.size:
            length, digest = _HEAD.unpack(head)
            start = end + _HEAD.size
            if start + length > size or self._digest(batch := self._file.read(length)) != digest:
                break
            try:
                self._known.update(
                    (_hash(_decoder.decode(body)[0]), (start + at) << 64 | self._hash_of(body))
                    for at, body in _entries(batch)
                )
            except msgspec.MsgspecError:  # of another version
                break
            end = start + length
        return end

    @property
    def empty(self) -> bool:
        """Whether there is nothing to resume."""
        return not self._known

    def find(self, path: bytes, entry: Stat) -> Node | None:
        """The stored node of a file that is still as it was then."""
        known = self._known.get(_hash(path))
        if known is None:
            return None
        self._file.seek(known >> 64)
        length = int.from_bytes(self._file.read(_LENGTH), "little")
        body = self._file.read(min(length, MAX_NODE))
        if self._hash_of(body) != known & _64_BITS:
            return None  # somebody has written to it meanwhile
        recorded_path, recorded, node = _decoder.decode(body)
        if recorded_path != path or recorded != entry or node.content is None or node.content.depth:
            return None
        return node if all(map(self._has_chunk, split_ids(node.content.ids))) else None

    def record(self, entries: Sequence[bytes]) -> None:
        """Note files whose chunks are durable and indexed: only then may this be called."""
        for at in range(0, len(entries), _BATCH):
            batch = b"".join(entries[at : at + _BATCH])
            self._file.write(_HEAD.pack(len(batch), self._digest(batch)))
            self._file.write(batch)
        self._file.flush()

    def _digest(self, body: bytes) -> bytes:
        return blake2b(body, digest_size=_DIGEST, key=self._key).digest()

    def _hash_of(self, body: bytes) -> int:
        return int.from_bytes(blake2b(body, digest_size=8, key=self._key).digest(), "big")

    def close(self, *, discard: bool) -> None:
        """Let go; with `discard` the backup is complete and nothing is left to resume."""
        self._file.close()
        if discard:
            self._path.unlink(missing_ok=True)


def journal_entry(path: bytes, entry: Stat, node: Node) -> bytes:
    """What a journal records of one file; nothing of one that is to be read again anyway."""
    if entry[4] == NEVER_SAME:
        return b""
    body = _encoder.encode((path, entry, node))
    return len(body).to_bytes(_LENGTH, "little") + body


def _entries(batch: bytes) -> Iterator[tuple[int, bytes]]:
    """Each entry, encoded, with its offset."""
    at = 0
    while at < len(batch):
        start = at + _LENGTH
        length = int.from_bytes(batch[at:start], "little")
        yield at, batch[start : start + length]
        at = start + length


def _hash(path: bytes) -> int:
    return int.from_bytes(blake2b(path, digest_size=8).digest(), "big")
