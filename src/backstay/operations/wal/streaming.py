"""One stream of WAL: what comes goes to be stored, and the server hears what is durable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from backstay.core.clock import LOOK_S, Clock
from backstay.core.events import EventSink, Warned
from backstay.operations.wal.spooling import Spooling
from backstay.operations.wal.storing import Assembler, Piece, Storing
from backstay.sources.postgres.receiver import Asked, Data, Ended, WalStream

Stopped: TypeAlias = Callable[[], bool]  # whether somebody asked to stop
STATUS_S: Final = 10.0  # between reports, at most
DRAIN_S: Final = 20.0  # how long one that is asked to stop waits for the store
TAKEN_AT_ONCE: Final = 1 << 20  # bytes that are acknowledged together, about
FEW: Final = 1 << 16  # bytes with which nothing more is waited for


@dataclass(slots=True, kw_only=True)
class Streaming:
    """Runs on the thread that receives; cuts parts and reports at least so often as is said, in seconds.

    Where commits wait for the reports (`is_synchronous`) and nothing is spooled, a part is cut whenever the store is
    ready for one: all that came meanwhile is stored together. No position before `not_before` is reported: the slot
    begins there already.
    """

    stream: WalStream
    assembler: Assembler
    storing: Storing
    every: float
    report_every: float
    clock: Clock
    stopped: Stopped
    events: EventSink
    not_before: int
    is_synchronous: bool = False
    spooling: Spooling | None = None
    _cut_at: float = field(init=False)
    _reported_at: float = field(init=False)
    _reported: int = 0
    _is_asked: bool = False

    def __post_init__(self) -> None:
        self._cut_at = self._reported_at = self.clock.monotonic()

    def run(self) -> Ended | None:
        """Until the server ends the stream, or somebody asks to stop; then None.

        Whatever ends it, what was received goes to be stored.
        """
        try:
            while not self.stopped():
                self.storing.check()
                if not self.storing.has_room:
                    self.storing.wait(LOOK_S)
                elif (ended := self._take()) is not None:
                    return ended
                self._report_if_due()
                self._cut_if_due()
        finally:
            self._offer(self.assembler.cut())
        self._finish()
        return None

    def _take(self) -> Ended | None:
        """Take what has come, so that it becomes durable together; wait a moment if nothing has."""
        begin = self.assembler.position
        patience: float | None = LOOK_S
        while self.assembler.position < begin + TAKEN_AT_ONCE:
            message = self.stream.next(patience, self.storing.bell)
            if isinstance(message, Ended):
                return message
            if isinstance(message, Data):
                self._add(message)
            elif isinstance(message, Asked):
                self._is_asked = True
                self._cut()  # a server that shuts down waits until all is durable
            else:
                break
            # Commits that wait are few bytes, which came together: to look for more would keep them waiting.
            patience = None if self.assembler.position < begin + FEW else 0.0
        if self.spooling is not None:
            self.spooling.commit()
        return None

    def _add(self, message: Data) -> None:
        if self.spooling is not None:
            self.spooling.add(message.lsn, message.data)
        for piece in self.assembler.add(message.lsn, message.data):
            self._offer(piece)

    def _cut_if_due(self) -> None:
        is_eager = self.is_synchronous and self.spooling is None
        if self.storing.is_idle and (is_eager or self.clock.monotonic() - self._cut_at >= self.every):
            self._cut()

    def _cut(self) -> None:
        self._cut_at = self.clock.monotonic()
        self._offer(self.assembler.cut())

    def _offer(self, piece: Piece | None) -> None:
        if piece is not None:
            self.storing.offer(piece)

    def _report_if_due(self) -> None:
        self.storing.bell.hush()
        is_late = self.clock.monotonic() - self._reported_at >= self.report_every
        if self._is_asked or is_late or self._durable() > self._reported:
            self._report()

    def _durable(self) -> int:
        """Up to where the server may forget its WAL."""
        return self.storing.durable if self.spooling is None else max(self.storing.durable, self.spooling.durable)

    def _report(self) -> None:
        durable = self._durable()
        # With synchronous_commit = remote_write commits wait for what was written: memory would promise nothing.
        written = durable if self.is_synchronous else self.assembler.position
        self.stream.report(written, durable if durable >= self.not_before else 0)
        self._reported, self._reported_at, self._is_asked = durable, self.clock.monotonic(), False

    def _finish(self) -> None:
        """Wait for the store, say what is durable, and end the stream."""
        until = self.clock.monotonic() + DRAIN_S
        while not self.storing.is_idle and self.clock.monotonic() < until:
            self.storing.check()
            self.storing.wait(LOOK_S)
            self._report_if_due()
        if not self.storing.is_idle:
            self.events(Warned(message="what came last is not stored yet; the server keeps it for the next receiver"))
        self._report()
        self.stream.stop()
