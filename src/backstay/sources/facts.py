"""What an item looks like besides its content, taken down so that it can be put back exactly."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from backstay.repository.nodes import Node, storable_time
from backstay.sources import xattr_changes
from backstay.sources.attributes import Attributes
from backstay.sources.closed_items import xattrs_of
from backstay.sources.directory_descriptors import PATH_ONLY
from backstay.sources.metadata import Xattrs
from backstay.sources.refusals import ReportFailure, tried

_SET_ID: Final = stat.S_ISUID | stat.S_ISGID
_ANYBODY: Final = -1


class Facts(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`mode` is st_mode whole; an owner of -1 stays what it is."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: Xattrs | None = None

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @classmethod
    def of(cls, dir_fd: int, name: bytes) -> Facts:
        """Those of an item (`.` for the directory itself). Raises OSError."""
        with _opened(dir_fd, name) as fd:
            return cls._of_open(fd)

    @classmethod
    def _of_open(cls, fd: int) -> Facts:
        info = os.fstat(fd)
        return cls(info.st_mode, info.st_uid, info.st_gid, storable_time(info.st_mtime_ns), xattrs_of(_path(fd)))

    @classmethod
    def wanted(cls, node: Node, attributes: Attributes) -> Facts:
        """Those that a snapshot's item should get from this user on this machine."""
        owner = attributes.ids(node)
        mode = node.mode
        if not attributes.owners and not node.is_dir and owner != (os.geteuid(), os.getegid()):
            mode &= ~_SET_ID  # the rights were meant for another user's file
        uid, gid = owner if attributes.owners else (_ANYBODY, _ANYBODY)
        return cls(mode, uid, gid, node.mtime_ns, node.xattrs)

    def fit(self, found: Facts) -> bool:
        """Whether an item that looks like `found` needs no change."""
        same_owner = self.uid == _ANYBODY or (self.uid, self.gid) == (found.uid, found.gid)
        same_mode = self.is_symlink or stat.S_IMODE(self.mode) == stat.S_IMODE(found.mode)
        return (
            same_owner
            and same_mode
            and self.mtime_ns == found.mtime_ns
            and not any(xattr_changes.changes(self.xattrs, found.xattrs))
        )

    def put(
        self, dir_fd: int, name: bytes, report: ReportFailure, *, all_of_them: bool, inode: int | None = None
    ) -> bool:
        """Make an item look so; what is so already is not touched. Raises OSError for an item that is not there.

        With `all_of_them` extended attributes of the system that these do not name are removed too. False when it is
        something else by now: another kind of item, or not that `inode`.
        """
        with _opened(dir_fd, name) as fd:
            found = Facts._of_open(fd)
            if stat.S_IFMT(found.mode) != stat.S_IFMT(self.mode) or inode not in (None, os.fstat(fd).st_ino):
                return False
            self._put_on(fd, found, report, all_of_them=all_of_them)
        return True

    def _put_on(self, fd: int, found: Facts, report: ReportFailure, *, all_of_them: bool) -> None:
        owned = (found.uid, found.gid) == (self.uid, self.gid)
        if self.uid != _ANYBODY and not owned:
            tried(report, "owner", os.chown, _path(fd), self.uid, self.gid)
            found = Facts._of_open(fd)  # a program lost its capabilities
        pending = list(xattr_changes.changes(self.xattrs, found.xattrs, all_of_them=all_of_them))
        if pending and not self.is_symlink:
            # Or its owner may not set them.
            tried(report, "mode", _change_mode, fd, stat.S_IMODE(found.mode) | stat.S_IWUSR)
        xattr_changes.make(_path(fd), pending, report)
        if not self.is_symlink:
            tried(report, "mode", _change_mode, fd, stat.S_IMODE(self.mode))
        tried(report, "time", os.utime, _path(fd), ns=(self.mtime_ns, self.mtime_ns))


def set_mode(dir_fd: int, name: bytes, mode: int, *, inode: int | None = None) -> bool:
    """Of anything but a symlink, without following one; False when it is not that `inode`. Raises OSError."""
    with _opened(dir_fd, name) as fd:
        if inode not in (None, os.fstat(fd).st_ino):
            return False
        _change_mode(fd, mode)
    return True


def _change_mode(fd: int, mode: int) -> None:
    if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
        os.chmod(_path(fd), mode)  # noqa: PTH101 - a path descriptor takes no fchmod


@contextmanager
def _opened(dir_fd: int, name: bytes) -> Iterator[int]:
    """A path descriptor: it names one item, also a symlink, whatever its name means by now."""
    fd = os.open(name, PATH_ONLY, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def _path(fd: int) -> bytes:
    return b"/proc/self/fd/%d" % fd
