"""Files that hold a secret: only their owner reads them, and they are durable before anything relies on them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from tempfile import mkstemp

from backstay.errors import InvalidRequest


def write_secret_file(path: Path, text: str) -> None:
    """Write a new file that only its owner can read, durable on return. Raises InvalidRequest when it exists.

    It is written beside the place under a name that nobody else uses, and gets its own name when it is whole. A crash
    between leaves that other file, which is in the way of nothing.
    """
    try:
        fd, beside = mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(text.encode() + b"\n")
                file.flush()
                os.fsync(fd)
            os.link(beside, path)
        finally:
            Path(beside).unlink()
        sync_directory(path.parent)
    except OSError as error:
        raise InvalidRequest(
            f"cannot write the key file {path}", cause=error.strerror or str(error), hint=_hint(error)
        ) from error


def _hint(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "make room on its disk"
    return "name a new file" if error.errno == errno.EEXIST else "name a directory that this user may write to"


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
