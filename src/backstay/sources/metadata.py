"""What a file system knows of an item besides its bytes: owners' names, extended attributes, its volume."""

from __future__ import annotations

import errno
import grp
import hashlib
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Final, TypeAlias

from backstay.sources.kernel import filesystem_type
from backstay.sources.mount_points import SHARED

Xattrs: TypeAlias = tuple[tuple[bytes, bytes], ...]

MAX_XATTRS: Final = 16 << 20  # bytes, names and values, of one item: a listing must be readable in little memory
_SECOND: Final = 1_000_000_000
FINE: Final = 50_000_000  # ns: kernels stamp files with the time of their last tick, at most 10 ms old
COARSE: Final = 2 * _SECOND  # FAT counts in steps of 2 s; servers have clocks and caches of their own

_COARSE_TYPES: Final = SHARED | {0x4D44, 0x2011BAB0}  # and FAT, exFAT
_NO_XATTRS: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})


@dataclass(frozen=True, slots=True)
class Volume:
    """One mounted file system: how far its timestamps can be trusted, and what tells its inodes from others'."""

    identity: bytes
    coarse: bool

    @classmethod
    def of(cls, fd: int, place: bytes) -> Volume:
        """That of an open directory, the first one on it that a walk comes to, which is where it is mounted."""
        # Device numbers are others after the next start, and so is f_fsid on some file systems. Copies of one, such as
        # a snapshot of its volume, have the same f_fsid; they lie in other places.
        return cls(place, filesystem_type(fd) in _COARSE_TYPES)

    def may_change_unseen(self, mtime_ns: int, ctime_ns: int, now_ns: int) -> bool:
        """Whether a write that follows a reading at `now_ns` could leave both timestamps as they are.

        Every write sets ctime, so that a recent mtime means nothing by itself where ctime is real. File systems
        with small inodes keep whole seconds, and give themselves away by that.
        """
        if self.coarse:
            return max(mtime_ns, ctime_ns) >= now_ns - COARSE
        return ctime_ns >= now_ns - (FINE if ctime_ns % _SECOND else COARSE)

    def link_group(self, info: os.stat_result) -> bytes | None:
        """What all names of one inode have in common; None when it has a single name.

        It is the same in each backup as long as the inode is: some names are captured anew, others taken over.
        """
        if info.st_nlink < 2:
            return None
        facts = b"%d %d %d %s" % (info.st_ino, info.st_size, info.st_mtime_ns, self.identity)
        return hashlib.sha256(facts).digest()[:16]


@dataclass(slots=True)
class Owners:
    """Names of users and groups, asked for once each."""

    user: Callable[[int], str] = field(default_factory=lambda: cache(_user_name))
    group: Callable[[int], str] = field(default_factory=lambda: cache(_group_name))


def _user_name(uid: int) -> str:
    try:
        return _text(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return ""


def _group_name(gid: int) -> str:
    try:
        return _text(grp.getgrgid(gid).gr_name)
    except KeyError:
        return ""


def _text(name: str) -> str:
    """Empty for a name that is no UTF-8: the number tells it then."""
    return "" if any("\udc80" <= char <= "\udcff" for char in name) else name


def read_xattrs(item: int | str | bytes, *, follow: bool = False) -> Xattrs | None:
    """All extended attributes of an open file or a path, sorted; None when there are none.

    Those of a symlink itself unless told to `follow` it. Raises OSError, also for more than MAX_XATTRS bytes of them.
    """
    follow = follow or isinstance(item, int)
    try:
        names = os.listxattr(item, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return None
        raise
    if not names:
        return None
    found: list[tuple[bytes, bytes]] = []
    size = 0
    for pair in (_read_xattr(item, name, follow=follow) for name in names):
        if pair is None:
            continue
        size += len(pair[0]) + len(pair[1])
        if size > MAX_XATTRS:
            raise OSError(errno.E2BIG, f"they have more than {MAX_XATTRS >> 20} MiB")
        found.append(pair)
    return tuple(sorted(found)) or None


def _read_xattr(item: int | str | bytes, name: str, *, follow: bool) -> tuple[bytes, bytes] | None:
    try:
        return os.fsencode(name), os.getxattr(item, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NO_XATTRS or error.errno == errno.ENODATA:  # removed since it was listed
            return None
        raise
