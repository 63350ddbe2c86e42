"""Which directories are watched, by their paths and by their watches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


def directory_of(path: bytes) -> bytes:
    """Where an absolute path lies; `/` lies in itself."""
    return path.rpartition(b"/")[0] or b"/"


def name_of(path: bytes) -> bytes:
    """The last name of a path."""
    return path.rpartition(b"/")[2]


def path_in(directory: bytes, name: bytes) -> bytes:
    """The path of what has this name in a directory."""
    return directory + name if directory == b"/" else directory + b"/" + name


@dataclass(slots=True, eq=False)
class WatchedDirectory:
    """One watched directory. `named` are names in it that always count; where it only `leads`, no others do."""

    path: bytes
    watch: int
    named: frozenset[bytes]
    leads: bool
    is_cache: bool = False
    below: dict[bytes, WatchedDirectory] = field(default_factory=dict)


class WatchedTree:
    """Changes nothing in the kernel: whoever takes out directories ends their watches."""

    def __init__(self) -> None:
        self._by_path: dict[bytes, WatchedDirectory] = {}
        self._by_watch: dict[int, WatchedDirectory] = {}

    def __contains__(self, path: bytes) -> bool:
        return path in self._by_path

    def __len__(self) -> int:
        return len(self._by_path)

    def at(self, path: bytes) -> WatchedDirectory | None:
        """The watched directory at a path."""
        return self._by_path.get(path)

    def of(self, watch: int) -> WatchedDirectory | None:
        """The directory of a watch; None when it is none of ours any more."""
        return self._by_watch.get(watch)

    def put(self, directory: WatchedDirectory) -> None:
        """Add one, at a path and with a watch that nothing else has."""
        self._by_path[directory.path] = directory
        self._by_watch[directory.watch] = directory
        above = self._by_path.get(directory_of(directory.path))
        if above is not None and above is not directory:
            above.below[name_of(directory.path)] = directory

    def take_out(self, directory: WatchedDirectory) -> list[WatchedDirectory]:
        """Forget one and all below it, which are returned."""
        above = self._by_path.get(directory_of(directory.path))
        if above is not None and above is not directory:
            above.below.pop(name_of(directory.path), None)
        gone = list(_with_all_below(directory))
        for one in gone:
            self._by_path.pop(one.path, None)
            self._by_watch.pop(one.watch, None)
        return gone


def _with_all_below(directory: WatchedDirectory) -> Iterator[WatchedDirectory]:
    stack = [directory]
    while stack:
        one = stack.pop()
        stack += one.below.values()
        yield one
