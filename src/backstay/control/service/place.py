"""The data directory of the service: where its databases and keys lie, and that one process has it."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from backstay.errors import CatalogUnavailable, InvalidRequest, JobConflict

LEAST_FREE: Final = 1 << 20  # bytes; with less of them SQLite soon finds no room for a row


def prepare(directory: Path) -> Path:
    """The directory as a whole path; made if it is not there, for its owner alone. Raises InvalidRequest."""
    with _usable(directory):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if directory.stat().st_mode & stat.S_IWOTH:
            raise InvalidRequest(
                f"the data directory {directory} is not safe",
                cause="everybody could put other files in the place of the service's",
                hint=f"chmod 700 {directory}, after a look at what lies there",
            )
        return directory.resolve(strict=True)


@contextmanager
def _usable(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidRequest(
            f"the data directory {directory} cannot be used",
            cause=error.strerror or str(error),
            hint="give --data-dir a directory that this user may write to",
        ) from error


def full_disk(directory: Path) -> CatalogUnavailable | None:
    """What is wrong if nothing more can be written there: a worker's beat goes over what its file has already."""
    try:
        found = os.statvfs(directory)
    except OSError as error:
        return CatalogUnavailable("the catalog cannot be written", cause=f"{directory}: {error.strerror}")
    free = (found.f_bfree if os.geteuid() == 0 else found.f_bavail) * found.f_frsize
    if free >= LEAST_FREE or not found.f_blocks:  # some file systems do not know how large they are
        return None
    return CatalogUnavailable(
        "the catalog cannot be written", cause=f"the disk of {directory} has {free} bytes left", hint="make room there"
    )


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Within, no other process has this directory. Raises JobConflict, InvalidRequest.

    The lock goes with the process, however it ends: a file that is left means nothing.
    """
    with _usable(directory):
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            raise JobConflict(
                f"another server has {directory}",
                cause=f"process {holder or 'unknown'} holds its lock",
                hint="stop it, or give another --data-dir; with --database postgresql://… several may run",
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
