"""Gives restored items their owner, extended attributes, mode and times."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Callable
from functools import cache

from backstay.repository.nodes import Node

_SET_ID = stat.S_ISUID | stat.S_ISGID

ReportFailure = Callable[[str, OSError], None]  # (what was tried, why it failed)


class Attributes:
    """Applies what a node says, and reports what this system or this user cannot do."""

    def __init__(self, *, owners: bool, numeric_ids: bool) -> None:
        self._owners = owners
        self._numeric = numeric_ids
        self._self = (os.geteuid(), os.getegid())
        self._uid = cache(_uid_of)
        self._gid = cache(_gid_of)

    def apply(self, item: int | bytes, node: Node, report: ReportFailure) -> None:
        """To an open file or directory, or to the path of something that is no symlink.

        The order is what keeps special rights: a change of owner clears set-id bits and file capabilities, and a
        mode without write permission would forbid its owner to set attributes.
        """
        owned = self._change_owner(item, node, report)
        if node.xattrs:
            self._set_xattrs(item, node, report)
        mode = stat.S_IMODE(node.mode)
        if mode & _SET_ID and not owned and not node.is_dir:
            mode &= ~_SET_ID  # the rights were meant for another user's file
        try:
            os.chmod(item, mode)  # noqa: PTH101 - Path knows no descriptors
        except OSError as error:
            report("mode", error)
        try:
            os.utime(item, ns=(node.mtime_ns, node.mtime_ns))
        except (OSError, OverflowError) as error:
            report("time", error if isinstance(error, OSError) else OSError(0, str(error)))

    def apply_to_symlink(self, name: bytes, dir_fd: int, node: Node, report: ReportFailure) -> None:
        """The same for a symlink itself, which has no mode of its own."""
        try:
            if self._owners:
                os.chown(name, *self._ids(node), dir_fd=dir_fd, follow_symlinks=False)
        except OSError as error:
            report("owner", error)
        if node.xattrs:
            self._set_xattrs(b"/proc/self/fd/%d/%s" % (dir_fd, name), node, report)
        try:
            os.utime(name, ns=(node.mtime_ns, node.mtime_ns), dir_fd=dir_fd, follow_symlinks=False)
        except (OSError, OverflowError) as error:
            report("time", error if isinstance(error, OSError) else OSError(0, str(error)))

    def _change_owner(self, item: int | bytes, node: Node, report: ReportFailure) -> bool:
        """Whether the item now belongs to whom the node says."""
        wanted = self._ids(node)
        if not self._owners:
            return wanted == self._self
        try:
            os.chown(item, *wanted)
        except (OSError, OverflowError) as error:
            report("owner", error if isinstance(error, OSError) else OSError(0, str(error)))
            return False
        return True

    def _ids(self, node: Node) -> tuple[int, int]:
        if self._numeric:
            return node.uid, node.gid
        uid = self._uid(node.user) if node.user else None
        gid = self._gid(node.group) if node.group else None
        return node.uid if uid is None else uid, node.gid if gid is None else gid

    def _set_xattrs(self, item: int | bytes, node: Node, report: ReportFailure) -> None:
        for name, value in node.xattrs or ():
            try:
                os.setxattr(item, name, value, follow_symlinks=not node.is_symlink)
            except (OSError, ValueError) as error:
                report(
                    f"extended attribute {name.decode(errors='backslashreplace')}",
                    error if isinstance(error, OSError) else OSError(0, str(error)),
                )


def _uid_of(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        return None


def _gid_of(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        return None
