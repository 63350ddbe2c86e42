"""A journal of files that an unfinished backup has stored, so that the next run does not read them again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from backstay.repository.blobs.contents import split_ids
from backstay.repository.nodes import Node
from backstay.sources.source import NEVER_SAME, Stat

_LENGTH: Final = 4
_DIGEST: Final = 16
_HEAD: Final = _LENGTH + _DIGEST
_Entry: TypeAlias = tuple[bytes, Stat, Node]
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(tuple[bytes, Stat, Node])


class ResumeJournal:
    """Finished files of one source in a local file; disposable. Entries count only while their chunks exist.

    Each carries a keyed digest: what a snapshot says of a file may come from here, and others may change the file.
    """

    def __init__(self, path: Path, key: bytes, has_chunk: Callable[[bytes], bool]) -> None:
        self._path = path
        self._key = key
        self._has_chunk = has_chunk
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = path.open("ab+")
        self._size = self._file.seek(0, os.SEEK_END)  # of what an interrupted run left
        # Where each path's entry is, by a hash of the path.
        self._known: dict[int, int] = {}
        end = 0
        for at, (path_, _, _) in self._entries():
            self._known[_hash(path_)] = at
            end = self._file.tell()
        self._file.truncate(end)  # a torn or damaged entry would hide what is written after it

    @property
    def empty(self) -> bool:
        """Whether there is nothing to resume."""
        return not self._known

    def find(self, path: bytes, entry: Stat) -> Node | None:
        """The stored node of a file that is still as it was then."""
        at = self._known.get(_hash(path))
        if at is None:
            return None
        found = next(self._entries(at), None)
        if found is None:
            return None
        recorded_path, recorded, node = found[1]
        if recorded_path != path or recorded != entry or node.content is None or node.content.depth:
            return None
        return node if all(map(self._has_chunk, split_ids(node.content.ids))) else None

    def _entries(self, at: int = 0) -> Iterator[tuple[int, _Entry]]:
        """Each entry with its offset; a torn end, as a crash leaves it, or a damaged entry ends the list."""
        self._file.seek(at)
        while len(head := self._file.read(_HEAD)) == _HEAD:
            length = int.from_bytes(head[:_LENGTH], "little")
            if at + _HEAD + length > self._size:
                break
            body = self._file.read(length)
            if head[_LENGTH:] != self._digest(body):
                break
            try:
                yield at, _decoder.decode(body)
            except msgspec.MsgspecError:  # of another version
                break
            at += _HEAD + length

    def record(self, entries: Iterable[bytes]) -> None:
        """Note files whose chunks are durable and indexed: only then may this be called."""
        self._file.writelines(
            b"".join((len(body).to_bytes(_LENGTH, "little"), self._digest(body), body)) for body in entries if body
        )
        self._file.flush()

    def _digest(self, body: bytes) -> bytes:
        return blake2b(body, digest_size=_DIGEST, key=self._key).digest()

    def close(self, *, discard: bool) -> None:
        """Let go; with `discard` the backup is complete and nothing is left to resume."""
        self._file.close()
        if discard:
            self._path.unlink(missing_ok=True)


def journal_entry(path: bytes, entry: Stat, node: Node) -> bytes:
    """What a journal records of one file; nothing of one that is to be read again anyway."""
    if entry[4] == NEVER_SAME:
        return b""
    return _encoder.encode((path, entry, node))


def _hash(path: bytes) -> int:
    return int.from_bytes(blake2b(path, digest_size=8).digest(), "big")
