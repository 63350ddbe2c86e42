"""What an item looks like besides its content, taken down so that it can be put back exactly."""

from __future__ import annotations

import os
import stat
from typing import Final

import msgspec

from backstay.repository.nodes import Node, storable_time
from backstay.sources import xattr_changes
from backstay.sources.attributes import Attributes
from backstay.sources.directory_descriptors import PATH_ONLY
from backstay.sources.metadata import Xattrs, read_xattrs
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
        info = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        xattrs = read_xattrs(b"/proc/self/fd/%d/%s" % (dir_fd, name))
        return cls(info.st_mode, info.st_uid, info.st_gid, storable_time(info.st_mtime_ns), xattrs)

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

    def put(self, dir_fd: int, name: bytes, report: ReportFailure, *, all_of_them: bool) -> None:
        """Make an item look so; what is so already is not touched. Raises OSError for an item that is not there.

        With `all_of_them` extended attributes of the system that these do not name are removed too.
        """
        found = Facts.of(dir_fd, name)
        if stat.S_IFMT(found.mode) != stat.S_IFMT(self.mode):
            return  # another program put something else there, which keeps its own
        owned = (found.uid, found.gid) == (self.uid, self.gid)
        if self.uid != _ANYBODY and not owned:
            tried(report, "owner", os.chown, name, self.uid, self.gid, dir_fd=dir_fd, follow_symlinks=False)
            found = Facts.of(dir_fd, name)  # a program lost its capabilities
        self._put_xattrs(dir_fd, name, found, report, all_of_them=all_of_them)
        if not self.is_symlink:
            tried(report, "mode", set_mode, dir_fd, name, stat.S_IMODE(self.mode))
        times = (self.mtime_ns, self.mtime_ns)
        tried(report, "time", os.utime, name, ns=times, dir_fd=dir_fd, follow_symlinks=False)

    def _put_xattrs(self, dir_fd: int, name: bytes, found: Facts, report: ReportFailure, *, all_of_them: bool) -> None:
        pending = list(xattr_changes.changes(self.xattrs, found.xattrs, all_of_them=all_of_them))
        if pending and not self.is_symlink:
            # Or its owner may not set them.
            tried(report, "mode", set_mode, dir_fd, name, stat.S_IMODE(found.mode) | stat.S_IWUSR)
        path = b"/proc/self/fd/%d/%s" % (dir_fd, name)
        xattr_changes.make(path, pending, report, follow=False)


def set_mode(dir_fd: int, name: bytes, mode: int) -> None:
    """Of anything but a symlink, without following one. Raises OSError."""
    fd = os.open(name, PATH_ONLY, dir_fd=dir_fd)
    try:
        if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
            os.chmod(b"/proc/self/fd/%d" % fd, mode)  # noqa: PTH101 - a path descriptor takes no fchmod
    finally:
        os.close(fd)
