"""Files that hold a secret: only their owner reads them, and they are durable before anything relies on them."""

from __future__ import annotations

import os
from pathlib import Path

from backstay.errors import InvalidRequest


def write_secret_file(path: Path, text: str) -> None:
    """Write a new file that only its owner can read, durable on return. Raises InvalidRequest when it exists."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, text.encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        try:
            os.link(temporary, path)
        finally:
            temporary.unlink()
        sync_directory(path.parent)
    except OSError as error:
        raise InvalidRequest(
            f"cannot write the key file {path}", cause=error.strerror or str(error), hint="name a new file"
        ) from error


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
