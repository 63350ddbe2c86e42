"""Reads files past the page cache, into memory that is used again and again.

What is read once only pushes other things out of the cache, and a check that is answered from the cache says nothing
about the disk.
"""

from __future__ import annotations

import mmap
import os
from queue import SimpleQueue
from typing import Final

from backstay.core.memory import disk_buffer

_UNIT: Final = mmap.PAGESIZE  # what addresses, offsets and lengths must be multiples of, on any common disk
_ROUND: Final = 2 << 20  # a buffer that is too small is made larger, but not for each few bytes
_DIRECT: Final[int] = getattr(os, "O_DIRECT", 0)


class Bytes:
    """Part of a file; the memory is for the next reader after `release`."""

    __slots__ = ("_memory", "_owner", "view")

    def __init__(self, owner: PastCacheReader, memory: memoryview, view: memoryview) -> None:
        self._owner, self._memory, self.view = owner, memory, view

    def release(self) -> None:
        self._owner.take_back(self._memory)


class PastCacheReader:
    """Reads with a fixed number of buffers. Any thread may call it."""

    def __init__(self, buffers: int) -> None:
        self._spare: SimpleQueue[memoryview | None] = SimpleQueue()
        for _ in range(buffers):
            self._spare.put(None)

    def read(self, file: int, length: int, offset: int = 0) -> Bytes:
        """As many bytes as the file has there, at most `length`; waits for a buffer. Raises OSError."""
        first = offset - offset % _UNIT
        span = -(-(offset + length - first) // _UNIT) * _UNIT
        memory = self._spare.get()
        try:
            if memory is None or len(memory) < span:
                memory = disk_buffer(-(-span // _ROUND) * _ROUND)
            end = _read_direct(file, memory[:span], first)
            # The rest at the end of the file, and everything where there is no way past the cache.
            while end < offset - first + length and (count := os.preadv(file, [memory[end:span]], first + end)):
                end += count
        except BaseException:
            self._spare.put(memory)
            raise
        return Bytes(self, memory, memory[offset - first : min(end, offset - first + length)])

    def take_back(self, memory: memoryview) -> None:
        self._spare.put(memory)


def _read_direct(file: int, room: memoryview, offset: int) -> int:
    """How many bytes came past the cache; none where that cannot be."""
    if not _DIRECT:
        return 0
    try:
        # Opened anew: the flag belongs to the open file, which others read at the same time.
        direct = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_CLOEXEC | _DIRECT)
    except OSError:  # not this file system, or no /proc
        return 0
    try:
        return os.preadv(direct, [room], offset)
    except OSError:  # what is wrong with the file itself shows again without the flag
        return 0
    finally:
        os.close(direct)
