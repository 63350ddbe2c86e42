"""Files that are put into a data directory, and belong to whom the directory belongs to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class OwnedFiles:
    """What is written for the server of one data directory. All methods raise OSError; any thread may call them."""

    data: Path

    def write(self, place: Path, data: bytes) -> None:
        """A whole file, for its owner alone; one that is there is replaced."""
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        self.own(place)

    def publish(self, place: Path, data: bytes) -> None:
        """The same for one who waits for it: the name appears when all is written."""
        made = place.with_name(f".{place.name}")
        self.write(made, data)
        made.rename(place)

    def make(self, place: Path) -> None:
        """A directory that is not there yet."""
        place.mkdir(0o700, parents=True)
        self.own(place)

    def own(self, place: Path) -> None:
        """Only root can give files away; who is not root restores as the owner."""
        if os.geteuid() == 0:
            owner = self.data.stat()
            os.chown(place, owner.st_uid, owner.st_gid, follow_symlinks=False)
