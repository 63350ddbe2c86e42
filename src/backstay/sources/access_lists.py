"""Access lists that an item has not by itself: a directory hands down its default list to all that is made in it."""

from __future__ import annotations

import errno
import os
from collections.abc import Container
from typing import Final

ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"  # of directories only
_NONE: Final = frozenset({errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS})


def hands_down(directory: int) -> bool:
    """Whether what is made in an open directory gets an access list (acl(5), "Object creation and default ACLs")."""
    return _has(directory, DEFAULT)


def drop(item: int | bytes, *, is_dir: bool, keep: Container[bytes] = ()) -> None:
    """Take all lists but those to keep from an open item, or from a path that is no symlink. Raises OSError."""
    for name in (ACCESS, DEFAULT) if is_dir else (ACCESS,):
        if name in keep:
            continue
        try:
            os.removexattr(item, name)
        except OSError as error:
            if error.errno not in _NONE and _has(item, name):  # who does not own it may not even ask for nothing
                raise


def _has(item: int | bytes, name: bytes) -> bool:
    """Where that cannot be known, it may: what has none loses nothing, and what has one lets somebody in."""
    try:
        os.getxattr(item, name)
    except OSError as error:
        return error.errno not in _NONE
    return True
