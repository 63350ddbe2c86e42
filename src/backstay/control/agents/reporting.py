"""A job on an agent's host, as the work sees it: it tells how far it is, and learns that it should end.

A thread of its own sends what was told, so that the work never waits for the line; it sends also when there is nothing
new, so that the server hears that the agent lives.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from backstay.core.clock import Clock
from backstay.core.events import Event, Finished, Progress, Started, Warned
from backstay.errors import BackstayError, Forbidden, Interrupted, NotFound, Unauthorized

BEAT_S: Final = 2.0
MOST_LINES: Final = 2000  # of one attempt's log
AT_ONCE: Final = 500  # lines of one report
_LONGEST: Final = 4000  # characters of a line
_CURRENT: Final = 4000

Why: TypeAlias = Literal["cancelled", "stopping", "lost"]
Told: TypeAlias = dict[str, Any]
Tell: TypeAlias = Callable[[Told], Mapping[str, Any]]
_REASONS: Final[dict[Why, str]] = {
    "cancelled": "somebody cancelled the job; the repository is as good as before",
    "stopping": "the agent was asked to stop; the job is begun again when it is back",
    "lost": "the server gave the job back, or takes nothing more of this agent",
}


class Reporting:
    """One attempt at a job. Telling may happen in any thread; only that of the work is interrupted."""

    def __init__(self, tell: Tell, clock: Clock, stopped: Callable[[], bool]) -> None:
        """`tell` sends a report; what it raises is tried again with the next one, unless it is final."""
        self._tell, self._clock, self._stopped = tell, clock, stopped
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._lines: list[Told] = []
        self._count = 0
        self._progress: Told = {}
        self._fresh = False
        self.why: Why | None = None

    # -- ending

    def checkpoint(self) -> None:
        """Where the work may end early. Raises Interrupted."""
        if self.why is None and self._stopped():
            self.why = "stopping"
        if self.why is not None:
            raise Interrupted("the job was interrupted", cause=_REASONS[self.why])

    # -- telling

    def log(self, level: str, message: str) -> None:
        """A line of the job's log: `info`, `warning` or `error`."""
        with self._lock:
            self._count += 1
            if self._count < MOST_LINES:
                self._lines.append(_line(self._clock.now(), level, message))
            elif self._count == MOST_LINES:
                rest = "there is more to tell than a log holds: further lines are left out"
                self._lines.append(_line(self._clock.now(), "warning", rest))

    def events(self, event: Event) -> None:
        """A sink for the events of an operation."""
        if isinstance(event, Started):
            self.log("info", f"{event.operation} began")
            self._set(
                {
                    "stage": event.operation,
                    "files": 0,
                    "bytes": 0,
                    "total_files": event.total_files or None,
                    "total_bytes": event.total_bytes or None,
                }
            )
        elif isinstance(event, Progress):
            with self._lock:
                known = dict(self._progress)
            self._set(known | {"files": event.files, "bytes": event.bytes, "current": _plain(event.current)[:_CURRENT]})
        elif isinstance(event, Warned):
            self.log("warning", f"{event.path}: {event.message}" if event.path else event.message)
        elif isinstance(event, Finished):
            self.log("info", f"{event.operation} ended")
        if threading.get_ident() == self._thread:
            self.checkpoint()

    def _set(self, progress: Told) -> None:
        with self._lock:
            self._progress, self._fresh = progress, True

    # -- sending

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Within, the server hears again and again that the agent lives, and how far it is."""
        thread = threading.Thread(target=self._beat, name="backstay-agent-reports", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            self.send()

    def send(self) -> None:
        """Send what was told since the last time; what does not arrive is sent with the next report."""
        with self._lock:
            lines, self._lines = self._lines[:AT_ONCE], self._lines[AT_ONCE:]
            fresh, self._fresh = self._fresh, False
            progress = dict(self._progress) if fresh else None
        try:
            heard = self._tell({"progress": progress, "lines": lines})
        except (NotFound, Unauthorized, Forbidden):
            self.why = "lost"
        except BackstayError:
            with self._lock:
                self._lines[:0] = lines
                self._fresh = self._fresh or fresh
        else:
            if heard.get("lost"):
                self.why = "lost"
            elif heard.get("cancel") and self.why is None:
                self.why = "cancelled"

    def untold(self) -> Told:
        """What was not sent yet: it goes with the end of the job, the newest lines of it."""
        with self._lock:
            lines, self._lines = self._lines, []
            return {"progress": dict(self._progress) or None, "lines": lines[-AT_ONCE:]}


def _line(time: datetime, level: str, message: str) -> Told:
    return {"time": time.isoformat(), "level": level, "message": _plain(message)[:_LONGEST]}


def _plain(text: str) -> str:
    """A text without what databases refuse and terminals obey."""
    found = text.encode("utf-8", "backslashreplace").decode()
    return "".join(one if (one >= " " and one != "\x7f") or one in "\n\t" else " " for one in found)


def plain_document(document: Any, /) -> Any:  # noqa: ANN401 - any JSON
    """A document whose texts are plain, and no longer than the server takes."""
    if isinstance(document, str):
        return _plain(document)[:_LONGEST]
    if isinstance(document, Mapping):
        return {key: plain_document(value) for key, value in document.items()}
    if isinstance(document, Sequence) and not isinstance(document, bytes):
        return [plain_document(value) for value in document]
    return document
