"""What manifests say in one way, whoever makes the snapshot."""

from __future__ import annotations

from backstay.codec.chunker import Chunking, FixedSize
from backstay.repository.snapshots.store import ChunkerInfo, Stats


def chunker_info(chunking: Chunking) -> ChunkerInfo:
    """How contents were cut."""
    if isinstance(chunking, FixedSize):
        return ChunkerInfo("fixed", chunking.size, chunking.size, chunking.size)
    return ChunkerInfo("fastcdc-nc2", chunking.least, chunking.average, chunking.greatest)


def all_new(
    *,
    files: int,
    dirs: int,
    bytes: int,  # noqa: A002 - the word of the format
    bytes_read: int,
    bytes_added: int,
    duration_s: float,
) -> Stats:
    """The figures of a snapshot that was compared with no other: every file counts as new."""
    return Stats(
        files=files,
        dirs=dirs,
        bytes=bytes,
        files_new=files,
        files_changed=0,
        files_unchanged=0,
        bytes_read=bytes_read,
        bytes_added=bytes_added,
        errors=0,
        duration_ns=round(duration_s * 1e9),
    )
