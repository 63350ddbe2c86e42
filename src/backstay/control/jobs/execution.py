"""A running job, as the code sees it that does the work: it tells how far it is, and learns that it should end."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Final

from backstay.catalog.models.base import Document
from backstay.control.jobs.port import Claim, StopReason
from backstay.control.jobs.rows import JobRows, Line, Tenure
from backstay.core.clock import Clock
from backstay.core.events import Event, EventSink, Finished, Progress, Started, Warned
from backstay.errors import CatalogUnavailable, Interrupted

EVERY_S: Final = 1.0  # how often progress is written down
MOST_LINES: Final = 2000  # of one attempt's log
_LONGEST: Final = 4000  # characters of a line
_WHY: Final[dict[StopReason, str]] = {
    "cancelled": "somebody cancelled the job; the repository is as good as before",
    "stopping": "the process that ran it was asked to stop; the job is begun again",
    "lost": "the process was silent for so long that the job was given to another",
}


class Execution:
    """One attempt at a job. Telling may happen in any thread; only that of the handler is interrupted."""

    def __init__(
        self, claim: Claim, tenure: Tenure, rows: JobRows, *, clock: Clock, cancel_asked: bool = False
    ) -> None:
        self.job_id, self.attempt = tenure.job_id, tenure.attempt
        self._claim, self._tenure, self._rows, self._clock = claim, tenure, rows, clock
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._lines: list[Line] = []
        self._told = 0
        self._progress: Document = {}
        self._fresh = False
        self._written = clock.monotonic()
        self._why: StopReason | None = "cancelled" if cancel_asked else None

    # -- ending

    @property
    def why(self) -> StopReason | None:
        """Why it should end, as far as that is known; does not ask."""
        return self._why

    def cancelled(self) -> bool:
        """Whether the work should end before it is done, for whatever reason."""
        if self._why is None:
            self._why = self._claim.stop_reason()
        return self._why is not None

    def checkpoint(self) -> None:
        """Where the work may end early. Raises Interrupted."""
        self._write_if_due()
        if self.cancelled():
            assert self._why is not None
            raise Interrupted("the job was interrupted", cause=_WHY[self._why])

    # -- telling

    def progress(self, document: Document) -> None:
        """How far it is, in place of what was told before."""
        with self._lock:
            self._progress, self._fresh = dict(document), True
        self._write_if_due()

    def log(self, level: str, message: str) -> None:
        """A line of the job's log: `info`, `warning` or `error`."""
        with self._lock:
            self._told += 1
            if self._told < MOST_LINES:
                self._lines.append(Line(time=self._clock.now(), level=level, message=message[:_LONGEST]))
            elif self._told == MOST_LINES:
                rest = "there is more to tell than a log holds: further lines are left out"
                self._lines.append(Line(time=self._clock.now(), level="warning", message=rest))
        self._write_if_due()

    @property
    def events(self) -> EventSink:
        """A sink for the events of an operation: they become progress and lines, and the operation can be ended."""
        return self._take

    def _take(self, event: Event) -> None:
        if isinstance(event, Started):
            document = {"stage": event.operation, "files": 0, "bytes": 0}
            document |= {"total_files": event.total_files or None, "total_bytes": event.total_bytes or None}
            self.log("info", f"{event.operation} began")
            self.progress(document)
        elif isinstance(event, Progress):
            self.progress(self._progress | {"files": event.files, "bytes": event.bytes, "current": event.current})
        elif isinstance(event, Warned):
            self.log("warning", f"{event.path}: {event.message}" if event.path else event.message)
        elif isinstance(event, Finished):
            self.log("info", f"{event.operation} ended")
        if threading.get_ident() == self._thread:
            self.checkpoint()
        else:  # threads that tell are not interrupted
            self._write_if_due()

    def _write_if_due(self) -> None:
        with self._lock:
            now = self._clock.monotonic()
            if now - self._written < EVERY_S:
                return
            self._written = now
        with suppress(CatalogUnavailable):  # told later; whether the job counts is decided at its end
            self.write()

    def write(self) -> None:
        """Write down now what was told, and learn whether the end was asked for. Raises CatalogUnavailable."""
        with self._lock:
            lines, self._lines = self._lines, []
            progress = dict(self._progress) if self._fresh else None
            self._fresh = False
        try:
            asked = self._rows.note(self._tenure, progress, lines)
        except CatalogUnavailable:
            with self._lock:
                self._lines[:0] = lines
                self._fresh = True
            raise
        if asked is None:
            self._why = "lost"
        elif asked and self._why is None:
            self._why = "cancelled"

    def untold(self) -> tuple[Document | None, list[Line]]:
        """What was not written down yet: it goes with the end of the job."""
        with self._lock:
            lines, self._lines = self._lines, []
            return (dict(self._progress) if self._progress else None), lines
