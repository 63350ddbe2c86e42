"""Gives restored items their owner, extended attributes, mode and times."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeAlias

from backstay.core.names import printable
from backstay.repository.nodes import Node
from backstay.sources import access_lists

Refusal: TypeAlias = OSError | OverflowError | ValueError  # the last two for values that no system call can take
ReportFailure: TypeAlias = Callable[[str, Refusal], None]  # (what was tried, why it failed)

_SET_ID: Final = stat.S_ISUID | stat.S_ISGID


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
        may_have_lists: bool = False,
    ) -> None:
        """To an open file or directory, or to the path of something that is no symlink.

        `is_own` says that it belongs to this process's user and group, as what a process makes mostly does. An item
        that `may_have_lists` loses access lists that the node does not hold.

        The order is what keeps special rights: a mode gives its group's rights to all that an access list names; a
        change of owner clears set-id bits and file capabilities, and a mode without write permission would forbid its
        owner to set attributes.
        """
        if may_have_lists:
            held = {name for name, _ in node.xattrs or ()}
            _done(report, "access list", access_lists.drop, item, is_dir=node.is_dir, keep=held)
        wanted = self.ids(node)
        owner = None if is_own and wanted == self.own else wanted
        if self.owners and not node.xattrs and _set_at_once(item, owner, node):
            return
        owned = _done(report, "owner", os.chown, item, *wanted) if self.owners else wanted == self.own
        for name, value in node.xattrs or ():
            _done(report, f"extended attribute {printable(name)}", os.setxattr, item, name, value)
        mode = stat.S_IMODE(node.mode)
        if mode & _SET_ID and not owned and not node.is_dir:
            mode &= ~_SET_ID  # the rights were meant for another user's file
        _done(report, "mode", os.chmod, item, mode)
        _done(report, "time", os.utime, item, ns=(node.mtime_ns, node.mtime_ns))

    def apply_to_symlink(self, name: bytes, dir_fd: int, node: Node, report: ReportFailure) -> None:
        """The same for a symlink itself, which has no mode of its own."""
        if self.owners:
            _done(report, "owner", os.chown, name, *self.ids(node), dir_fd=dir_fd, follow_symlinks=False)
        path = b"/proc/self/fd/%d/%s" % (dir_fd, name)
        for key, value in node.xattrs or ():
            what = f"extended attribute {printable(key)}"
            _done(report, what, os.setxattr, path, key, value, follow_symlinks=False)
        times = (node.mtime_ns, node.mtime_ns)
        _done(report, "time", os.utime, name, ns=times, dir_fd=dir_fd, follow_symlinks=False)

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


def _done(report: ReportFailure, what: str, call: Callable[..., None], *arguments: Any, **options: Any) -> bool:  # noqa: ANN401
    """Whether the call succeeded; if not, that is reported."""
    try:
        call(*arguments, **options)
    except (OSError, OverflowError, ValueError) as error:
        report(what, error)
        return False
    return True


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
