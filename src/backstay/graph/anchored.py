"""Files below a directory, reached without following any link, so that no path can lead out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Anchored:
    """Relative paths without `..`, as graphs have them, below one directory. Raises OSError."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def parent(self, path: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """A descriptor of the directory that a path lies in, and its name there."""
        *above, name = path.split("/")
        at = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in above:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=at)
                below = os.open(part, _DIRECTORY, dir_fd=at)
                os.close(at)
                at = below
            yield at, name
        finally:
            os.close(at)

    def open(self, path: str) -> IO[bytes]:
        """A regular file, to read."""
        with self.parent(path) as (at, name):
            fd = os.open(name, _READ, dir_fd=at)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(f"{path} is no regular file")
        return os.fdopen(fd, "rb")

    def lstat(self, path: str) -> os.stat_result | None:
        """What lies there; None if nothing does."""
        try:
            with self.parent(path) as (at, name):
                return os.stat(name, dir_fd=at, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def move(self, source: str, target: str) -> None:
        """Put one file in the place of another, or of nothing."""
        with self.parent(source) as (before, old), self.parent(target, create=True) as (after, new):
            os.rename(old, new, src_dir_fd=before, dst_dir_fd=after)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name. A link is taken itself, not what it leads to."""
        with self.parent(source) as (before, old), self.parent(target, create=True) as (after, new):
            os.link(old, new, src_dir_fd=before, dst_dir_fd=after, follow_symlinks=False)

    def unlink(self, path: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError), self.parent(path) as (at, name):
            os.unlink(name, dir_fd=at)

    def sync(self, paths: Iterable[str]) -> None:
        """Make durable which names there are in the directories that these lie in, and in those above."""
        above = {path.rpartition("/")[0] for path in paths}
        while below := {directory.rpartition("/")[0] for directory in above if directory} - above:
            above |= below
        for directory in sorted(above, reverse=True):
            # Where no directory lies, no names are to be made durable.
            with (
                suppress(FileNotFoundError, NotADirectoryError),
                self.parent(f"{directory}/." if directory else ".") as (at, _),
            ):
                os.fsync(at)
