"""Reads files of a target again, for other files of a restore that hold the same bytes."""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from typing import Final

from backstay.errors import BackstayError
from backstay.sources.closed_items import READING
from backstay.sources.files_target import FilesTarget
from backstay.sources.target_directory import TargetDirectory

OPEN_DIRECTORIES: Final = 64  # kept open, because twins come in families


class Twins:
    """One thread calls it. What it reads may be anything by now: the caller compares it with what it should be."""

    def __init__(self, target: FilesTarget) -> None:
        self._target = target
        self._open: OrderedDict[bytes, TargetDirectory] = OrderedDict()

    def read(self, path: bytes, length: int) -> bytes | None:
        """The bytes of the regular file at a path below the root; None when no file of that length can be read."""
        above, _, name = path.rpartition(b"/")
        try:
            return _read(self._directory(above).fd, name, length)
        except (OSError, BackstayError):
            return None  # gone, replaced, or not ours to read: the repository has the bytes

    def close(self) -> None:
        """Let go of all directories."""
        while self._open:
            self._open.popitem()[1].close()

    def _directory(self, path: bytes) -> TargetDirectory:
        known = self._open.get(path)
        if known is not None:
            self._open.move_to_end(path)
            return known
        directory = self._target.open_root(create=False)
        for name in path.split(b"/") if path else ():
            above = directory
            try:
                directory = above.child(name, create=False)
            finally:
                above.close()
        self._open[path] = directory
        if len(self._open) > OPEN_DIRECTORIES:
            self._open.popitem(last=False)[1].close()
        return directory


def _read(directory: int, name: bytes, length: int) -> bytes | None:
    fd = os.open(name, READING, dir_fd=directory)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size != length:
            return None
        data = os.read(fd, length)
    finally:
        os.close(fd)
    return data if len(data) == length else None
