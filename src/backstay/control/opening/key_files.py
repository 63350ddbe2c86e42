"""Files that hold a secret: only their owner reads them, and they are durable before anything relies on them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkstemp
from typing import Final

from backstay.core.durable_names import make_directories, sync_directory
from backstay.errors import BackstayError, InsufficientSpace, InvalidRequest

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def write_secret_file(path: Path, text: str) -> None:
    """Write a new file that only its owner can read, durable on return.

    Raises InvalidRequest for a place where no new file can be, InsufficientSpace, BackstayError.

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
        raise _refused(path, error) from error


def make_directory(path: Path) -> None:
    """Make a directory for such files durably, unless it is there. Raises InsufficientSpace, BackstayError."""
    try:
        make_directories(path, 0o700)
    except OSError as error:
        kind = InsufficientSpace if error.errno in _FULL else BackstayError
        raise kind(
            f"cannot make the directory {path} for a key file",
            cause=error.strerror or str(error),
            hint="let this user write there, or set HOME or XDG_CONFIG_HOME to a place where it may",
        ) from error


def _refused(path: Path, error: OSError) -> BackstayError:
    title, cause = f"cannot write the key file {path}", error.strerror or str(error)
    if error.errno in _FULL:
        return InsufficientSpace(title, cause=cause, hint="make room on its disk")
    if error.errno == errno.EEXIST:
        return InvalidRequest(title, cause=cause, hint="name a new file")
    kind = InvalidRequest if error.errno in (errno.ENOENT, errno.ENOTDIR) else BackstayError
    return kind(title, cause=cause, hint="name a directory that this user may write to")
