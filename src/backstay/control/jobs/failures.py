"""How a job says that it failed."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from backstay.errors import BackstayError, InsufficientSpace, InternalError

if TYPE_CHECKING:  # agents do without the catalog
    from backstay.catalog.models.base import Document

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class JobFailed(Exception):
    """Raised by a handler whose work failed, but has something to show: both are kept."""

    def __init__(self, error: BackstayError, result: Document) -> None:
        super().__init__(str(error))
        self.error, self.result = error, result


def failure_of(error: Exception) -> BackstayError:
    """Any failure as one of ours."""
    if isinstance(error, BackstayError):
        return error
    if isinstance(error, OSError):
        kind = InsufficientSpace if error.errno in _FULL else BackstayError
        place = str(error.filename) if error.filename else "what it needs"
        return kind(f"the job cannot use {place}", cause=error.strerror or str(error), hint="see its log")
    if isinstance(error, MemoryError):
        return BackstayError(
            "there was not enough memory",
            cause=str(error) or "other programs, or a limit on this one, left too little",
            hint="let fewer jobs run at once, or give this host more, and start the job again",
        )
    return InternalError(
        "this is a mistake in backstay",
        cause=f"{type(error).__name__}: {error}",
        hint="report it with the log of the job",
    )
