"""Reads one file of any size, hole by hole, and notices when it changes meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TypeAlias

from backstay.repository.nodes import Node
from backstay.sources.extents import Extents, data_extents
from backstay.sources.page_cache import read_in_passing
from backstay.sources.source import Stat

# Makes the stat and node of a file from (its state now, length read, extents read, whether it stood still).
Describe: TypeAlias = Callable[[os.stat_result, int, Extents | None, bool], tuple[Stat, Node]]


_ENDLESS: Final = (1 << 63) - 1


def may_have_holes(info: os.stat_result) -> bool:
    """Whether fewer blocks are allocated than the length needs; only then holes are worth looking for."""
    return info.st_blocks * 512 < info.st_size


class FileStream:
    """The data of an open file up to the size it had when it was opened; owns the descriptor once constructed.

    With `to_end` whatever comes: some files of the kernel and of servers hold more than their size says.
    """

    def __init__(self, fd: int, info: os.stat_result, describe: Describe, *, to_end: bool = False) -> None:
        self._fd = fd
        self._before = info
        self._describe = describe
        self._closed: tuple[Stat, Node] | None = None
        self._ended_at: int | None = None  # set when the file turned out shorter than it was
        self.extents = data_extents(fd, info.st_size) if may_have_holes(info) and not to_end else None
        length = _ENDLESS if to_end else info.st_size
        self._spans: Extents = ((0, length),) if self.extents is None else self.extents
        self._span = 0
        self._offset = 0  # within the span
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def read(self, size: int) -> bytes:
        """The next bytes of the data (holes left out), at most `size`; empty at the end."""
        parts: list[bytes] = []
        missing = size
        while missing and (part := self._read_within_span(missing)):
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_within_span(self, size: int) -> bytes:
        while self._ended_at is None and self._span < len(self._spans):
            start, length = self._spans[self._span]
            wanted = min(size, length - self._offset)
            if wanted:
                part = read_in_passing(self._fd, wanted, start + self._offset)
                self._offset += len(part)
                if not part:
                    self._ended_at = start + self._offset
                return part
            self._span += 1
            self._offset = 0
        return b""

    def close(self) -> tuple[Stat, Node]:
        """Let go; the stat and node as they are now (ctime NEVER_SAME if the file changed while it was read)."""
        if self._closed is None:
            after = os.fstat(self._fd)
            steady = self._ended_at is None and same_state(self._before, after)
            size, extents = self._what_was_read()
            self._closed = self._describe(after, size, extents, steady)
            self.abandon()
        return self._closed

    def _what_was_read(self) -> tuple[int, Extents | None]:
        if self._ended_at is None:
            return self._before.st_size, self.extents
        if self.extents is None:
            return self._ended_at, None
        whole = self.extents[: self._span]
        partial = ((self.extents[self._span][0], self._offset),) if self._offset else ()
        return self._ended_at, whole + partial

    def abandon(self) -> None:
        """Let go after a failure; may be called more than once, and after close."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def same_state(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether nothing that a write would alter differs."""
    return (one.st_size, one.st_mtime_ns, one.st_ctime_ns) == (other.st_size, other.st_mtime_ns, other.st_ctime_ns)
