"""What a backup has the disk read does not stay in memory, where it would take the place of what others use."""

from __future__ import annotations

import os
import resource
from typing import Final

_BLOCK: Final = 512  # bytes that getrusage(2) counts by


def blocks_read() -> int:
    """How many blocks of 512 bytes this thread has made disks read so far (getrusage(2), ru_inblock)."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_inblock


def read_in_passing(fd: int, size: int, offset: int) -> bytes:
    """As os.pread. What mostly came from the disk leaves the memory again, what was there before stays."""
    before = blocks_read()
    data = os.pread(fd, size, offset)
    if (blocks_read() - before) * _BLOCK > len(data) // 2:
        os.posix_fadvise(fd, offset, len(data), os.POSIX_FADV_DONTNEED)
    return data
