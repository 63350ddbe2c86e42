"""Files that hold a secret: only their owner reads them, and they are durable before anything relies on them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkstemp

from backstay.errors import InvalidRequest


def write_secret_file(path: Path, text: str) -> None:
    """Write a new file that only its owner can read, durable on return. Raises InvalidRequest when it exists.

    It is written beside the place under a name that nobody else uses, and gets its own name when it is whole. A crash
    between leaves that other file, which is in the way of nothing.
    """
    with _told(path):
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


def unfinished(path: Path) -> Path:
    """Where a key file is until something opens with it; whoever finds one there goes on with it."""
    return path.with_name(path.name + ".new")


def refuse_existing(path: Path) -> None:
    """Raises InvalidRequest when a key file has its place already."""
    with _told(path):
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def finish_key_file(path: Path) -> None:
    """Give a key file its place, durably, now that something opens with it. Raises InvalidRequest when one is there."""
    with _told(path):
        os.link(unfinished(path), path)
        unfinished(path).unlink()
        sync_directory(path.parent)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
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
