"""A directory for files that are needed for a while, which a process that was killed does not leave for ever."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self


class Scratch:
    """A directory of this process alone. One that a killed process left behind is removed by the next of its kind."""

    def __init__(self, above: Path, kind: str) -> None:
        """Make it below `above`, with a name that begins with `kind`. Raises OSError."""
        above.mkdir(parents=True, exist_ok=True, mode=0o700)
        _remove_leftovers(above, kind)
        self._lock = -1
        while self._lock < 0:
            self.path = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=above))
            self._lock = _locked(self.path)

    def clear(self) -> None:
        """Remove it; may be called more than once."""
        fd, self._lock = self._lock, -1
        if fd >= 0:
            try:
                _remove(self.path)
            finally:
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()


def scratch_above(cache: Path | None) -> Path:
    """Where such directories lie: in the cache, or in the system's place for temporary files when there is none."""
    return cache if cache is not None else Path(tempfile.gettempdir())


def _locked(place: Path) -> int:
    """The lock on a directory that was just made; -1 if another process took it for a leftover before that."""
    try:
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return -1
    except OSError:  # a file system without locks, where nobody takes it for a leftover either
        return fd
    if place.exists():
        return fd
    os.close(fd)
    return -1


def _remove(place: Path) -> None:
    """Remove it with all that is in it, also what its owner may not change: a restore brings modes back."""
    try:
        shutil.rmtree(place)
    except PermissionError:
        for above, names, _ in os.walk(place):
            for path in (Path(above, name) for name in names):
                if not path.is_symlink():
                    path.chmod(0o700)
        shutil.rmtree(place)


def _remove_leftovers(above: Path, kind: str) -> None:
    for place in above.glob(f"{kind}-*"):
        try:
            fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # another user's
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(place)
        except OSError:
            continue  # in use, or nobody can tell, or not ours to remove
        finally:
            os.close(fd)
