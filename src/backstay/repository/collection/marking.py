"""Which chunks are in use: a walk over every listing, remembered in a filter that errs on the safe side only."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Protocol

from backstay.repository.blobs.contents import NeededChunks, split_ids
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
    needed = NeededChunks(reader)
    for snapshot in snapshots:
        _mark(snapshot.stat_stream, needed, live)
        _mark_listings(snapshot.root, reader, needed, live, seen)


def _mark(content: Content, needed: NeededChunks, live: Chunks) -> None:
    if content.depth == 0:  # nearly all of them
        for chunk in split_ids(content.ids):
            live.add(chunk)
        return
    for ids in needed.of(content):
        for chunk in ids:
            live.add(chunk)


def _mark_listings(root: Content, reader: BlobReader, needed: NeededChunks, live: Chunks, seen: set[bytes]) -> None:
    waiting = [root]
    while waiting:
        content = waiting.pop()
        key = blake2b(content.ids, digest_size=12).digest()
        if key in seen:
            continue
        seen.add(key)
        _mark(content, needed, live)
        for node in read_listing(content, reader):
            if node.content is None:
                continue
            if node.is_dir:
                waiting.append(node.content)
            else:
                _mark(node.content, needed, live)
