"""Which chunks are in use: a walk over every listing, remembered in a filter that errs on the safe side only."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Protocol

from backstay.repository.blobs.contents import all_chunk_ids
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.nodes import Content
from backstay.repository.snapshots.store import Manifest
from backstay.repository.trees.listings import read_listing


class Chunks(Protocol):
    """What remembers chunks: a filter, or whatever wants to know them."""

    def add(self, chunk: bytes) -> None: ...


def mark(snapshots: Iterable[Manifest], reader: BlobReader, live: Chunks) -> None:
    """Add every chunk that the snapshots need. Raises CorruptedBackup when a listing cannot be read."""
    seen: set[bytes] = set()
    for snapshot in snapshots:
        for chunk in all_chunk_ids(snapshot.stat_stream, reader):
            live.add(chunk)
        _mark_listings(snapshot.root, reader, live, seen)


def _mark_listings(root: Content, reader: BlobReader, live: Chunks, seen: set[bytes]) -> None:
    waiting = [root]
    while waiting:
        content = waiting.pop()
        key = blake2b(content.ids, digest_size=12).digest()
        if key in seen:
            continue
        seen.add(key)
        for chunk in all_chunk_ids(content, reader):
            live.add(chunk)
        for node in read_listing(content, reader):
            if node.content is None:
                continue
            if node.is_dir:
                waiting.append(node.content)
            else:
                for chunk in all_chunk_ids(node.content, reader):
                    live.add(chunk)
