"""Directories opened by the descriptor of their parent, one name at a time and without following symlinks.

Names are not checked here. Everything raises OSError.
"""

from __future__ import annotations

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


def let_owner_write(fd: int) -> os.stat_result:
    """A directory of ours that forbids its owner to write must allow it while it is filled; `finish` sets its mode.

    Returns what it was before.
    """
    info = os.fstat(fd)
    if info.st_mode & 0o700 != 0o700 and info.st_uid == os.geteuid() != 0:
        os.fchmod(fd, stat.S_IMODE(info.st_mode) | 0o700)
    return info


def open_directory(parent: int, name: bytes, *, insist: bool) -> int:
    try:
        return os.open(name, DIRECTORY, dir_fd=parent)
    except PermissionError:
        if not insist:
            raise
    return _open_unreadable(parent, name)


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
