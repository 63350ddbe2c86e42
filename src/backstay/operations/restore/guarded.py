"""What no restore removes: the repository that it reads, and what opens it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from backstay.core.names import printable
from backstay.errors import InvalidRequest
from backstay.repository.repository import Repository

_MOST_LINKS: Final = 40  # as Linux follows


class Guarded:
    """The directories of a repository on this machine, with its copies and its cold tier, and what else is spared.

    Nothing is put into the former.
    """

    def __init__(self, repository: Repository, spared: Sequence[Path] = ()) -> None:
        places = repository.local_places()
        self._repository = tuple(os.path.realpath(bytes(place)) for place in places)
        named = (*places, *spared)
        self._places = tuple(place for name in named for place in _with_links(name.absolute()))
        self._inodes = frozenset(inode for place in self._places for inode in _way(Path(os.fsdecode(place))))

    def holds(self, path: bytes, info: os.stat_result) -> bool:
        return (info.st_dev, info.st_ino) in self._inodes or any(is_below(place, path) for place in self._places)

    def is_within(self, path: bytes) -> bool:
        return any(is_below(path, place) for place in self._places)

    def refuse(self, path: bytes, info: os.stat_result) -> None:
        if self.holds(path, info):
            raise InvalidRequest(
                f"cannot replace or remove {printable(path)}",
                cause="the repository lies there, a copy of it or its cold tier, or what opens it",
                hint="exclude it with --exclude, or restore other paths one by one with ID:PATH",
            )

    def is_repository(self, path: bytes) -> bool:
        """Whether a directory is one of the repository, or lies in it."""
        return any(is_below(path, place) for place in self._repository)

    def refuse_within(self, path: bytes) -> None:
        """Raises InvalidRequest for a directory of the repository itself."""
        if self.is_repository(path):
            raise InvalidRequest(
                f"{printable(path)} lies inside the repository",
                cause="restored files would be taken for objects",
                hint="choose a directory outside of the repository",
            )


def _with_links(place: Path) -> Iterator[bytes]:
    """Where an absolute path leads, and each symlink on the way: without one of them nobody finds it."""
    yield os.path.realpath(os.fsencode(place))
    for _ in range(_MOST_LINKS):
        link = next((part for part in (*reversed(place.parents), place) if part.is_symlink()), None)
        if link is None:
            return
        yield os.fsencode(link)
        place = Path(os.path.normpath(link.parent / link.readlink() / place.relative_to(link)))


def is_below(path: bytes, top: bytes) -> bool:
    """Whether a path is another one, or lies below it."""
    return path == top or path.startswith(top.rstrip(b"/") + b"/")


def _way(place: Path) -> Iterator[tuple[int, int]]:
    for directory in (place, *place.parents):
        try:
            info = directory.stat()
        except OSError:
            continue  # such as a disk that is not attached: its path is known all the same
        yield info.st_dev, info.st_ino
