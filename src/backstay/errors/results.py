"""Why a result cannot be written to the file that was named for it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

from backstay.errors.base import BackstayError, InvalidRequest
from backstay.errors.stores import InsufficientSpace

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def not_written(what: str, path: Path, error: OSError) -> BackstayError:
    """InsufficientSpace where there is no room for it, InvalidRequest for a file that cannot be written to."""
    title, cause = f"{what} cannot be written to {path}", (error.strerror or str(error)).lower()
    if error.errno in _FULL:
        return InsufficientSpace(title, cause=cause, hint="make room there, or name a file on another disk")
    return InvalidRequest(title, cause=cause, hint="name a file in a directory that you may write to")


def require_directory(what: str, path: Path) -> None:
    """Raises InvalidRequest where the directory of a file is not there: before hours of work for what it is to hold."""
    if not path.absolute().parent.is_dir():
        raise InvalidRequest(
            f"{what} cannot be written to {path}",
            cause=f"{path.absolute().parent} is not there",
            hint="make that directory first",
        )
