"""A backup that reads no contents and stores nothing: what the next real one would do."""

from __future__ import annotations

import stat
from collections.abc import Callable

from backstay.core.clock import Clock
from backstay.operations.backup.request import BackupOptions, BackupResult, kind_of
from backstay.operations.backup.scan import Left, Page, Scan, Step, Take, Unreadable
from backstay.repository.snapshots.store import Manifest
from backstay.repository.trees.stat_stream import StatCursor
from backstay.sources.source import Source


class Rehearsal:
    """One walk beside the stat stream of the base; `tell` is called after each step, with the files seen so far."""

    def __init__(
        self, source: Source, options: BackupOptions, *, clock: Clock, tell: Callable[[Step, int], None]
    ) -> None:
        self._source, self._options, self._clock, self._tell = source, options, clock, tell
        self._new = self._changed = self._files = self._dirs = 0
        self._size = self._to_read = 0

    def run(self, base: Manifest | None, cursor: StatCursor | None, *, started: float) -> BackupResult:
        """Walk and compare. `cursor` is in the base's stat stream; the run began at `started` on the clock."""
        for step in Scan(self._source, cursor, None).steps():
            self._take(step)
            self._tell(step, self._files)
        return BackupResult(
            snapshot=None,
            kind=kind_of(self._options, base),
            parent=base.id if base is not None else None,
            files_new=self._new,
            files_changed=self._changed,
            files_unchanged=self._files - self._new - self._changed,
            files=self._files,
            dirs=self._dirs,
            bytes_scanned=self._size,
            bytes_read=self._to_read,
            bytes_added=0,
            duration_s=self._clock.monotonic() - started,
            errors=tuple(self._source.problems),
        )

    def _take(self, step: Step) -> None:
        if isinstance(step, Take) and not stat.S_ISDIR(step.entry[1]):
            self._new += step.is_new
            self._changed += not step.is_new
            self._to_read += step.entry[2]
        elif isinstance(step, Page):
            inner = sum(1 for row in step.rows if stat.S_ISDIR(row[1]))
            self._files += len(step.rows) - inner
            self._size += sum(row[2] for row in step.rows)
        elif isinstance(step, Unreadable):
            self._dirs += 1
        elif isinstance(step, Left):
            self._dirs += 1
            step.visit.directory.close()
