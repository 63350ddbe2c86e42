"""What a backup needs of a source: directories that list, capture and open their entries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from backstay.codec.chunker import Chunking
from backstay.repository.nodes import Node
from backstay.repository.trees.stat_stream import NEVER_SAME as NEVER_SAME
from backstay.repository.trees.stat_stream import PAGE_ENTRIES as PAGE_ENTRIES
from backstay.sources.metadata import Volume

# (name, st_mode, size, mtime_ns, ctime_ns, inode): enough to tell whether an item changed. A plain tuple, because
# a directory is compared with its previous state as one list, in C. Directories have size 0. NEVER_SAME as ctime
# makes an entry differ from everything, so that the next run reads it again.
Stat: TypeAlias = tuple[bytes, int, int, int, int, int]


class Stream(Protocol):
    """An open file of any size; `extents` are its data ranges when it has holes, else None."""

    extents: tuple[tuple[int, int], ...] | None

    def read(self, size: int) -> bytes:
        """The next bytes of the data (holes left out), at most `size`; empty at the end."""
        ...

    def close(self) -> tuple[Stat, Node]:
        """Let go; the stat and node as they are now (ctime NEVER_SAME if the file changed while it was read)."""
        ...

    def abandon(self) -> None:
        """Let go after a failure; may be called more than once, and after close."""
        ...


@dataclass(slots=True)
class Capture:
    """One entry as read: `node` lacks content and sha256; a small file brings its `data`, a large one a `stream`.

    For files with holes `data` is the joined extents that `node.extents` names. `chunking` is how a stream is cut, None
    for the repository's own way with files.
    """

    stat: Stat
    node: Node
    data: bytes | None = None
    stream: Stream | None = None
    chunking: Chunking | None = None


class Lent(NamedTuple):
    """An open directory of this machine, its absolute path, and what it lies on."""

    fd: int
    path: bytes
    volume: Volume


class Directory(Protocol):
    """One open directory of a source; used by one thread for listing, by several for `capture`."""

    path: bytes  # absolute, as it will be shown in the snapshot

    def pages(self) -> Iterator[Sequence[Stat]]:
        """The entries that pass the filters, sorted by raw name, in lists of at most PAGE_ENTRIES.

        Entries that vanish meanwhile are left out; ones that cannot be examined are reported as problems.
        """
        ...

    def capture(self, entry: Stat, *, small: int) -> Capture:
        """Everything about one entry; files of at most `small` bytes come with their data. Raises OSError."""
        ...

    def lend(self) -> Lent | None:
        """What another process could capture entries by (`entry_reader`); None when only this object can."""
        ...

    def enter(self, entry: Stat) -> Directory:
        """Open a child directory. Raises OSError."""
        ...

    def unlike(self, entry: Stat) -> Capture | None:
        """This directory itself, if it is another one than the entry by which it is known; else None.

        Names lead to other directories at any time, and what one looks like must not be said of what another holds.
        """
        ...

    def close(self) -> None:
        """Let go of it; children that are open stay usable. May be called more than once."""
        ...


@dataclass(frozen=True, slots=True)
class Problem:
    """One item that could not be backed up; one that `is_stored` lacks only what the message tells."""

    path: bytes
    message: str
    is_stored: bool = False


class Source(Protocol):
    """Something that can be backed up."""

    kind: str  # "filesystem", …
    paths: Sequence[bytes]  # what it was asked to back up, absolute; identifies the source together with the host
    problems: list[Problem]  # what could not be read so far

    def root(self) -> Directory:
        """The directory `/` of the snapshot; holds only what leads to the source's paths."""
        ...
