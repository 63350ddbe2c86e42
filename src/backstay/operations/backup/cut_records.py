"""How contents were cut, as a manifest tells it."""

from __future__ import annotations

from backstay.codec.chunker import Chunking, FixedSize
from backstay.repository.snapshots import ChunkerInfo


def chunker_info(chunking: Chunking) -> ChunkerInfo:
    """How something was cut, for the manifest."""
    if isinstance(chunking, FixedSize):
        return ChunkerInfo("fixed", chunking.size, chunking.size, chunking.size)
    return ChunkerInfo("fastcdc-nc2", chunking.least, chunking.average, chunking.greatest)


def cut_as(chunking: Chunking) -> str:
    """The word of the manifest for what is cut in this way."""
    return "pages" if isinstance(chunking, FixedSize) else "dumps"
