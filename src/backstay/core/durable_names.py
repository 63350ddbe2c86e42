"""Names that a crash does not take back: a file that is durable has none before its directory is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def make_directories(directory: Path, mode: int = 0o777) -> None:
    """Make a directory unless it is there, and those above it, durably. Raises OSError."""
    if directory.is_dir():
        return
    make_directories(directory.parent, mode)
    directory.mkdir(mode, exist_ok=True)
    with suppress(PermissionError):  # where names may be made and not read, nobody but root can make them durable
        sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
