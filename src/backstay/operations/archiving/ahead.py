"""Segments that a server will ask for next, stored before it does: it marks what is complete in pg_wal/archive_status.

A server that writes faster than it archives asks for one file after the other; meanwhile the next ones are stored at
the same time. It asks in their order, and only what it asks for is acknowledged.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from contextlib import suppress
from typing import Final

from backstay.core.events import EventSink, Warned
from backstay.operations.archiving.jobs import ArchiveJobs
from backstay.operations.archiving.wal_file import Offered

_READY: Final = re.compile(r"([0-9A-F]{24})\.ready")
LOOK_S: Final = 1.0  # between looks while nobody asks
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
# Whoever looks may be root: a link or a pipe in the place of a segment must not lead it elsewhere.
_SEGMENT: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class LookAhead:
    """Prepares up to `limit` segments, on a thread, in the directory that the last request came from."""

    def __init__(self, jobs: ArchiveJobs, limit: int, events: EventSink) -> None:
        self._jobs, self._limit, self._events = jobs, limit, events
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._next: int | None = None  # an open pg_wal that the thread has not taken yet
        self._directory: int | None = None
        self._is_closing = self._is_told = False
        self._thread = threading.Thread(target=self._run, name="look-ahead", daemon=True)
        self._thread.start()

    def follow(self, directory: int) -> None:
        """Look in this open pg_wal, which is taken over, and do so now."""
        with self._lock:
            before, self._next = self._next, directory
        if before is not None:
            os.close(before)
        self._wake.set()

    def close(self) -> None:
        """Begin with nothing more."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        while not self._is_closing:
            self._wake.wait(LOOK_S)
            self._wake.clear()
            self._take_directory()
            if self._directory is not None and not self._is_closing:
                self._look(self._directory)

    def _take_directory(self) -> None:
        with self._lock:
            given, self._next = self._next, None
        if given is not None:
            if self._directory is not None:
                os.close(self._directory)
            self._directory = given

    def _look(self, directory: int) -> None:
        try:
            ready = _ready(directory)
            self._jobs.forget_unasked(ready)
            for name in ready:
                if self._jobs.unasked() >= self._limit:
                    return
                if not self._jobs.knows(name):
                    self._prepare(directory, name)
        except OSError as error:
            if not self._is_told:
                self._events(
                    Warned(message=f"no segment is stored before it is asked for: pg_wal cannot be read ({error})")
                )
            self._is_told = True

    def _prepare(self, directory: int, name: str) -> None:
        with suppress(FileNotFoundError):  # it was archived, and removed, a moment ago
            descriptor = os.open(name, _SEGMENT, dir_fd=directory)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                self._jobs.prepare(Offered(name, descriptor, None))
            else:
                os.close(descriptor)


def _ready(directory: int) -> list[str]:
    """The segments that the server has marked to be archived, in their order. Raises OSError."""
    status = os.open("archive_status", _DIRECTORY, dir_fd=directory)
    try:
        return sorted(match[1] for name in os.listdir(status) if (match := _READY.fullmatch(name)))
    finally:
        os.close(status)
