"""A commit now and then, so that a moment of a quiet time can be a recovery target.

Recovery stops before the first commit behind its target, and fails when the WAL holds none.
"""

from __future__ import annotations

import threading
from typing import Final

from backstay.core.clock import Clock
from backstay.core.events import EventSink
from backstay.errors import BackstayError
from backstay.operations.wal.storing import Piece, as_warning
from backstay.sources.postgres.connection import Connection

_BEAT: Final = "SELECT pg_logical_emit_message(true, 'backstay', 'heartbeat')"
# The commit must not wait for a synchronous standby, which the receiver itself may be.
_DO_NOT_WAIT: Final = "SET synchronous_commit = off"


class Heartbeat:
    """Commits a message on a connection of its own when no commit was seen for `interval` seconds."""

    def __init__(self, url: str, interval: float, clock: Clock, events: EventSink) -> None:
        self._url, self._interval, self._clock, self._events = url, interval, clock, events
        self._seen = clock.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1)  # one that waits for its server ends with the process

    def noticed(self, piece: Piece) -> None:
        """Look for commits in WAL that was stored, when it matters by now."""
        if self._clock.monotonic() - self._seen > self._interval / 2 and piece.last_commit() is not None:
            self._seen = self._clock.monotonic()

    def _run(self) -> None:
        told = False
        while not self._stop.wait(max(0.05, self._seen + self._interval - self._clock.monotonic())):
            if self._clock.monotonic() - self._seen < self._interval:
                continue
            try:
                with Connection(self._url, application="backstay heartbeat") as connection:
                    connection.query(_DO_NOT_WAIT)
                    connection.query(_BEAT)
                told = False
            except BackstayError as error:
                if not told:
                    self._events(as_warning(error))
                told = True
            self._seen = self._clock.monotonic()
