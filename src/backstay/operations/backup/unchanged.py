"""Whether a walk found everything as in the snapshot before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from backstay.errors import NotFound
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.nodes import Content, Node
from backstay.repository.trees.listings import find_node
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.source import Source

_ROOT: Final = b"/"


def is_unchanged(source: Source, before: Content, now: Content, reader: BlobReader) -> bool:
    """Whether two root listings show the same of a source.

    The directories above its paths are others' too, and change their times without a reason of its own: of files, only
    what was asked for is compared. Listings are named by what they hold, so that equal nodes have equal trees.
    """
    if before == now:
        return True
    # Those that are not there any more have no real place, and are looked for where they were asked for.
    places: Sequence[bytes] = (*source.places, *source.paths) if isinstance(source, FilesystemSource) else (_ROOT,)
    return all(_shown(before, place, reader) == _shown(now, place, reader) for place in places)


def _shown(root: Content, place: bytes, reader: BlobReader) -> Node | Content | None:
    if place == _ROOT:
        return root
    try:
        return find_node(root, place, reader)
    except NotFound:
        return None
