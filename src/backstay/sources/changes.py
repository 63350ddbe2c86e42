"""What is known of changes since a snapshot, so that a walk can leave out what is as it was."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from backstay.sources.source import Stat


class Look(Enum):
    """How much of a directory a walk must look at."""

    ALL = "all"  # it may have changed
    BELOW = "below"  # its own entries are as they were, something below is perhaps not
    NOTHING = "nothing"  # it and all below are as they were


class Changes(Protocol):
    """Knows what has changed since the snapshot `since`; None when it knows of none."""

    since: str | None

    def look(self, path: bytes) -> Look:
        """What a walk must look at in a directory that the snapshot holds."""
        ...

    def differs(self, directory: bytes, before: Stat | None, now: Stat) -> None:
        """Is told of an entry that a walk found to be another one than before, None if there was none."""
        ...


class Observer(Protocol):
    """Follows a walk through the file system. Raises nothing."""

    def opened(self, fd: int, path: bytes, *, device: int, named: frozenset[bytes], leads: bool) -> None:
        """A directory was opened and is listed next.

        `named` are names in it that are backed up whatever filters say; one that only `leads` counts for nothing else.
        """
        ...

    def has_links(self, path: bytes) -> None:
        """A directory that was opened holds a file with several names."""
        ...

    def is_cache(self, path: bytes) -> None:
        """A directory that was opened is marked as a cache, of which nothing is backed up but the tag."""
        ...
