"""What a restore has done so far, and what went wrong with single items."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from backstay.core.events import EventSink, Progress, Warned
from backstay.core.names import printable
from backstay.errors import (
    BackstayError,
    CorruptedBackup,
    InsufficientSpace,
    NotFound,
    RestoreConflict,
    RestoreFailed,
    StorageUnavailable,
)

COUNTED: Final = ("files", "dirs", "bytes", "unchanged", "skipped", "renamed", "deleted")


@dataclass(frozen=True, slots=True)
class FailedItem:
    """One item that could not be restored; `code` is that of the error, such as CorruptedBackup."""

    path: str
    code: str
    message: str


class Tally:
    """Counts and errors; any thread may add to it."""

    def __init__(self, events: EventSink) -> None:
        self._events = events
        self._lock = threading.Lock()
        self.counts = dict.fromkeys(COUNTED, 0)
        self.errors: list[FailedItem] = []
        self._failed: set[bytes] = set()

    def count(self, what: str, by: int = 1) -> None:
        with self._lock:
            self.counts[what] += by

    def done(self, size: int, *, entries: int = 1) -> None:
        """One more entry is in its place, or so many, with so many bytes together."""
        with self._lock:
            self.counts["files"] += entries
            self.counts["bytes"] += size

    def guard(self, path: bytes | None, action: Callable[[], object]) -> None:
        """Run one step; what concerns a single item is noted, and the rest goes on."""
        try:
            action()
        except (InsufficientSpace, StorageUnavailable):
            raise
        except (CorruptedBackup, RestoreFailed, RestoreConflict, NotFound) as error:
            self.note(path or b"", error)

    def note(self, path: bytes, error: BackstayError) -> None:
        """One item could not be restored."""
        with self._lock:
            self._failed.add(path)
            self.errors.append(FailedItem(printable(path), error.code, str(error)))
        self._events(Warned(message=str(error), path=printable(path)))

    def has_failed(self, path: bytes) -> bool:
        """Whether an item could not be restored; what stands in its place is something else."""
        with self._lock:
            return path in self._failed

    def warn(self, message: str) -> None:
        """Something that a person may want to know, and that changes nothing."""
        self._events(Warned(message=message))

    def report(self) -> None:
        """Tell how far it is."""
        self._events(Progress(files=self.counts["files"], bytes=self.counts["bytes"]))
