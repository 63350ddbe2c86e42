"""Linux calls that Python has no function for."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from typing import Final

CLOSED: Final = (1 << 31) - 1  # a descriptor that never exists; -1 would make scandir and listdir list "."
MAX_DESCRIPTORS: Final = 1 << 20  # some systems allow billions, and programs that close "all" of them then hang
_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
_STATFS_BYTES: Final = 512  # larger than any struct statfs

_libc: Final = ctypes.CDLL(None, use_errno=True)


def raise_descriptor_limit() -> None:
    """Allow as many open files as this process may have: a walk holds one per level, and some beside them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def descriptor_limit() -> int:
    """How many files this process may have open, at least 0."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def filesystem_type(fd: int) -> int:
    """The magic number (statfs f_type) of the file system that an open file lies on."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    call("fstatfs", ctypes.c_int(fd), buffer)
    # f_type comes first; its low 32 bits hold the number on every word size (big-endian machines declare 32 bits).
    return ctypes.c_uint32.from_buffer(buffer).value


def rename_noreplace(fd: int, old: bytes, new: bytes) -> None:
    """Rename within one directory; FileExistsError instead of replacing anything."""
    move_noreplace(fd, old, fd, new)


def move_noreplace(from_fd: int, old: bytes, to_fd: int, new: bytes) -> None:
    """Rename from one directory into another; FileExistsError instead of replacing anything."""
    try:
        call("renameat2", from_fd, old, to_fd, new, _RENAME_NOREPLACE)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EINVAL):
            raise
        _move_carefully(from_fd, old, to_fd, new)


def _move_carefully(from_fd: int, old: bytes, to_fd: int, new: bytes) -> None:
    """The same for file systems without RENAME_NOREPLACE, where only other writers of this moment can interfere."""
    try:
        os.stat(new, dir_fd=to_fd, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(old, new, src_dir_fd=from_fd, dst_dir_fd=to_fd)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)


def exchange(one_fd: int, one: bytes, other_fd: int, other: bytes) -> None:
    """Let two names change places in one step; OSError ENOSYS or EINVAL where the system or file system cannot."""
    call("renameat2", one_fd, one, other_fd, other, _RENAME_EXCHANGE)


def mount_id(fd: int) -> int:
    """Which mount an open file was reached through: nothing can be renamed from one to another (proc(5), fdinfo)."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as lines:  # noqa: PTH123 - not a path of the user
        return next(int(line.split()[1]) for line in lines if line.startswith(b"mnt_id:"))


def is_mount_root(fd: int) -> bool:
    """Whether an open directory is the top of what is mounted there. Raises OSError."""
    above = os.open(b"..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        return mount_id(above) != mount_id(fd)
    finally:
        os.close(above)


def reserve(fd: int, size: int) -> None:
    """Take the blocks for `size` bytes now, where the file system can; OSError ENOSPC when there are not enough.

    posix_fallocate would write to every block where the file system cannot, which costs more than it helps.
    """
    try:
        call("fallocate", fd, 0, ctypes.c_int64(0), ctypes.c_int64(size))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise


def call(name: str, *arguments: object) -> int:
    """Call libc: what it answers. Raises OSError when it says -1."""
    wide = name + "64"  # on 32-bit glibc only this one takes 64-bit sizes
    function = getattr(_libc, wide if hasattr(_libc, wide) else name, None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    while (answer := int(function(*arguments))) == -1:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return answer
