"""What a journal of changes knows at the moment when a walk begins (`Changes`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from backstay.sources.changes import Look
from backstay.sources.source import Stat
from backstay.sources.watched_tree import WatchedTree, directory_of, path_in

MOST_TOLD: Final = 5  # contradictions


class ChangeView:
    """Changes since the walk that made the snapshot `since`.

    `dirty` are the directories in which something happened; `always` are to be looked at in any case. With `compares`
    everything is looked at, and what differs where nothing was told of a change is kept.
    """

    def __init__(
        self,
        tree: WatchedTree,
        *,
        since: str | None,
        everything: bool,
        compares: bool,
        dirty: Iterable[bytes],
        always: Iterable[bytes],
    ) -> None:
        self.since = since
        self.looks_at_everything = everything
        self._tree, self._compares = tree, compares
        # What happens in a directory changes its times too, which stand in the one above.
        self._look = {place for path in dirty for place in (path, directory_of(path))} | set(always)
        self._way = _above(self._look)
        self._contradictions: list[tuple[bytes, bytes]] = []

    def look(self, path: bytes) -> Look:
        """A directory that is not watched any more may be another one by now."""
        if self.looks_at_everything or path in self._look or path not in self._tree:
            return Look.ALL
        return Look.BELOW if path in self._way else Look.NOTHING

    def differs(self, directory: bytes, before: Stat | None, now: Stat) -> None:
        """Note what was not told. The time of the inode alone says little: others set it with the same values."""
        told = not self._compares or directory in self._look or directory not in self._tree
        if told or (before is not None and (before[:4], before[5]) == (now[:4], now[5])):
            return
        if len(self._contradictions) < MOST_TOLD:
            self._contradictions.append((directory, now[0]))

    def contradictions(self, told_since: set[bytes]) -> list[bytes]:
        """Items that were not as they had been, though nothing was told of them, up to now."""
        return [
            path
            for directory, name in self._contradictions
            if directory not in told_since and (path := path_in(directory, name)) not in told_since
        ]


def _above(paths: Iterable[bytes]) -> set[bytes]:
    found: set[bytes] = set()
    for path in paths:
        place = directory_of(path)
        while place not in found:
            found.add(place)
            place = directory_of(place)
    return found
