"""Whether a walk found everything as in the snapshot before."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final

from backstay.repository.blobs.reader import BlobReader
from backstay.repository.nodes import Content, Node
from backstay.repository.trees.listings import read_listing
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.named_paths import NamedPaths
from backstay.sources.source import Source

_ROOT: Final = b"/"


def is_unchanged(source: Source, before: Content, now: Content, reader: BlobReader) -> bool:
    """Whether two root listings show the same of a source.

    The directories above its paths are others' too, and change their times without a reason of its own: of files, only
    what was asked for is compared. Listings are named by what they hold, so that equal nodes have equal trees.
    """
    # Those that are not there any more have no real place, and are looked for where they were asked for.
    places: Sequence[bytes] = (*source.places, *source.paths) if isinstance(source, FilesystemSource) else (_ROOT,)
    named = NamedPaths.of(places)
    if named.whole:
        return before == now
    waiting: list[tuple[NamedPaths, Content | None, Content | None]] = [(named, before, now)]
    while waiting:
        named, old, new = waiting.pop()
        if old == new:
            continue
        was, is_now = _nodes(old, named.below, reader), _nodes(new, named.below, reader)
        for name, place in named.below.items():
            if not place.whole:
                waiting.append((place, _listing(was.get(name)), _listing(is_now.get(name))))
            elif was.get(name) != is_now.get(name):
                return False
    return True


def _nodes(listing: Content | None, names: Container[bytes], reader: BlobReader) -> dict[bytes, Node]:
    if listing is None:
        return {}
    return {node.name: node for node in read_listing(listing, reader) if node.name in names}


def _listing(node: Node | None) -> Content | None:
    return node.content if node is not None and node.is_dir else None
