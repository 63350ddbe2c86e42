"""The system calls that let staged items and others change places: here, so that tests can stop at each of them."""

from __future__ import annotations

import os
from typing import Final

from backstay.core.syncfs import sync_filesystem
from backstay.sources.kernel import exchange, move_noreplace

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class SwitchCalls:
    """Does what its method names say and raises OSError; all names are relative to open directories."""

    def exchange(self, one_fd: int, one: bytes, other_fd: int, other: bytes) -> None:
        """Two names change places in one step; ENOSYS or EINVAL where that cannot be."""
        exchange(one_fd, one, other_fd, other)

    def move(self, from_fd: int, old: bytes, to_fd: int, new: bytes) -> None:
        """Rename, and never over anything."""
        move_noreplace(from_fd, old, to_fd, new)

    def replace(self, fd: int, old: bytes, new: bytes) -> None:
        """Rename within one directory, over what has the new name."""
        os.rename(old, new, src_dir_fd=fd, dst_dir_fd=fd)

    def create(self, fd: int, name: bytes) -> int:
        """An empty file, open for writing."""
        return os.open(name, _NEW, 0o600, dir_fd=fd)

    def mkdir(self, fd: int, name: bytes) -> None:
        os.mkdir(name, 0o700, dir_fd=fd)

    def unlink(self, fd: int, name: bytes) -> None:
        os.unlink(name, dir_fd=fd)

    def rmdir(self, fd: int, name: bytes) -> None:
        os.rmdir(name, dir_fd=fd)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def sync(self, fd: int) -> None:
        """All of the file system that an open file lies on."""
        sync_filesystem(fd)

    def step(self, what: str) -> None:
        """Called before each change that has no method here, such as of attributes; does nothing."""
