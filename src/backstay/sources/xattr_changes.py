"""What has to be done to the extended attributes of an item that was there, so that they are those of a snapshot."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from backstay.core.names import printable
from backstay.sources.metadata import Xattrs
from backstay.sources.refusals import ReportFailure, tried

Change: TypeAlias = tuple[bytes, bytes | None]  # with None the attribute goes

_TOLD: Final = (b"user.", b"system.posix_acl_")
_CAPABILITY: Final = b"security.capability"


def changes(wanted: Xattrs | None, there: Xattrs | None, *, all_of_them: bool = False) -> Iterator[Change]:
    """What to remove, and then what to set.

    Labels of the system (`security.`, `trusted.`) that the snapshot does not hold stay unless it is to be
    `all_of_them`: who made it could perhaps not read them, and the system gives some by itself. Not so the
    capabilities of a program, which everybody can read and which are rights.
    """
    held, found = dict(wanted or ()), dict(there or ())
    yield from ((name, None) for name in found if name not in held and (all_of_them or _is_told(name)))
    yield from ((name, value) for name, value in held.items() if found.get(name) != value)


def make(item: int | bytes, pending: Iterable[Change], report: ReportFailure, *, follow: bool = True) -> None:
    """Change those of an open item, or of a path; what the system refuses is reported."""
    for name, value in pending:
        what = f"extended attribute {printable(name)}"
        if value is None:
            tried(report, what, os.removexattr, item, name, follow_symlinks=follow)
        else:
            tried(report, what, os.setxattr, item, name, value, follow_symlinks=follow)


def _is_told(name: bytes) -> bool:
    """Whether a snapshot holds it wherever the item had it."""
    return name == _CAPABILITY or name.startswith(_TOLD)
