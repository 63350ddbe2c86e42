"""Directories opened by the descriptor of their parent, one name at a time and without following symlinks.

Names are not checked here. Everything raises OSError.
"""

from __future__ import annotations

import fcntl
import os
import stat
from typing import Final, NamedTuple

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


class Opened(NamedTuple):
    """A directory of ours that forbids its owner what is needed allows it meanwhile: `mode` is the one that it had."""

    fd: int
    mode: int | None


def open_directory(parent: int, name: bytes, *, writing: bool) -> Opened:
    """One of another user that may be entered but not read is opened as what leads to what lies in it."""
    try:
        return _let_owner_in(os.open(name, DIRECTORY, dir_fd=parent), writing=writing)
    except PermissionError:
        fd = os.open(name, PATH_ONLY | os.O_DIRECTORY, dir_fd=parent)
        try:
            return reopen_directory(fd, writing=writing, leads_on=True)
        finally:
            os.close(fd)


def reopen_directory(fd: int, *, writing: bool, leads_on: bool) -> Opened:
    """The same of a path descriptor; only if it `leads_on` it need not be readable."""
    flags = DIRECTORY & ~os.O_NOFOLLOW
    try:
        return _let_owner_in(os.open(_path(fd), flags), writing=writing)
    except PermissionError:
        info = os.fstat(fd)
        if info.st_uid == os.geteuid():
            mode = stat.S_IMODE(info.st_mode)
            os.chmod(_path(fd), mode | _needed(writing=writing))  # noqa: PTH101 - a path descriptor takes no fchmod
            try:
                return Opened(os.open(_path(fd), flags), mode)
            except OSError:
                os.chmod(_path(fd), mode)  # noqa: PTH101
                raise
        if leads_on and os.access(_path(fd), os.X_OK, effective_ids=True):
            return Opened(os.dup(fd), None)
        raise


def is_closed_to_owner(uid: int, mode: int, needed: int) -> bool:
    """Whether a mode forbids this user, who is the owner and no administrator, some of what is needed."""
    return uid == os.geteuid() != 0 and mode & needed != needed


def is_readable(fd: int) -> bool:
    """Whether an open directory is more than what leads to what lies in it."""
    return not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH


def _let_owner_in(fd: int, *, writing: bool) -> Opened:
    try:
        info, needed = os.fstat(fd), _needed(writing=writing)
        if not is_closed_to_owner(info.st_uid, info.st_mode, needed):
            return Opened(fd, None)
        mode = stat.S_IMODE(info.st_mode)
        os.fchmod(fd, mode | needed)
    except BaseException:
        os.close(fd)
        raise
    return Opened(fd, mode)


def _needed(*, writing: bool) -> int:
    return 0o700 if writing else 0o500


def _path(fd: int) -> bytes:
    return b"/proc/self/fd/%d" % fd


def unlink(fd: int, name: bytes) -> bool:
    """Remove anything that is no directory; False when it is one."""
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            return False
        os.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        return True
    return True
