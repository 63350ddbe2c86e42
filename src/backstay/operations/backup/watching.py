"""Back up a source each time that it has changed, until asked to stop.

What passes by itself, such as a store that is away or a database that somebody keeps locked, is told once and tried
again with growing pauses. A crash is one of the backup that it interrupts; the next watch begins with a backup.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from backstay.core.clock import Clock, rest
from backstay.core.events import EventSink, Warned, ignore
from backstay.errors import (
    BackstayError,
    BackupFailed,
    InsufficientSpace,
    Interrupted,
    NotFound,
    RepositoryBusy,
    SnapshotFenced,
    SourceRefused,
    StorageUnavailable,
    StorageUnfit,
)
from backstay.operations.backup.request import BackupResult

LONGEST_PAUSE_S: Final = 300.0
_PASSING: Final = (
    BackupFailed,
    InsufficientSpace,
    NotFound,
    RepositoryBusy,
    SnapshotFenced,
    SourceRefused,
    StorageUnavailable,
)


class Watched(Protocol):
    """A source that can tell at little cost whether it has changed."""

    def mark(self) -> object:
        """Its state, equal as long as nothing has changed."""
        ...

    def back_up(self) -> BackupResult:
        """Make a snapshot of a state that is not older than the last mark."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchResult:
    """How many snapshots were made, and the last of them."""

    snapshots: int
    last: str | None


def watch(
    source: Watched,
    stopped: Callable[[], bool],
    *,
    every_s: float,
    clock: Clock,
    made: Callable[[BackupResult], None],
    events: EventSink = ignore,
) -> WatchResult:
    """Make a snapshot now, and look every so often whether another one is due; `made` gets each result.

    Raises NotFound when there is nothing to watch at first, and what does not pass by itself: CorruptedSource,
    InvalidRequest and others.
    """
    source.mark()
    return _Watch(source, stopped, every_s, clock, made, events).run()


@dataclass(slots=True)
class _Watch:
    source: Watched
    stopped: Callable[[], bool]
    every_s: float
    clock: Clock
    made: Callable[[BackupResult], None]
    events: EventSink
    last: object = None
    told: str = ""
    pause: float = 0.0
    count: int = 0
    snapshot: str | None = None

    def run(self) -> WatchResult:
        while not self.stopped():
            try:
                self._look()
            except Interrupted:
                if not self.stopped():
                    raise
                break
            except StorageUnfit:  # no store becomes another one
                raise
            except _PASSING as error:
                self.pause = max(self.every_s, min(2 * self.pause, LONGEST_PAUSE_S)) if self.told else self.every_s
                self._tell(error)
            else:
                self.pause = self.every_s
            rest(self.clock, self.pause, self.stopped)
        return WatchResult(snapshots=self.count, last=self.snapshot)

    def _look(self) -> None:
        """The mark is taken before the copy: a change between both makes one snapshot more, and is never missed."""
        mark = self.source.mark()
        if mark != self.last:
            result = self.source.back_up()
            self.last = mark
            if result.snapshot is not None:  # else nothing had changed after all
                self.count, self.snapshot = self.count + 1, result.snapshot
                self.made(result)
        if self.told:
            self.events(Warned(message="it works again"))
            self.told = ""

    def _tell(self, error: BackstayError) -> None:
        if str(error) != self.told:
            self.told = str(error)
            self.events(Warned(message=f"{error}; it is tried again until it works"))
