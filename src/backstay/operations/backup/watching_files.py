"""Files that are watched: when the next snapshot of them is due, and how it is made (`Watched`).

A snapshot is made when nothing has changed for a short while, or when the longest wait is over, and never more often
than allowed. From time to time everything is looked at, whatever the kernel told; on its own that makes no snapshot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from backstay.core.clock import Clock
from backstay.core.events import Event, EventSink, Warned
from backstay.core.names import printable
from backstay.errors import Interrupted
from backstay.operations.backup.request import BackupOptions, BackupResult
from backstay.operations.backup.run import run_backup
from backstay.repository.repository import Repository
from backstay.sources.change_journal import ChangeJournal
from backstay.sources.filesystem import FilesystemSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """In seconds: `every` is the least time between snapshots, `settle` that without a change before one is made.

    Changes wait at most `within`. Everything is looked at every `check`, and every `within` where the kernel does not
    tell of all changes.
    """

    every_s: float = 10.0
    settle_s: float = 2.0
    within_s: float = 60.0
    check_s: float = 3600.0


LOOKS_PART = 10  # a look at everything takes at most such a part of the time


@dataclass(slots=True)
class WatchedFiles:
    """The paths of one source. `source` gives it anew for each walk, with the journal as its observer."""

    repository: Repository
    journal: ChangeJournal
    source: Callable[[], FilesystemSource]
    options: BackupOptions
    pace: Pace
    clock: Clock
    stopped: Callable[[], bool]
    events: EventSink
    errors: int = 0  # items of the last snapshot that could not be read
    _mark: int = 0
    _is_due: bool = True
    _began: float | None = None
    _checked: float = 0.0
    _looked: float = 0.0  # at everything; where not everything is told that happens more often
    _took: float = 0.0
    _lacks: bool = False  # a path that was asked for is not there: what comes there is told by nothing
    _last: str | None = None
    _told: set[tuple[bytes, str]] = field(default_factory=set)

    def mark(self) -> int:
        """Another number each time that a snapshot has become due. Raises NotFound when there was never anything."""
        if self._began is None:
            self.source()
        elif not self._is_due and self._has_become_due(self.clock.monotonic()):
            self._mark += 1
            self._is_due = True
        return self._mark

    def _has_become_due(self, now: float) -> bool:
        pace = self.pace
        if now - (self._began or 0.0) < pace.every_s:
            return False
        stirred = self.journal.stirred()
        if stirred is not None and (now - stirred.last >= pace.settle_s or now - stirred.first >= pace.within_s):
            return True
        if now - self._checked >= pace.check_s:
            return True
        pause = max(pace.within_s, LOOKS_PART * self._took)
        return (self._lacks or not self.journal.sees_everything) and now - self._looked >= pause

    def back_up(self) -> BackupResult:
        """One snapshot, or none when everything is as before; others may write to the repository between two.

        The journal is asked before anything is read: what happens from then on is for the next one.
        """
        began = self._began = self.clock.monotonic()
        checks = began - self._checked >= self.pace.check_s
        view = self.journal.begin(check=checks)
        try:
            source = self.source()
            result = run_backup(self.repository, source, self._options(), events=self._sink, changes=view)
        except BaseException:
            self.journal.failed()
            raise
        finally:
            self.repository.release()
        self._is_due = False
        self._lacks = source.lacks_paths
        self._last = result.snapshot or self._last or result.parent
        self.journal.done(view, result.snapshot or result.parent, result.errors)
        if view.looks_at_everything or self._lacks:
            self._looked, self._took = began, self.clock.monotonic() - began
        if checks or view.since is None:
            self._checked = began
        self._tell(result)
        return result

    def _options(self) -> BackupOptions:
        """All but the first snapshot build on the one before, and there is none of what has not changed."""
        if self._last is None:
            return self.options
        kind = "incremental" if self.options.kind == "full" else self.options.kind
        return replace(self.options, kind=kind, skip_unchanged=True)

    def _tell(self, result: BackupResult) -> None:
        for message in self.journal.warnings():
            self.events(Warned(message=message))
        self.errors = len(result.errors)
        found = {(problem.path, problem.message) for problem in result.errors}
        for path, message in sorted(found - self._told):
            self.events(Warned(message=message, path=printable(path)))
        self._told = found

    def _sink(self, event: Event) -> None:
        """Events of a run, without what is told of each item that cannot be read: that comes once, at the end."""
        if not isinstance(event, Warned) or not event.path:
            self.events(event)
        if self.stopped():  # between two steps; what was read until now is not read again
            raise Interrupted("interrupted", cause="it was asked to stop")
