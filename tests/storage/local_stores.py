"""What lies in the directory of a local store."""

from __future__ import annotations

import errno
import os

from backstay.storage.filesystem_seam import Filesystem

NAME = "packs/ab/object"
DATA = bytes(range(256)) * 40
MORE = b"another content, of another length"


class NoLinks(Filesystem):
    """As exFAT does it."""

    def link(self, source: str, target: str) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), source, None, target)
