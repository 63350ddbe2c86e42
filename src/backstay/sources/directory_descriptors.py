"""Directories opened by the descriptor of their parent, one name at a time and without following symlinks.

Names are not checked here. Everything raises OSError.
"""

from __future__ import annotations

import fcntl
import os
import stat
from typing import Final

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PATH_ONLY: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def open_path(parent: int, name: bytes, *, create: bool) -> int:
    try:
        return os.open(name, PATH_ONLY | os.O_DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        if not create:
            raise
    make_directory(parent, name)
    return os.open(name, PATH_ONLY | os.O_DIRECTORY, dir_fd=parent)


def make_directory(parent: int, name: bytes) -> bool:
    """Whether it was not there yet."""
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return False
    return True


def let_owner_write(fd: int) -> tuple[int, int]:
    """A directory of ours that forbids its owner to write must allow it while it is filled; `finish` sets its mode.

    Returns its owner and group.
    """
    info = os.fstat(fd)
    if info.st_mode & 0o700 != 0o700 and info.st_uid == os.geteuid() != 0:
        os.fchmod(fd, stat.S_IMODE(info.st_mode) | 0o700)
    return info.st_uid, info.st_gid


def open_directory(parent: int, name: bytes, *, insist: bool) -> int:
    """One of another user that may be entered but not read is opened as what leads to what lies in it."""
    try:
        return os.open(name, DIRECTORY, dir_fd=parent)
    except PermissionError:
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if info.st_uid != os.geteuid():
            return open_leading(parent, name)
        if not insist:
            raise
    return _open_unreadable(parent, name)


def open_leading(parent: int, name: bytes) -> int:
    """A directory, or a path descriptor of one that may be entered but not read."""
    try:
        return os.open(name, DIRECTORY, dir_fd=parent)
    except PermissionError:
        fd = os.open(name, PATH_ONLY | os.O_DIRECTORY, dir_fd=parent)
        if os.access(b"/proc/self/fd/%d" % fd, os.X_OK, effective_ids=True):
            return fd
        os.close(fd)
        raise


def is_readable(fd: int) -> bool:
    """Whether an open directory is more than what leads to what lies in it."""
    return not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH


def _open_unreadable(parent: int, name: bytes) -> int:
    """Open a directory of ours whose mode forbids even that."""
    fd = os.open(name, PATH_ONLY | os.O_DIRECTORY, dir_fd=parent)
    try:
        mode = stat.S_IMODE(os.fstat(fd).st_mode) | 0o700
        os.chmod(b"/proc/self/fd/%d" % fd, mode)  # noqa: PTH101 - a path descriptor takes no fchmod
        return os.open(b".", DIRECTORY, dir_fd=fd)
    finally:
        os.close(fd)


def unlink(fd: int, name: bytes) -> bool:
    """Remove anything that is no directory; False when it is one."""
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            return False
        os.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        return True
    return True
