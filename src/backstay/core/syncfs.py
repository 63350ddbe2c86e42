"""Many new files made durable by one call of the system."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)


def sync_filesystem(fd: int) -> None:
    """Make everything on this open file's file system durable; raises OSError."""
    while _libc.syncfs(ctypes.c_int(fd)) == -1:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
