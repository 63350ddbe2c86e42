"""Items of ours whose mode forbids us to read them: each is opened for a moment, and has its mode back then."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from backstay.sources.metadata import Xattrs, read_xattrs

READING: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_file(name: bytes, dir_fd: int) -> int:
    """A file, for reading, without following symlinks. Raises OSError: PermissionError for another user's."""
    try:
        return os.open(name, READING, dir_fd=dir_fd)
    except PermissionError:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            with _readable(fd):
                return os.open(_path(fd), READING & ~os.O_NOFOLLOW)
        finally:
            os.close(fd)


def xattrs_of(item: int | bytes) -> Xattrs | None:
    """Extended attributes of a descriptor's item, or of a path that is no symlink; as `read_xattrs`."""
    try:
        return read_xattrs(item, follow=True)
    except PermissionError:
        fd = os.open(_path(item) if isinstance(item, int) else item, os.O_PATH | os.O_CLOEXEC)
        try:
            with _readable(fd):
                return read_xattrs(_path(fd), follow=True)
        finally:
            os.close(fd)


@contextmanager
def _readable(fd: int) -> Iterator[None]:
    info = os.fstat(fd)
    mode = stat.S_IMODE(info.st_mode)
    if info.st_uid != os.geteuid() or stat.S_ISLNK(info.st_mode) or mode & stat.S_IRUSR:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    os.chmod(_path(fd), mode | stat.S_IRUSR)  # noqa: PTH101 - a path descriptor takes no fchmod
    try:
        yield
    finally:
        os.chmod(_path(fd), mode)  # noqa: PTH101


def _path(fd: int) -> bytes:
    return b"/proc/self/fd/%d" % fd
