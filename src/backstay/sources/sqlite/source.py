"""A SQLite database as a source: one file, under its own path and with its own attributes."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Final

from backstay.codec.chunker import KIB, FixedSize
from backstay.errors import SourceRefused
from backstay.repository.nodes import Node
from backstay.sources.generated import GeneratedFile, GeneratedSource, node_of
from backstay.sources.sqlite.copying import PATIENCE_S, DatabaseCopy
from backstay.sources.sqlite.database import KIND, opened, require_file

CHUNK: Final = 16 * KIB  # several pages; aligned, so that a changed page changes one chunk


def sqlite_source(path: bytes, *, scratch: Path, patience_s: float = PATIENCE_S) -> GeneratedSource:
    """The source of the database at `path`, whose copy is made below `scratch` when it is read.

    Raises NotFound, InvalidRequest, SourceRefused, CorruptedSource for what cannot be backed up as a database.
    """
    require_file(path)
    size = _page_size(path, patience_s)
    try:
        node, directories = node_of(path), _directories(path)
    except OSError as error:
        raise SourceRefused(f"cannot look at {os.fsdecode(path)}", cause=error.strerror or str(error)) from error
    copying = partial(DatabaseCopy, path, scratch=scratch, patience_s=patience_s)
    file = GeneratedFile(path=path, node=node, open=copying, chunking=FixedSize(max(CHUNK, size)))
    return GeneratedSource(KIND, [path], [file], directories=directories)


def _page_size(path: bytes, patience_s: float) -> int:
    """Bytes in one page; also the proof that this is a database that can be read."""
    with opened(path, "ro", patience_s=patience_s) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return int(connection.execute("PRAGMA page_size").fetchone()[0])


def _directories(path: bytes) -> dict[bytes, Node]:
    """What the directories on the way look like, so that a restore in place leaves them as they are."""
    found, above = {}, path.rpartition(b"/")[0]
    while above:
        found[above] = node_of(above)
        above = above.rpartition(b"/")[0]
    return found
