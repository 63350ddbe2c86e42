"""The system calls of the local store, in one place so that tests can fail or stop at each of them."""

# ruff: noqa: PTH102, PTH104, PTH108, PTH116 (this module is the place where the calls themselves are made)

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_O_DIRECT: Final[int] = getattr(os, "O_DIRECT", 0)


class Filesystem:
    """Does what its method names say and raises OSError; no policy, no state."""

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """A descriptor that child processes do not inherit."""
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def write(self, descriptor: int, data: memoryview) -> int:
        """How many bytes were taken; may be fewer than given."""
        return os.write(descriptor, data)

    def bypass_cache(self, descriptor: int, bypass: bool) -> None:
        """Whether data goes past the page cache from now on; EINVAL where the file system has no such way."""
        if not _O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _O_DIRECT if bypass else flags & ~_O_DIRECT)

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        """At most `length` bytes; empty at the end of the file."""
        return os.pread(descriptor, length, offset)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name; FileExistsError if that name is taken."""
        os.link(source, target, follow_symlinks=False)

    def rename(self, source: str, target: str) -> None:
        """Replace whatever `target` was, in one step."""
        os.rename(source, target)

    def rename_noreplace(self, source: str, target: str) -> None:
        """Rename unless `target` exists (FileExistsError); ENOSYS or EINVAL where the system cannot."""
        _renameat2()(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(path, mode)

    def stat(self, path: str) -> os.stat_result:
        return os.stat(path)

    def lstat(self, path: str) -> os.stat_result:
        return os.lstat(path)

    def fstat(self, descriptor: int) -> os.stat_result:
        return os.fstat(descriptor)

    def statvfs(self, path: str) -> os.statvfs_result:
        return os.statvfs(path)

    def scandir(self, path: str) -> Sequence[os.DirEntry[str]]:
        """All entries of a directory at once, so that nothing stays open while a caller thinks."""
        with os.scandir(path) as entries:
            return list(entries)


@cache
def _renameat2() -> Callable[[str, str], None]:
    """renameat2(2) with RENAME_NOREPLACE; Python has no name for it."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)

    def rename(source: str, target: str) -> None:
        if function is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), source, None, target)
        if function(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), source, None, target)

    return rename
