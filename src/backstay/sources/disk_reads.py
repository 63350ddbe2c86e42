"""Whether files come from the disk rather than from memory, and having it read them before they are wanted."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from backstay.sources.entry_reader import OPEN_FILE, open_quietly
from backstay.sources.page_cache import blocks_read
from backstay.sources.source import Stat


class DiskReads:
    """What one thread makes the disk read.

    Asking for a file takes a twentieth of the time that a disk takes to read one. So it is worth it when more than one
    file of twenty is not in memory, which is about one block for each of them.
    """

    def __init__(self) -> None:
        self.were_many = False  # when it was last watched

    @contextmanager
    def watched(self, files: int) -> Iterator[None]:
        """See to it while so many are dealt with, always on the same thread."""
        before = blocks_read()
        yield
        self.were_many = blocks_read() - before > files


def read_soon(directory: int, entries: Iterable[Stat]) -> None:
    """Have the kernel begin to read these files of an open directory, without waiting for them."""
    for name, mode, size, *_ in entries:
        if size and stat.S_ISREG(mode):
            with suppress(OSError):  # told by whoever reads it
                fd = open_quietly(name, OPEN_FILE, directory)
                try:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
                finally:
                    os.close(fd)
