"""A journal of files that an unfinished backup has stored, so that the next run does not read them again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import lmdb
import msgspec

from backstay.repository.contents import split_ids
from backstay.repository.nodes import Node
from backstay.sources.source import NEVER_SAME, Stat

_MAP_SIZE: Final = 1 << 38  # address space, not disk


class ResumeJournal:
    """Finished files of one source, on local disk; disposable. Entries count only while their chunks exist."""

    def __init__(self, directory: Path, has_chunk: Callable[[bytes], bool]) -> None:
        self._directory = directory
        self._has_chunk = has_chunk
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._env: Any = lmdb.open(str(directory), map_size=_MAP_SIZE, mode=0o600, readahead=False)
        with self._env.begin() as txn:
            self.empty = txn.stat()["entries"] == 0

    def find(self, path: bytes, entry: Stat) -> Node | None:
        """The stored node of a file that is still as it was then."""
        if self.empty:
            return None
        with self._env.begin() as txn:
            value = txn.get(_key(path))
        if value is None:
            return None
        recorded, node = msgspec.msgpack.decode(value, type=tuple[Stat, Node])
        if recorded != entry or node.content is None or node.content.depth:
            return None
        return node if all(map(self._has_chunk, split_ids(node.content.ids))) else None

    def record(self, files: Iterable[tuple[bytes, Stat, Node]]) -> None:
        """Note files whose chunks are durable and indexed: only then may this be called."""
        with self._env.begin(write=True) as txn:
            for path, entry, node in files:
                if entry[4] != NEVER_SAME:
                    txn.put(_key(path), msgspec.msgpack.encode((entry, node)))

    def close(self, *, discard: bool) -> None:
        """Let go; with `discard` the backup is complete and nothing is left to resume."""
        self._env.close()
        if discard:
            shutil.rmtree(self._directory, ignore_errors=True)


def _key(path: bytes) -> bytes:
    return hashlib.blake2b(path, digest_size=16).digest()
