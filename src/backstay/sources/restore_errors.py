"""What a failed system call means to somebody who restores."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from backstay.core.names import printable
from backstay.errors import BackstayError, CorruptedBackup, InsufficientSpace, RestoreConflict, RestoreFailed

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_IN_THE_WAY: Final = frozenset({errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ELOOP})


def failure(error: OSError | OverflowError, path: bytes, doing: str) -> BackstayError:
    """The typed error; `path` is empty for the target itself."""
    title = f"cannot {doing} {printable(path)}" if path else f"cannot {doing} the target"
    code = error.errno if isinstance(error, OSError) else errno.EOVERFLOW
    if code in _FULL:
        return InsufficientSpace(title, cause=reason(error), hint="free space there, or restore to another disk")
    if code in _IN_THE_WAY:
        return conflict(path, reason(error))
    if code in _FORBIDDEN:
        return RestoreFailed(title, cause=reason(error), hint="restore to a directory that you may write to")
    return RestoreFailed(title, cause=reason(error))


def told(work: Callable[[], None], what: str) -> None:
    """Do a step; an OSError of it becomes the error that says what to do."""
    try:
        work()
    except OSError as error:
        kind: type[BackstayError] = InsufficientSpace if error.errno in _FULL else RestoreFailed
        raise kind(f"cannot {what}", cause=f"{error.filename}: {error.strerror}") from error


def conflict(path: bytes, cause: str) -> RestoreConflict:
    """The target holds something else under this name."""
    shown = printable(path)
    return RestoreConflict(f"{shown or 'the target'} is in the way", cause=cause, paths=(shown,))


def corrupted(path: bytes, cause: str) -> CorruptedBackup:
    """The snapshot says something about this item that cannot be."""
    return CorruptedBackup(f"cannot restore {printable(path)}", cause=cause)


def reason(error: OSError | OverflowError | ValueError) -> str:
    """The system's own words."""
    return ((error.strerror if isinstance(error, OSError) else None) or str(error)).lower()
