"""Gives restored items their owner, extended attributes, mode and times."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from enum import IntEnum
from functools import cache
from typing import Final

from backstay.repository.nodes import Node
from backstay.sources import access_lists, xattr_changes
from backstay.sources.closed_items import xattrs_of
from backstay.sources.metadata import Xattrs
from backstay.sources.refusals import ReportFailure, tried

_SET_ID: Final = stat.S_ISUID | stat.S_ISGID


class Beside(IntEnum):
    """Which extended attributes an item may have beside those that it is given."""

    NOTHING = 0
    LISTS = 1  # it was made in a directory that hands down access lists
    ANYTHING = 2  # it was there before


class Attributes:
    """Applies what a node says, and reports what this system or this user cannot do."""

    def __init__(self, *, owners: bool, numeric_ids: bool) -> None:
        self.owners = owners
        self.numeric_ids = numeric_ids
        self.own = (os.geteuid(), os.getegid())
        self._uid = cache(_uid_of)
        self._gid = cache(_gid_of)

    def apply(
        self,
        item: int | bytes,
        node: Node,
        report: ReportFailure,
        *,
        is_own: bool = False,
        beside: Beside = Beside.NOTHING,
    ) -> None:
        """To an open file or directory, or to the path of something that is no symlink.

        `is_own` says that it belongs to this process's user and group, as what a process makes mostly does. What it
        has `beside` what the node holds is taken from it.

        The order is what keeps special rights: a mode gives its group's rights to all that an access list names; a
        change of owner clears set-id bits and file capabilities, and a mode without write permission would forbid its
        owner to set attributes.
        """
        if beside:
            held = {name for name, _ in node.xattrs or ()}
            tried(report, "access list", access_lists.drop, item, is_dir=node.is_dir, keep=held)
        wanted = self.ids(node)
        owner = None if is_own and wanted == self.own else wanted
        if self.owners and not node.xattrs and beside < Beside.ANYTHING and _set_at_once(item, owner, node):
            return
        owned = tried(report, "owner", os.chown, item, *wanted) if self.owners else wanted == self.own
        if beside is Beside.ANYTHING:
            tried(report, "extended attributes", _change_xattrs, item, node.xattrs, report)
        else:
            xattr_changes.make(item, node.xattrs or (), report)
        mode = stat.S_IMODE(node.mode)
        if mode & _SET_ID and not owned and not node.is_dir:
            mode &= ~_SET_ID  # the rights were meant for another user's file
        tried(report, "mode", os.chmod, item, mode)
        tried(report, "time", os.utime, item, ns=(node.mtime_ns, node.mtime_ns))

    def apply_to_symlink(self, name: bytes, dir_fd: int, node: Node, report: ReportFailure) -> None:
        """The same for a symlink itself, which has no mode of its own."""
        if self.owners:
            tried(report, "owner", os.chown, name, *self.ids(node), dir_fd=dir_fd, follow_symlinks=False)
        path = b"/proc/self/fd/%d/%s" % (dir_fd, name)
        xattr_changes.make(path, node.xattrs or (), report, follow=False)
        times = (node.mtime_ns, node.mtime_ns)
        tried(report, "time", os.utime, name, ns=times, dir_fd=dir_fd, follow_symlinks=False)

    def ids(self, node: Node) -> tuple[int, int]:
        """User and group that the node's item gets on this machine."""
        if self.numeric_ids:
            return node.uid, node.gid
        uid = self._uid(node.user) if node.user else None
        gid = self._gid(node.group) if node.group else None
        return node.uid if uid is None else uid, node.gid if gid is None else gid


def _set_at_once(item: int | bytes, owner: tuple[int, int] | None, node: Node) -> bool:
    """The usual case with nothing between the calls; after False all is tried again, one by one, to say what failed."""
    try:
        if owner is not None:
            os.chown(item, *owner)
        os.chmod(item, stat.S_IMODE(node.mode))  # noqa: PTH101 - Path knows no descriptors
        os.utime(item, ns=(node.mtime_ns, node.mtime_ns))
    except (OSError, OverflowError):
        return False
    return True


def _change_xattrs(item: int | bytes, wanted: Xattrs | None, report: ReportFailure) -> None:
    """Of an item that was there. Raises OSError when it does not tell what it has."""
    pending = list(xattr_changes.changes(wanted, xattrs_of(item)))
    mode = stat.S_IMODE(os.stat(item).st_mode)  # noqa: PTH116 - Path knows no descriptors
    if pending and not mode & stat.S_IWUSR:
        tried(report, "mode", os.chmod, item, mode | stat.S_IWUSR)  # or its owner may not set them
    xattr_changes.make(item, pending, report)


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
